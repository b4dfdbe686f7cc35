"""Config of the stage that learns to segment from labels of whole slides."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import model_validator

from napari_histogan.config.stage import StageConfig, basic, more


class TrainWeaklyConfig(StageConfig):
    """Train a net that outlines malign tissue from labels of whole slides alone."""

    stage: ClassVar[str] = "train_weakly"
    result: ClassVar[str] = "segmenter"

    labels: Path | None = basic(
        None,
        "CSV of the slides' labels: a header slide,label, then benign, malign, or unknown; none takes those "
        "that the project keeps.",
    )
    steps: int = basic(2000, "Training steps.", "steps", ge=1)
    pretrain_steps: int = basic(
        500, "Steps in which an auto-encoder learns the slides first; 0 starts anew.", "steps", ge=0
    )
    mpp: float = basic(
        1.0, "Resolution that the net works at, as in Pinchaud's paper.", "um/px", gt=0.05, lt=50
    )
    patch_px: int = more(256, "Side of a training patch.", "px", ge=16, le=4096)
    batch: int = more(16, "Patches per step.", "patches", ge=2, le=1024)
    width: int = more(32, "Channels of the first stage; doubled at each stage.", ge=2, le=128)
    depth: int = more(4, "Times that the net halves the picture.", ge=1, le=6)
    gamma: float | None = more(
        None,
        "Share of the malign slides' patches without malign tissue; with it beta_1 is computed, not given.",
        gt=0,
        lt=1,
    )
    accepted: float = more(
        0.05, "Malign probability accepted on benign tissue (theta_0), where gamma is given.", gt=0, lt=1
    )
    beta_0: float = more(0.0, "Loss of the benign label: 0 is cross-entropy, 1 is 1 - q.", ge=0, le=1)
    beta_1: float = more(
        1.0, "Loss of the malign label; larger ignores more of the patches that are benign.", ge=0, le=1
    )
    beta_rise: float = more(
        0.5,
        "Share of the steps over which beta_1 rises from 0, evenly; 0 has it from the first step. At beta_1 "
        "near 1 a net that is not yet sure of anything learns next to nothing from malign slides.",
        ge=0,
        le=1,
    )
    eta: float = more(
        50.0, "Share of a patch's pixels that makes it malign, the highest ones.", "%", gt=0, le=100
    )
    alpha: float = more(4.0, "Power that patches are drawn by; 0 draws evenly.", ge=0, le=16)
    places: Literal["rank", "probability"] = more(
        "rank",
        "What alpha is the power of: a place's rank among benign tissue, or its malign probability, as in "
        "Pinchaud's paper. A net that is unsure says nearly the same everywhere, and a power of that changes "
        "little.",
    )
    even_share: float = more(
        0.3,
        "Share of the steps in which places are drawn evenly and all pixels of a patch decide; then alpha "
        "rises, and eta falls, over as many steps. A net that knows nothing yet should not choose what it "
        "learns from.",
        ge=0,
        le=0.5,
    )
    every_epochs: int = more(4, "Each slide is visited at least once in so many epochs.", "epochs", ge=1)
    patches_per_visit: int = more(4, "Patches drawn at a visit of a slide.", "patches", ge=1, le=1024)
    buffer: int = more(128, "Patches from which batches are shuffled.", "patches", ge=2, le=100_000)
    learning_rate: float = more(2e-3, "Largest step size.", gt=0, lt=1)
    weight_decay: float = more(1e-4, "Weight decay.", ge=0)
    ema: float = more(0.99, "Averaging of the weights over steps; 0 turns it off.", ge=0, lt=1)
    augment: bool = more(True, "Turns by any angle, mirror images, elastic deformation, and stain jitter.")
    elastic_px: float = more(4.0, "Typical shift of the elastic deformation.", "px", ge=0, le=64)
    map_every: int = more(
        0,
        "Steps after which training waits while all maps are made anew, for debugging; 0 makes maps beside "
        "the training.",
        "steps",
        ge=0,
    )
    map_tile_px: int = more(512, "Side of the windows that maps are made of.", "px", ge=32, le=8192)
    mapper_share: float = more(
        0.0,
        "Share of the time in which maps may be computed; 0 measures how much they slow the training, and "
        "takes the largest share that leaves it three quarters of its speed.",
        ge=0,
        le=1,
    )
    holdout_share: float = more(
        0.0, "Share of each kind of slides kept back to score the result.", ge=0, lt=0.9
    )
    lesions: Path | None = more(
        None, "Folder of outlines (SLIDE.geojson) of the malign slides kept back, to score lesions (FROC)."
    )
    bootstrap: int = more(1000, "Resamples of the confidence intervals.", ge=0, le=100_000)
    checkpoint_minutes: float = more(5.0, "Time between checkpoints.", "min", gt=0)

    @model_validator(mode="after")
    def _check_buffer(self) -> TrainWeaklyConfig:
        """Refuse a buffer that holds no batch."""
        if self.buffer < self.batch:
            raise ValueError(f"a buffer of {self.buffer} patches holds no batch of {self.batch}")
        return self

"""Configs of the stages that compare ways of training."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from napari_histogan.config.stage import StageConfig, basic, more


class LabelEfficiencyConfig(StageConfig):
    """Compare painted synthetic images with hand-annotated real ones (Table 1 of the renal paper)."""

    stage: ClassVar[str] = "label_efficiency"
    result: ClassVar[str] = "study"

    annotated: Path = basic(
        Path(), "Folder with hand-annotated pictures: train/ or images/, and masks/ with the same names."
    )
    test: Path = basic(Path(), "Folder with annotated test pictures of other patients, laid out alike.")
    picture_mpp: float = basic(0.5, "Resolution of both folders' pictures.", "um/px", gt=0.01, lt=100)
    painted: int = basic(24, "Painted synthetic images to learn from.", "images", ge=1)
    control: int = basic(72, "Hand-annotated patches of the control.", "patches", ge=1)
    control_plus: int = basic(152, "Hand-annotated patches of the larger control.", "patches", ge=1)
    seeds: int = basic(3, "Repetitions, each with images, patches, and nets of its own.", ge=1, le=100)
    pairs: int = more(2000, "Synthetic pairs made from the painted images.", "pairs", ge=16)
    truncation: float = more(0.9, "Variety of the synthetic images.", ge=0, le=1)
    picture_nets: int = more(
        3,
        "Nets that label synthetic pairs beside the pixel classifier; see train-pixel-classifier.",
        ge=0,
        le=16,
    )
    picture_steps: int = more(300, "Training steps of each of them.", "steps", ge=1)
    painted_share: float = more(
        0.2, "Share of the draws that are painted samples themselves; see train-segmenter.", ge=0, lt=1
    )
    steps: int = more(1000, "Training steps of every net.", "steps", ge=1)
    batch: int = more(16, "Patches per step.", "patches", ge=1, le=1024)
    width: int = more(16, "Channels of the first stage of the U-Net.", ge=4, le=128)
    learning_rate: float = more(2e-3, "Largest step size.", gt=0, lt=1)
    transfer_rate: float = more(
        1e-3, "Largest step size when a net trained on synthetic pairs goes on with real patches.", gt=0, lt=1
    )
    rehearsal: float = more(
        0.5,
        "Share of the draws that stay synthetic when a net goes on with real patches, so that it does not "
        "forget; 0 as in the renal paper.",
        ge=0,
        lt=1,
    )
    bootstrap: int = more(2000, "Resamples of the intervals.", ge=0, le=100_000)
    samples: str = more("", "Painted samples; empty takes the newest set that is painted.")

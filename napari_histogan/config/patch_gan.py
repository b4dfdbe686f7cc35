"""Configs of the patch classifier that learns from few labels, and of its maps (paper 004)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import field_validator, model_validator

from napari_histogan.config.stage import StageConfig, basic, more

PAPER: dict[str, Any] = {
    "patch_px": 64,
    "channel": "green",
    "clahe": True,
    "centers": "skeleton",
    "normalization": "instance",
    "noise": 300,
    "adversarial_weight": 1.0,
    "batch": 64,
    "learning_rate": 1e-4,
    "decay": 0.8,
    "decay_epochs": 20,
    "epochs": 60,
    "ema": 0.0,
    "mirror_and_rotate": False,
}
"""What the preset "paper" sets: the settings of paper 004, which does not say how many epochs."""


class TrainPatchGanConfig(StageConfig):
    """Train a classifier of small patches from few labels, with a generator as its opponent."""

    stage: ClassVar[str] = "train_patch_gan"
    result: ClassVar[str] = "patch_classifier"

    data: Path = basic(
        Path(), "Folder with images/ and masks/ (and inside/, where to look), or DRIVE, or CHASE_DB1."
    )
    mpp: float | None = basic(None, "Resolution of the pictures; has to be given.", "um/px", gt=0.01, lt=100)
    patches: int = basic(
        15_000, "Labeled patches, equally many of each class; 0 takes all there are.", "patches", ge=0
    )
    epochs: int = basic(20, "Passes over the labeled patches.", "epochs", ge=1)
    channel: Literal["green", "red", "blue", "gray", "rgb", "hematoxylin", "eosin", "dab"] = basic(
        "green", "What the net sees: a color, all of them, or a stain by color deconvolution."
    )
    clahe: bool = basic(
        True, "Equalize the contrast locally; for pictures that fit into memory, not for whole slides."
    )
    adversarial: bool = basic(True, "Train against a generator (GAN-CNN); off trains the plain CNN.")
    preset: Literal["plain", "paper"] = more(
        "plain", "paper takes the settings of Ayush et al. where nothing else is given."
    )
    layout: Literal["auto", "drive", "chase", "folder"] = more("auto", "How the folder is laid out.")
    centers: Literal["skeleton", "pixels"] = more(
        "skeleton",
        "skeleton: masks of one object; its patches lie on its skeleton. pixels: masks of classes 1 to K; "
        "every labeled pixel counts.",
    )
    dilation_px: int = more(4, "Background patches keep so far away from the object.", "px", ge=0, le=1000)
    patch_px: int = more(64, "Side of a patch: 32, 64, or 128.", "px")
    width: int = more(32, "Channels of the first layer; doubled up to 8 times it.", ge=1, le=512)
    normalization: Literal["channel", "instance"] = more(
        "channel",
        "instance is the paper's; with channel, each pixel over its channels, maps are computed at once.",
    )
    noise: int = more(300, "Numbers of noise that the generator paints from.", ge=1, le=10_000)
    adversarial_weight: float = more(
        0.1,
        "Weight in the classifier's loss of telling real from painted, beside 1 for the classes; the paper's "
        "is 1, with which the classes are learned much more slowly.",
        gt=0,
        le=10,
    )
    conditional: bool = more(
        False, "The generator is told a class to paint, and what it paints has to be classified so."
    )
    unlabelled: int = more(
        0, "Patches without a label, from anywhere inside, pushed away from FAKE.", "patches", ge=0
    )
    batch: int = more(64, "Labeled patches per step.", "patches", ge=2, le=65_536)
    learning_rate: float = more(1e-3, "Step size of Adam, for both networks.", gt=0, lt=1)
    decay: float = more(0.8, "Factor of the step size every decay_epochs.", gt=0, le=1)
    decay_epochs: int = more(20, "Epochs between two cuts of the step size.", "epochs", ge=1)
    ema: float = more(0.99, "Averaging of the classifier's weights over steps; 0 turns it off.", ge=0, lt=1)
    mirror_and_rotate: bool = more(True, "Turn and mirror patches at random.")
    holdout_share: float = more(
        0.0, "Share of the groups (pictures; in CHASE_DB1 children) kept back to judge by.", ge=0, lt=1
    )
    judge_stride: int = more(4, "Step at which pictures kept back are mapped to judge.", "px", ge=1, le=64)
    preview_every: int = more(500, "Steps between previews.", "steps", ge=1)
    checkpoint_minutes: float = more(5.0, "Time between checkpoints.", "min", gt=0)

    @field_validator("patch_px")
    @classmethod
    def _check_side(cls, side: int) -> int:
        """Refuse sides that there is no network for."""
        if side not in (32, 64, 128):
            raise ValueError(f"patches have 32, 64, or 128 px, got {side}")
        return side

    @model_validator(mode="before")
    @classmethod
    def _settle(cls, values: Any) -> Any:
        """Put the preset's numbers in; a saved config then means what it says."""
        if not isinstance(values, dict) or values.get("preset") != "paper":
            return values
        fields = cls.model_fields
        chosen = {k: v for k, v in PAPER.items() if k not in values or values[k] == fields[k].default}
        return {**values, **chosen, "preset": "plain"}

    @model_validator(mode="after")
    def _check_adversary(self) -> TrainPatchGanConfig:
        """Refuse what only a generator, or FAKE, gives a meaning."""
        if not self.adversarial and (self.conditional or self.unlabelled):
            raise ValueError("conditional and unlabelled mean something only with adversarial on")
        return self


class PredictPatchMapConfig(StageConfig):
    """Run a patch classifier over a slide or a picture: one probability a pixel and class."""

    stage: ClassVar[str] = "predict_patch_map"
    result: ClassVar[str] = "heatmap"

    slide: str = basic("", "Name of the slide; empty takes the only one or the first.")
    patch_classifier: str = basic("", "Patch classifier; empty takes the newest.")
    stride: int = basic(
        1,
        "Step between patches, a power of 2; above 1 values in between are interpolated.",
        "px",
        ge=1,
        le=32,
    )
    tissue_only: bool = more(False, "Skip windows without tissue; for slides, not for fundus pictures.")
    region_um: tuple[float, ...] = more(
        (), "Part of the slide to map: y, x, height, width; empty maps all of it.", "um"
    )
    tile_px: int = more(512, "Side of a window.", "px", ge=128, le=8192)

    @field_validator("region_um")
    @classmethod
    def _check_region(cls, region: tuple[float, ...]) -> tuple[float, ...]:
        """Refuse what is no rectangle."""
        if region and (len(region) != 4 or min(region[2:]) <= 0):
            raise ValueError(f"a region has y, x, height, and width, all in um, got {list(region)}")
        return region

    @field_validator("stride")
    @classmethod
    def _check_stride(cls, stride: int) -> int:
        """Refuse strides that are no power of 2."""
        if stride & (stride - 1):
            raise ValueError(f"the stride is a power of 2, got {stride}")
        return stride

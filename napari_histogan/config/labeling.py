"""Configs of the stages that learn from painted samples and label synthetic images."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, Self

from pydantic import field_validator, model_validator

from napari_histogan.config.stage import SchedulerAddress, StageConfig, basic, more


class TrainPixelClassifierConfig(StageConfig):
    """Learn classes from painted samples and the generator's features."""

    stage: ClassVar[str] = "train_pixel_classifier"
    result: ClassVar[str] = "pixel_classifier"

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "plain": {},
        # 100 passes of 64 pixels are about the 100,000 steps that HDGAN's published code makes.
        "datasetgan": {
            "hidden": (128, 32), "directions": 0, "shared_directions": 0, "epochs": 100, "batch": 64,
            "learning_rate": 1e-3, "weight_decay": 0.0, "balance": False,
        },
        "hdgan": {
            "hidden": (128, 32), "blocks": 5, "directions": 0, "shared_directions": 0, "epochs": 100,
            "batch": 64, "learning_rate": 1e-4, "weight_decay": 0.0, "patience": 20, "split": "16/4/16",
        },
    }  # fmt: skip

    picture_nets: int = basic(
        0,
        "Nets that also learn from what painted samples look like, and see what lies around a pixel, as the "
        "features' classifier does not; kept if held-out samples are labeled better with them. 0: none; 3 "
        "suit structures that a pixel alone does not tell, such as glands.",
        ge=0,
        le=16,
    )
    picture_steps: int = more(300, "Training steps of each of them.", "steps", ge=1)
    members: int = more(10, "Nets in the ensemble; their disagreement is the uncertainty.", ge=1, le=64)
    hidden: tuple[int, ...] = more((128, 32), "Widths of the hidden layers (C-128-32-K in DatasetGAN).")
    blocks: int = more(0, "Use only the last n blocks of the generator; 0 uses all.", ge=0)
    directions: int = more(
        256,
        "Train on so many leading directions of the features: several times faster, and the finished nets "
        "read all channels; 0 trains on every channel.",
        ge=0,
        le=4096,
    )
    shared_directions: int = more(
        96,
        "Bring the first layers of the finished nets down to so many directions that they share, those in "
        "which their answers to painted pixels vary most: labeling takes half the time; 0 leaves them.",
        ge=0,
        le=4096,
    )
    epochs: int = more(60, "Most passes over the painted pixels.", ge=1, le=10_000)
    batch: int = more(2048, "Pixels per step and net.", "pixels", ge=16)
    learning_rate: float = more(1e-3, "Step size of Adam, or of SGD in the preset hdgan.", gt=0, lt=1)
    weight_decay: float = more(1e-4, "AdamW's weight decay.", ge=0)
    patience: int = more(8, "Stop after this many passes without a better validation Dice.", ge=1)
    split: Literal["auto", "16/4/16"] = more(
        "auto",
        "auto: validation_share, or folds when images are few; 16/4/16: images to learn from, to validate "
        "with, and to test with, as in the HDGAN paper; other counts are divided in proportion.",
    )
    validation_share: float = more(0.2, "Share of painted images kept for validation.", ge=0, lt=1)
    folds_below: int = more(
        64,
        "With fewer painted images each net leaves out other ones, so that all are learned from and all "
        "are checked.",
        "images",
        ge=0,
    )
    balance: bool = more(True, "Draw the classes equally often.")
    pixels_per_image: int = more(
        4096, "Most pixels taken from one painted image.", "pixels", ge=16, le=16_777_216
    )
    preset: Literal["plain", "datasetgan", "hdgan"] = more(
        "plain",
        "plain: features of one scale; datasetgan: batch norm, raw features, batches of 64, Adam; hdgan: the "
        "last 5 blocks, batch norm, dropout, smoothed labels, SGD with 1e-4, split 16/4/16. A preset sets "
        "what is not given.",
    )
    init: str = more(
        "",
        "Classifier to start from; newest takes the newest of the same generator and classes; empty starts "
        "anew.",
    )
    feature_cache: bool = more(
        False,
        "Keep the generator's feature maps of painted samples on disk, in native size, for later rounds.",
    )
    samples: str = more(
        "",
        "Sets of painted samples to learn from, divided by commas; empty takes all painted sets of the "
        "generator that made the newest.",
    )

    @field_validator("picture_nets")
    @classmethod
    def _two_or_none(cls, value: int) -> int:
        """Refuse a single net: there would be nothing to leave out, and so nothing to judge it by."""
        if value == 1:
            raise ValueError("picture_nets must be 0, or 2 or more: each leaves out samples that judge it")
        return value

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        """Let a preset set the fields that are not given, so that the config shows its numbers."""
        if isinstance(values, dict):
            return {**cls.presets.get(str(values.get("preset")), {}), **values}
        return values


class SynthesizeDatasetConfig(StageConfig):
    """Make image and mask pairs with the generator and the pixel classifier."""

    stage: ClassVar[str] = "synthesize_dataset"
    result: ClassVar[str] = "dataset"

    count: int = basic(2000, "Pairs to keep.", "pairs", ge=1, le=10_000_000)
    truncation: float = more(0.8, "Variety of the images.", ge=0, le=1)
    drop_uncertain: float = more(
        0.1, "Share dropped for being the most uncertain; made up for by drawing more.", ge=0, lt=0.9
    )
    balance: Literal["none", "equal"] = more(
        "none",
        "equal: draw more pairs, and keep those with which every class covers an equal share of all pixels.",
    )
    class_shares: tuple[float, ...] = more(
        (),
        "Wanted share of all pixels for each class, in the classes' order; brought to a sum of 1; instead of "
        "balance.",
    )
    most_drawn: float = more(
        4.0, "With wanted shares, draw at most this many times the pairs needed without them.", ge=1, le=100
    )
    batch: int = more(16, "Images per pass.", "images", ge=1, le=1024)
    shard: int = more(1024, "Pairs per shard; an interrupted run goes on after the last one.", ge=16)
    scheduler: SchedulerAddress = more(
        "",
        "Address of a dask scheduler, such as tcp://host:8786, whose workers see the project's folder; empty "
        "works in this process.",
    )
    pixel_classifier: str = more("", "Classifier to use; empty takes the newest.")

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        """Refuse shares that are no shares, or that are given twice."""
        shares = self.class_shares
        if any(not math.isfinite(share) or share < 0 for share in shares) or (shares and sum(shares) <= 0):
            raise ValueError(f"class_shares {shares} must be 0 or more, one of them above 0")
        if shares and self.balance != "none":
            raise ValueError("balance and class_shares both say what is wanted; give one of them")
        return self

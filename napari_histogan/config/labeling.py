"""Configs of the stages that learn from painted samples and label synthetic images."""

from __future__ import annotations

from typing import ClassVar, Literal

from napari_histogan.config.stage import StageConfig, basic, more


class TrainPixelClassifierConfig(StageConfig):
    """Learn classes from painted samples and the generator's features."""

    stage: ClassVar[str] = "train_pixel_classifier"
    result: ClassVar[str] = "pixel_classifier"

    members: int = more(10, "Nets in the ensemble; their disagreement is the uncertainty.", ge=1, le=64)
    hidden: tuple[int, ...] = more((128, 32), "Widths of the hidden layers (C-128-32-K in DatasetGAN).")
    blocks: int = more(0, "Use only the last n blocks of the generator; 0 uses all.", ge=0)
    epochs: int = more(60, "Most passes over the painted pixels.", ge=1, le=10_000)
    batch: int = more(2048, "Pixels per step and net.", "pixels", ge=16)
    learning_rate: float = more(1e-3, "Adam's step size.", gt=0, lt=1)
    weight_decay: float = more(1e-4, "AdamW's weight decay.", ge=0)
    patience: int = more(8, "Stop after this many passes without a better validation loss.", ge=1)
    validation_share: float = more(0.2, "Share of painted images kept for validation.", ge=0, lt=1)
    balance: bool = more(True, "Draw the classes equally often.")
    pixels_per_image: int = more(
        4096, "Most pixels taken from one painted image.", "pixels", ge=16, le=16_777_216
    )
    preset: Literal["plain", "datasetgan", "hdgan"] = more(
        "plain",
        "plain: standardized features; datasetgan: batch norm, raw features; hdgan: batch norm, dropout, "
        "smoothed labels, SGD (its paper takes blocks 5 and learning_rate 1e-4).",
    )
    samples: str = more("", "Painted samples to learn from; empty takes the newest.")


class SynthesizeDatasetConfig(StageConfig):
    """Make image and mask pairs with the generator and the pixel classifier."""

    stage: ClassVar[str] = "synthesize_dataset"
    result: ClassVar[str] = "dataset"

    count: int = basic(2000, "Pairs to keep.", "pairs", ge=1, le=10_000_000)
    truncation: float = more(0.8, "Variety of the images.", ge=0, le=1)
    drop_uncertain: float = more(
        0.1, "Share dropped for being the most uncertain; made up for by drawing more.", ge=0, lt=0.9
    )
    batch: int = more(16, "Images per pass.", "images", ge=1, le=1024)
    shard: int = more(1024, "Pairs per shard; an interrupted run goes on after the last one.", ge=16)
    pixel_classifier: str = more("", "Classifier to use; empty takes the newest.")

"""Configs of the stages that segment slides, judge the result, and learn from corrections."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from napari_histogan.config.stage import StageConfig, basic, more


class TrainSegmenterConfig(StageConfig):
    """Train the net that runs over slides."""

    stage: ClassVar[str] = "train_segmenter"
    result: ClassVar[str] = "segmenter"

    steps: int = basic(1000, "Training steps.", "steps", ge=1)
    batch: int = more(16, "Patches per step.", "patches", ge=1, le=1024)
    width: int = more(16, "Channels of the first stage of the U-Net; doubled at each stage.", ge=4, le=128)
    depth: int = more(4, "Times that the U-Net halves the picture.", ge=1, le=6)
    learning_rate: float = more(2e-3, "AdamW's largest step size.", gt=0, lt=1)
    weight_decay: float = more(1e-4, "AdamW's weight decay.", ge=0)
    loss: Literal["cross_entropy", "cross_entropy+dice"] = more(
        "cross_entropy+dice", "Unlabelled pixels (0) count in neither."
    )
    ema: float = more(0.99, "Averaging of the weights over steps; 0 turns it off.", ge=0, lt=1)
    augment: bool = more(True, "Flips, turns, scale, stain jitter in optical density, and blur.")
    validation_share: float = more(0.1, "Share of the pairs kept for validation.", ge=0, lt=0.9)
    validate_every: int = more(200, "Steps between validations.", "steps", ge=1)
    checkpoint_minutes: float = more(5.0, "Time between checkpoints.", "min", gt=0)
    sources: tuple[str, ...] = more(
        (), "Data sets and merged corrections to learn from; empty takes the newest of each."
    )
    correction_weight: float = more(
        10.0, "How often a corrected patch is drawn, compared with a synthetic one.", ge=0
    )
    init: str = more("", "Segmenter to start from (transfer learning); empty starts anew.")


class PredictHeatmapConfig(StageConfig):
    """Run a segmenter over a slide."""

    stage: ClassVar[str] = "predict_heatmap"
    result: ClassVar[str] = "heatmap"

    slide: str = basic("", "Name of the slide; empty takes the only one or the first.")
    segmenter: str = more("", "Segmenter to use; empty takes the newest.")
    tile_px: int = more(256, "Side of a window at the model's resolution.", "px", ge=32, le=8192)
    overlap: float = more(0.25, "Share of a window that overlaps the next; blended.", ge=0, lt=0.9)
    batch: int = more(4, "Windows per pass.", "windows", ge=1, le=1024)
    tissue_only: bool = more(False, "Skip windows without tissue.")
    flips: bool = more(False, "Average over the four mirror images.")


class EvaluateConfig(StageConfig):
    """Compare a heatmap with reference outlines."""

    stage: ClassVar[str] = "evaluate"
    result: ClassVar[str] = "evaluation"

    reference: Path = basic(Path(), "Reference outlines of the slide (GeoJSON).")
    heatmap: str = more("", "Heatmap to evaluate; empty takes the newest.")
    ignore: Path | None = more(None, "Outlines to leave out, such as regions used in training (GeoJSON).")
    bootstrap: int = more(1000, "Resamples of the confidence intervals.", ge=0, le=100_000)
    block_um: float = more(128.0, "Side of the blocks that the bootstrap resamples.", "um", gt=1)


class MergeCorrectionsConfig(StageConfig):
    """Gather corrected regions and annotated patches into a training source."""

    stage: ClassVar[str] = "merge_corrections"
    result: ClassVar[str] = "corrections"

    patch_px: int = more(64, "Side of the training patches.", "px", ge=16, le=4096)
    mpp: float | None = more(None, "Resolution; none takes the generator's.", "um/px", gt=0.05, lt=50)
    regions: tuple[str, ...] = more((), "Names of the corrected regions to use; empty takes all.")
    overlap: float = more(0.5, "Share of a patch that overlaps the next one cut from a region.", ge=0, lt=1)

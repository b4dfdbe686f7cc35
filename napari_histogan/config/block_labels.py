"""Configs of the stages that read coarse labels of blocks and sharpen them to pixels."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import field_validator, model_validator

from napari_histogan.config.stage import StageConfig, basic, more

TEN_BINS = (0.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 100.0)
"""Edges in percent of the bins of paper 003."""

PAPER: dict[str, Any] = {
    "matching": "overlap",
    "optimizer": "rmsprop",
    "schedule": "constant",
    "ema": 0.0,
    "augment": False,
    "block_px": 240,
    "context_px": 0,
    "weight_decay": 0.0,
}
"""What the preset "paper" sets for all models: the settings of paper 003."""

PAPER_INTRA: dict[str, Any] = {"groups": 30, "per_group": 1, "learning_rate": 1e-5}
PAPER_GROUPS: dict[str, Any] = {"groups": 2, "per_group": 15, "learning_rate": 1e-3}


class ImportBlockLabelsConfig(StageConfig):
    """Bring in coarse labels of a slide's blocks, or make them with a net of the project."""

    stage: ClassVar[str] = "import_block_labels"
    result: ClassVar[str] = "block_labels"

    path: Path | None = basic(
        None,
        "Labels of the blocks: CSV (row,column,label or x_um,y_um,score), GeoJSON squares, a gray PNG with "
        "one pixel a block, or an OME-Zarr map of scores.",
    )
    slide: str = basic("", "Name of the slide; empty takes the only one or the first.")
    block_um: float = basic(240.0, "Side of a block; the corner of the slide begins the first.", "um", gt=1)
    heatmap: str = more("", 'Heatmap of the project to take the scores from, or "newest".')
    segmenter: str = more("", 'Segmenter of the project to score the blocks with, or "newest".')
    class_name: str = more("", "Class whose share is the score, where a map has several.")
    edges: tuple[float, ...] = more(TEN_BINS, "Edges of the bins that scores are sorted into.", "%")
    tile_px: int = more(512, "Side of a window, where a segmenter scores.", "px", ge=32, le=8192)

    @field_validator("edges")
    @classmethod
    def _check_edges(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        """Refuse edges that make no bins."""
        rising = len(edges) >= 2 and all(a < b for a, b in pairwise(edges))
        if not rising or edges[0] < 0 or edges[-1] > 100:
            raise ValueError(f"edges of bins rise within 0 to 100 percent, got {list(edges)}")
        return edges

    @model_validator(mode="after")
    def _one_source(self) -> ImportBlockLabelsConfig:
        """Refuse several sources."""
        if sum(map(bool, (self.path, self.heatmap, self.segmenter))) > 1:
            raise ValueError("give one of path, heatmap, and segmenter")
        return self


class TrainSuperResolutionConfig(StageConfig):
    """Train a net that outlines classes from coarse labels of blocks alone."""

    stage: ClassVar[str] = "train_super_resolution"
    result: ClassVar[str] = "segmenter"

    preset: Literal["plain", "paper"] = basic(
        "plain",
        "paper: fields left at their defaults become those of Zhao et al. (RMSprop, 2 groups of 15 blocks, "
        "240 px); plain: all fields are taken as they are.",
    )
    model: Literal["intra", "inter", "intra+inter"] = basic(
        "intra+inter", "Whose counts are compared: each block's, those of a group of blocks, or both."
    )
    matching: Literal["overlap", "bhattacharyya", "kl"] = more(
        "overlap",
        "How predicted and expected counts are compared. kl asks for the very spread: one block's count "
        "hardly has any, which drives intra to 50 %, and a group's is met by whatever differs among blocks.",
    )
    warm_up: float = more(
        0.0,
        "Share of the steps, at first, in which each block's count is compared (intra, by overlap), whatever "
        "the model is: a step tells a share of each block then, and a mean and spread of each group later.",
        ge=0,
        le=1,
    )
    calibration: Path | None = basic(
        None,
        "CSV with the classes' shares by label value (label,class,mean,sd, or a row for each estimated "
        "block); none takes the estimates that histogan estimate keeps.",
    )
    steps: int = basic(1000, "Training steps at most.", "steps", ge=1)
    blocks: tuple[str, ...] = more((), "Block labels to learn from; empty takes the newest of each slide.")
    leave_out_rare: bool = more(False, "Leave out label values that have a single block.")
    block_px: int = more(
        64, "Side of a block in the net's pixels; with the block's size this is its resolution.", "px", ge=8
    )
    context_px: int = more(8, "Pixels around a block that the net sees and that are not counted.", "px", ge=0)
    groups: int = more(6, "Groups of blocks of one label in a step.", "groups", ge=1, le=1024)
    per_group: int = more(8, "Blocks in a group; at least 2 unless the model is intra.", ge=1, le=1024)
    width: int = more(16, "Channels of the first stage of the U-Net; doubled at each stage.", ge=4, le=128)
    depth: int = more(3, "Times that the U-Net halves the picture.", ge=1, le=6)
    optimizer: Literal["adamw", "rmsprop"] = more("adamw", "rmsprop as in the paper.")
    schedule: Literal["one_cycle", "constant"] = more(
        "one_cycle", "Learning rate over the steps: a short rise, then half a cosine to 0; or constant."
    )
    learning_rate: float = more(2e-3, "Largest step size.", gt=0, lt=1)
    weight_decay: float = more(1e-4, "Weight decay.", ge=0)
    ema: float = more(0.99, "Averaging of the weights over steps; 0 turns it off.", ge=0, lt=1)
    augment: bool = more(
        True,
        "Flips, turns, stain jitter, blur, and JPEG; nothing leaves its block. Every other step lays four "
        "blocks together, since windows over a slide are larger than blocks.",
    )
    validation_share: float = more(0.1, "Share of the blocks kept for validation.", ge=0, lt=0.9)
    validate_every: int = more(100, "Steps between validations.", "steps", ge=1)
    patience: int = more(
        5, "Validations without a better one after which training ends; 0 never ends early.", ge=0
    )
    checkpoint_minutes: float = more(5.0, "Time between checkpoints.", "min", gt=0)

    @model_validator(mode="before")
    @classmethod
    def _settle(cls, values: Any) -> Any:
        """Put the preset's numbers in; a saved config then means what it says."""
        if not isinstance(values, dict) or values.get("preset") != "paper":
            return values
        fields = cls.model_fields
        wanted = PAPER | (PAPER_INTRA if values.get("model") == "intra" else PAPER_GROUPS)
        chosen = {k: v for k, v in wanted.items() if k not in values or values[k] == fields[k].default}
        return {**values, **chosen, "preset": "plain"}

    @model_validator(mode="after")
    def _check_groups(self) -> TrainSuperResolutionConfig:
        """Refuse groups without a variance."""
        if self.per_group < 2 and self.model != "intra":
            raise ValueError(f"{self.model} compares blocks of a group: per_group is 2 or more")
        return self

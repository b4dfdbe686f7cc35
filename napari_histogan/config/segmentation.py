"""Configs of the stages that segment slides, judge the result, and learn from corrections."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import field_validator, model_validator

from napari_histogan.config.stage import SchedulerAddress, StageConfig, basic, more
from napari_histogan.config.training_sources import parse_source

RENAL: dict[str, Any] = {
    "net": "deeplab",
    "optimizer": "sgd",
    "schedule": "poly",
    "learning_rate": 0.007,
    "batch": 12,
    "steps": 30_000,
    "loss": "cross_entropy",
    "validate_every": 1000,
}
"""What the preset "renal" sets: the settings of Lutnick et al. (datasetGAN on renal tissue)."""


class TrainSegmenterConfig(StageConfig):
    """Train the net that runs over slides."""

    stage: ClassVar[str] = "train_segmenter"
    result: ClassVar[str] = "segmenter"

    preset: Literal["plain", "renal"] = basic(
        "plain",
        "renal: fields left at their defaults become those of the renal paper (DeepLabV3+, poly schedule "
        "from 0.007, batch 12, 30,000 steps); plain: all fields are taken as they are.",
    )
    net: Literal["unet", "deeplab"] = basic(
        "unet", "unet: compact and fast; deeplab: DeepLabV3+ on a ResNet, for large structures and a GPU."
    )
    steps: int = basic(1000, "Training steps.", "steps", ge=1)
    batch: int = more(16, "Patches per step, over all devices.", "patches", ge=1, le=1024)
    devices: int = more(
        1,
        "GPUs (or processes on the CPU) that share the batch; more than 1 needs Fabric (extra [scale]).",
        ge=1,
        le=1024,
    )
    width: int = more(16, "Channels of the first stage of the U-Net; doubled at each stage.", ge=4, le=128)
    depth: int = more(4, "Times that the U-Net halves the picture.", ge=1, le=6)
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = more(
        "resnet50", "ResNet of the DeepLab; larger ones see more and cost more."
    )
    backbone_weights: str = more(
        "", "File with ImageNet weights of the DeepLab's ResNet, or download to fetch it; empty starts anew."
    )
    output_stride: int = more(
        16, "How much smaller a DeepLab's features are than the picture: 16, or 8 (finer, slower).", "px"
    )
    context_px: int = more(
        0, "Window that the DeepLab's averaging branch sees; 0 takes the patches' side.", "px", ge=0, le=8192
    )
    optimizer: Literal["adamw", "sgd"] = more("adamw", "sgd has momentum 0.9, as in the renal paper.")
    schedule: Literal["one_cycle", "poly"] = more(
        "one_cycle",
        "Learning rate over the steps; one_cycle: a short rise, then half a cosine to 0; "
        "poly: (1 - step / steps) to the power of 0.9.",
    )
    learning_rate: float = more(2e-3, "Largest step size.", gt=0, lt=1)
    layer_decay: float = more(
        1.0,
        "Layer-wise learning rates: each group of layers nearer to the input learns by this factor slower; "
        "0.5 to 0.8 suit transfer, 1 is off.",
        gt=0,
        le=1,
    )
    weight_decay: float = more(1e-4, "Weight decay.", ge=0)
    loss: Literal["cross_entropy", "cross_entropy+dice"] = more(
        "cross_entropy+dice", "Unlabeled pixels (0) count in neither."
    )
    ema: float = more(0.99, "Averaging of the weights over steps; 0 turns it off.", ge=0, lt=1)
    augment: bool = more(
        True,
        "Flips, turns, scale, stain jitter in optical density, blur, and JPEG; every other step lays four "
        "patches together, since windows over a slide are larger than patches.",
    )
    validation_share: float = more(0.1, "Share of the pairs kept for validation.", ge=0, lt=0.9)
    validate_every: int = more(200, "Steps between validations.", "steps", ge=1)
    checkpoint_minutes: float = more(5.0, "Time between checkpoints.", "min", gt=0)
    sources: tuple[str, ...] = more(
        (),
        "What to learn from, each with a weight behind @ if it is not 1: datasets/0003@2, "
        "outlines:SLIDE=FILE.geojson, folder:PATH@mpp=0.5; empty takes the newest data set and corrections.",
    )
    patch_px: int = more(256, "Side of patches, where no data set says it.", "px", ge=16, le=4096)
    mpp: float | None = more(
        None, "Resolution; none takes the data set's, or the newest generator's.", "um/px", gt=0.05, lt=50
    )
    downsamples: tuple[float, ...] = more(
        (1.0, 2.0, 3.0, 4.0), "Patches of annotated slides are taken so many times down, each as often."
    )
    revisit_hard: float = more(
        0.0, "Share of the draws that prefers patches of large loss; 0 is off.", ge=0, le=0.9
    )
    accept_far_mpp: bool = more(
        False, "Take slides and pictures whose resolution is more than 4 times from the net's."
    )
    painted_share: float = more(
        0.2,
        "Share of the draws that are painted samples themselves, where a data set goes back to them; a "
        "person's masks are surer than those of synthetic pairs.",
        ge=0,
        lt=1,
    )
    correction_weight: float = more(
        10.0, "How often a corrected patch is drawn, compared with a synthetic one.", ge=0
    )
    init: str = more("", "Segmenter to start from (transfer learning); empty starts anew.")
    rehearsal: float = more(
        0.5,
        "With init: share of the draws that are what that segmenter learned from, where the project still "
        "has it and it is not among the sources; a few corrections alone make a net forget rare classes. "
        "0 is off.",
        ge=0,
        lt=1,
    )

    @model_validator(mode="before")
    @classmethod
    def _settle(cls, values: Any) -> Any:
        """Put the preset's numbers in; a saved config then means what it says."""
        if not isinstance(values, dict) or values.get("preset") != "renal":
            return values
        fields = cls.model_fields
        chosen = {k: v for k, v in RENAL.items() if k not in values or values[k] == fields[k].default}
        return {**values, **chosen, "preset": "plain"}

    @field_validator("sources")
    @classmethod
    def _check_sources(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse names that cannot be read."""
        for source in sources:
            parse_source(source)
        return sources

    @field_validator("output_stride")
    @classmethod
    def _check_stride(cls, stride: int) -> int:
        """Refuse other strides."""
        if stride not in (8, 16):
            raise ValueError("output_stride is 8 or 16")
        return stride

    @field_validator("downsamples")
    @classmethod
    def _check_downsamples(cls, downsamples: tuple[float, ...]) -> tuple[float, ...]:
        """Refuse no scale, and scales below 1 or beyond 16."""
        if not downsamples or not all(1 <= each <= 16 for each in downsamples):
            raise ValueError("downsamples holds one number or more, each 1 to 16")
        return downsamples

    @model_validator(mode="after")
    def _check_devices(self) -> TrainSegmenterConfig:
        """Refuse a batch that the devices cannot share evenly."""
        if self.batch % self.devices:
            raise ValueError(f"a batch of {self.batch} cannot be shared evenly by {self.devices} devices")
        return self


class PredictHeatmapConfig(StageConfig):
    """Run a segmenter over a slide, or over several."""

    stage: ClassVar[str] = "predict_heatmap"
    result: ClassVar[str] = "heatmap"

    slide: str = basic(
        "",
        "Name of the slide; empty takes the only one or the first. all, a pattern such as case*, or several "
        "of these divided by commas make a heatmap of each.",
    )
    segmenter: str = more(
        "", "Segmenter to use; empty takes the net in use: the newest, or an older one that was gone back to."
    )
    tile_px: int = more(
        512,
        "Side of a window at the model's resolution; of larger ones less is predicted twice, and more memory "
        "is needed.",
        "px",
        ge=32,
        le=8192,
    )
    overlap: float = more(0.125, "Share of a window that overlaps the next; blended.", ge=0, lt=0.9)
    batch: int = more(
        0,
        "Windows per pass; 0 takes 4 on a GPU, and on a CPU as many as hold 512 x 512 pixels: more are "
        "slower there.",
        "windows",
        ge=0,
        le=1024,
    )
    tissue_only: bool = more(False, "Skip windows without tissue.")
    flips: bool = more(False, "Average over the four mirror images.")
    blocks: str = more(
        "",
        'Block labels of the slide that the map is brought into agreement with, or "newest"; for a segmenter '
        "that learned from blocks, and knows what their labels say. Empty leaves the map as it is.",
    )
    accept_far_mpp: bool = more(
        False,
        "Take a slide that is more than 4 times finer than the segmenter. Asked only where the segmenter "
        "comes from elsewhere, or the project's other slides are unlike this one.",
    )
    scheduler: SchedulerAddress = more(
        "",
        "Address of a dask scheduler, such as tcp://host:8786, whose workers see the project's folder and "
        "the slides; each takes a slide or a part of one. Empty works in this process.",
    )


class DetectObjectsConfig(StageConfig):
    """Turn a heatmap into outlined objects with a table of their figures."""

    stage: ClassVar[str] = "detect_objects"
    result: ClassVar[str] = "objects"

    heatmap: str = more("", "Heatmap to read; empty takes the newest.")
    classes: tuple[str, ...] = basic((), "Classes whose objects are wanted; empty takes all.")
    threshold: float = basic(0.5, "Least probability of an object's pixels.", gt=0, le=1)
    min_area_um2: float = basic(100.0, "Smaller objects are dropped; filled holes count.", "um2", ge=0)
    max_hole_um2: float = more(100.0, "Holes up to this area are filled.", "um2", ge=0)
    smooth_um: float = more(
        1.0,
        "Standard deviation of the Gaussian that smooths probabilities first; 0 does not.",
        "um",
        ge=0,
        le=100,
    )


class EvaluateConfig(StageConfig):
    """Compare heatmaps of one slide or of several with reference outlines."""

    stage: ClassVar[str] = "evaluate"
    result: ClassVar[str] = "evaluation"

    reference: Path = basic(
        Path(),
        "Reference outlines of the slide (GeoJSON), or a folder with SLIDE.geojson for each of several "
        "slides; intervals are then over slides.",
    )
    heatmap: str = more(
        "",
        "Heatmap to evaluate, or several divided by commas; empty takes the newest, and with a folder the "
        "newest of each slide in it.",
    )
    ignore: Path | None = more(
        None,
        "Outlines to leave out, such as regions used in training (GeoJSON), or a folder as for reference.",
    )
    bootstrap: int = more(1000, "Resamples of the confidence intervals.", ge=0, le=100_000)
    block_um: float = more(128.0, "Side of the blocks that the bootstrap resamples.", "um", gt=1)
    tolerance_um: float = more(
        4.0, "Outlines that are at most so far apart count as the same (boundary F1).", "um", ge=0, le=1000
    )
    least_um2: float = more(0.0, "Smaller objects are left out of object F1.", "um2", ge=0)
    masked_um: float = more(
        0.0,
        "Also score only the pixels so near to the true boundary, and count pieces (for sharpened masks); 0 "
        "leaves it out.",
        "um",
        ge=0,
        le=10_000,
    )


class MergeCorrectionsConfig(StageConfig):
    """Gather corrected regions and annotated patches into a training source."""

    stage: ClassVar[str] = "merge_corrections"
    result: ClassVar[str] = "corrections"

    patch_px: int = more(64, "Side of the training patches.", "px", ge=16, le=4096)
    mpp: float | None = more(None, "Resolution; none takes the generator's.", "um/px", gt=0.05, lt=50)
    regions: tuple[str, ...] = more(
        (), "Names of the corrected regions to use; empty takes all but those that are kept back."
    )
    keep_back: int = more(
        5,
        "One correction in so many is kept back to judge nets on: the fifth, the tenth, and so on, in the "
        "order in which they were made; 0 keeps none back.",
        ge=0,
        le=1000,
    )
    overlap: float = more(0.5, "Share of a patch that overlaps the next one cut from a region.", ge=0, lt=1)

"""One frozen model per stage: it is the form, the command line, and the TOML file.

Every field carries a unit, a range, and the reason for its default.  Unknown fields
are refused.  ``STAGES`` names every stage in the order of the data flow; a stage's
function in :mod:`napari_histogan.pipeline`, its command (with hyphens), and its run
folder carry the same name.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from napari_histogan.errors import ConfigError

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "float32", "bfloat16"]


def _basic(default: Any, description: str, unit: str = "", **bounds: Any) -> Any:
    """Make a field that a pathologist sees first."""
    return Field(default, description=description, json_schema_extra={"unit": unit, "basic": True}, **bounds)


def _more(default: Any, description: str, unit: str = "", **bounds: Any) -> Any:
    """Make a field that is folded away until asked for."""
    return Field(default, description=description, json_schema_extra={"unit": unit, "basic": False}, **bounds)


class StageConfig(BaseModel):
    """What all stages share."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
    stage: ClassVar[str]
    result: ClassVar[str]
    """Kind of artifact that the stage makes; see :mod:`napari_histogan.project.artifacts`."""

    seed: int = _more(0, "Seed of every random choice; the same seed gives the same result.", ge=0)
    device: Device = _more("auto", "Where to compute; auto takes the best device found.")
    precision: Precision = _more(
        "auto", "auto takes bfloat16 where the hardware multiplies it natively, float32 elsewhere."
    )
    threads: int = _more(
        0, "CPU threads; 0 takes all cores but one, so that the viewer keeps a core.", "threads", ge=0, le=256
    )


class AddSlidesConfig(StageConfig):
    """Register slides with the project; nothing is copied."""

    stage: ClassVar[str] = "add_slides"
    result: ClassVar[str] = "slides"

    paths: tuple[Path, ...] = _basic((), "Slide files, or folders of slides.")
    mpp: float | None = _basic(
        None, "Resolution of slides whose file does not say it.", "um/px", gt=0.01, lt=100
    )


class ExtractPatchesConfig(StageConfig):
    """Find tissue and plan the stream of random patches."""

    stage: ClassVar[str] = "extract_patches"
    result: ClassVar[str] = "patches"

    patch_px: int = _basic(64, "Side of a patch; a power of two.", "px", ge=16, le=4096)
    mpp: float = _basic(
        1.0, "Resolution of a patch; the slide is read at this scale.", "um/px", gt=0.05, lt=50
    )
    min_tissue: float = _more(
        0.25,
        "Smallest share of tissue in a patch; some glass teaches the generator what glass is.",
        ge=0,
        le=1,
    )
    slides: tuple[str, ...] = _more((), "Names of the slides to use; empty takes all.")

    @model_validator(mode="after")
    def _power_of_two(self) -> ExtractPatchesConfig:
        if self.patch_px & (self.patch_px - 1):
            raise ValueError(f"patch_px must be a power of two, got {self.patch_px}")
        return self


class TrainGanConfig(StageConfig):
    """Train StyleGAN2-ADA on the stream of patches."""

    stage: ClassVar[str] = "train_gan"
    result: ClassVar[str] = "generator"

    kimg: float = _basic(300.0, "Length of training in thousands of real images shown.", "kimg", gt=0)
    batch: int = _more(32, "Images per step.", "images", ge=2, le=1024)
    micro_batch: int = _more(0, "Images per forward pass; 0 takes the whole batch.", "images", ge=0)
    z_dim: int = _more(128, "Length of the random input z.", ge=8, le=1024)
    w_dim: int = _more(128, "Length of the style w; 512 in the paper, 128 is ample at 64 px.", ge=8, le=1024)
    mapping_layers: int = _more(4, "Layers of the mapping network.", "layers", ge=1, le=8)
    channel_base: int = _more(
        4096, "Channels at resolution r are channel_base / r, up to channel_max.", ge=64
    )
    channel_max: int = _more(96, "Most channels of a layer.", "channels", ge=8, le=1024)
    learning_rate: float = _more(0.0025, "Adam's step size of both networks (section 4.3).", gt=0, lt=1)
    r1_gamma: float = _more(
        0.05, "Weight of R1; about 0.0002 x resolution^2 / batch, larger when D overfits.", ge=0
    )
    r1_every: int = _more(16, "Steps between R1 penalties.", "steps", ge=1)
    path_length_weight: float = _more(
        0.0, "Weight of path length regularization; 2 in the paper, 0 saves time when small.", ge=0
    )
    path_length_every: int = _more(4, "Steps between path length penalties.", "steps", ge=1)
    style_mixing: float = _more(0.9, "Share of batches with two styles.", ge=0, le=1)
    ema_kimg: float = _more(10.0, "Half-life of the averaged generator.", "kimg", gt=0)
    ema_rampup: float = _more(0.05, "The half-life is at most this share of the images so far.", ge=0, le=1)
    mirror_and_rotate: bool = _more(True, "Show patches in all eight orientations; tissue has no up.")
    ada_target: float = _more(
        0.6, "Overfitting of D that adaptive augmentation holds (section 4.4); 0 turns it off.", ge=0, lt=1
    )
    ada_kimg: float = _more(100.0, "Thousands of images in which p can rise from 0 to 1.", "kimg", gt=0)
    tick_kimg: float = _more(4.0, "Images between reports, previews, and quality figures.", "kimg", gt=0)
    checkpoint_minutes: float = _more(10.0, "Time between checkpoints.", "min", gt=0)
    keep_checkpoints: int = _more(2, "Newest checkpoints kept beside the best.", ge=1, le=100)
    patches: str = _more("", "Patch plan to train on; empty takes the newest.")
    init: str = _more("", "Generator to start from; empty starts from random weights.")


class ImportGanConfig(StageConfig):
    """Bring in a generator of this program, or a StyleGAN2 of another one."""

    stage: ClassVar[str] = "import_gan"
    result: ClassVar[str] = "generator"

    path: Path = _basic(
        Path(),
        "Folder or .safetensors file of this program; .pkl of StyleGAN2-ADA (PyTorch, TensorFlow); .pt with "
        "g_ema. Nothing that the file contains is run.",
    )
    mpp: float | None = _basic(
        None, "Resolution of its images, if its file does not say.", "um/px", gt=0.01, lt=100
    )


class SampleImagesConfig(StageConfig):
    """Draw samples to browse and paint; stored as w and noise seed."""

    stage: ClassVar[str] = "sample_images"
    result: ClassVar[str] = "samples"

    count: int = _basic(200, "Samples to draw.", "images", ge=1, le=100_000)
    truncation: float = _basic(
        0.7, "Variety: 1 is all that the generator knows, smaller is more typical.", ge=0, le=1
    )
    generator: str = _more("", "Generator to use; empty takes the newest.")


class TrainPixelClassifierConfig(StageConfig):
    """Learn classes from painted samples and the generator's features."""

    stage: ClassVar[str] = "train_pixel_classifier"
    result: ClassVar[str] = "pixel_classifier"

    members: int = _more(10, "Nets in the ensemble; their disagreement is the uncertainty.", ge=1, le=64)
    hidden: tuple[int, ...] = _more((128, 32), "Widths of the hidden layers (C-128-32-K in DatasetGAN).")
    blocks: int = _more(0, "Use only the last n blocks of the generator; 0 uses all.", ge=0)
    epochs: int = _more(60, "Most passes over the painted pixels.", ge=1, le=10_000)
    batch: int = _more(2048, "Pixels per step and net.", "pixels", ge=16)
    learning_rate: float = _more(1e-3, "Adam's step size.", gt=0, lt=1)
    weight_decay: float = _more(1e-4, "AdamW's weight decay.", ge=0)
    patience: int = _more(8, "Stop after this many passes without a better validation loss.", ge=1)
    validation_share: float = _more(0.2, "Share of painted images kept for validation.", ge=0, lt=1)
    balance: bool = _more(True, "Draw the classes equally often.")
    pixels_per_image: int = _more(
        4096, "Most pixels taken from one painted image.", "pixels", ge=16, le=16_777_216
    )
    preset: Literal["plain", "datasetgan", "hdgan"] = _more(
        "plain",
        "plain: standardized features; datasetgan: batch norm, raw features; hdgan: batch norm, dropout, "
        "smoothed labels, SGD (its paper takes blocks 5 and learning_rate 1e-4).",
    )
    samples: str = _more("", "Painted samples to learn from; empty takes the newest.")


class SynthesizeDatasetConfig(StageConfig):
    """Make image and mask pairs with the generator and the pixel classifier."""

    stage: ClassVar[str] = "synthesize_dataset"
    result: ClassVar[str] = "dataset"

    count: int = _basic(2000, "Pairs to keep.", "pairs", ge=1, le=10_000_000)
    truncation: float = _more(0.8, "Variety of the images.", ge=0, le=1)
    drop_uncertain: float = _more(
        0.1, "Share dropped for being the most uncertain; made up for by drawing more.", ge=0, lt=0.9
    )
    batch: int = _more(16, "Images per pass.", "images", ge=1, le=1024)
    shard: int = _more(1024, "Pairs per shard; an interrupted run goes on after the last one.", ge=16)
    pixel_classifier: str = _more("", "Classifier to use; empty takes the newest.")


class TrainSegmenterConfig(StageConfig):
    """Train the net that runs over slides."""

    stage: ClassVar[str] = "train_segmenter"
    result: ClassVar[str] = "segmenter"

    steps: int = _basic(1000, "Training steps.", "steps", ge=1)
    batch: int = _more(16, "Patches per step.", "patches", ge=1, le=1024)
    width: int = _more(16, "Channels of the first stage of the U-Net; doubled at each stage.", ge=4, le=128)
    depth: int = _more(4, "Times that the U-Net halves the picture.", ge=1, le=6)
    learning_rate: float = _more(2e-3, "AdamW's largest step size.", gt=0, lt=1)
    weight_decay: float = _more(1e-4, "AdamW's weight decay.", ge=0)
    loss: Literal["cross_entropy", "cross_entropy+dice"] = _more(
        "cross_entropy+dice", "Unlabelled pixels (0) count in neither."
    )
    ema: float = _more(0.99, "Averaging of the weights over steps; 0 turns it off.", ge=0, lt=1)
    augment: bool = _more(True, "Flips, turns, scale, stain jitter in optical density, and blur.")
    validation_share: float = _more(0.1, "Share of the pairs kept for validation.", ge=0, lt=0.9)
    validate_every: int = _more(200, "Steps between validations.", "steps", ge=1)
    checkpoint_minutes: float = _more(5.0, "Time between checkpoints.", "min", gt=0)
    sources: tuple[str, ...] = _more(
        (), "Data sets and merged corrections to learn from; empty takes the newest of each."
    )
    correction_weight: float = _more(
        10.0, "How often a corrected patch is drawn, compared with a synthetic one.", ge=0
    )
    init: str = _more("", "Segmenter to start from (transfer learning); empty starts anew.")


class PredictHeatmapConfig(StageConfig):
    """Run a segmenter over a slide."""

    stage: ClassVar[str] = "predict_heatmap"
    result: ClassVar[str] = "heatmap"

    slide: str = _basic("", "Name of the slide; empty takes the only one or the first.")
    segmenter: str = _more("", "Segmenter to use; empty takes the newest.")
    tile_px: int = _more(256, "Side of a window at the model's resolution.", "px", ge=32, le=8192)
    overlap: float = _more(0.25, "Share of a window that overlaps the next; blended.", ge=0, lt=0.9)
    batch: int = _more(4, "Windows per pass.", "windows", ge=1, le=1024)
    tissue_only: bool = _more(False, "Skip windows without tissue.")
    flips: bool = _more(False, "Average over the four mirror images.")


class EvaluateConfig(StageConfig):
    """Compare a heatmap with reference outlines."""

    stage: ClassVar[str] = "evaluate"
    result: ClassVar[str] = "evaluation"

    reference: Path = _basic(Path(), "Reference outlines of the slide (GeoJSON).")
    heatmap: str = _more("", "Heatmap to evaluate; empty takes the newest.")
    ignore: Path | None = _more(None, "Outlines to leave out, such as regions used in training (GeoJSON).")
    bootstrap: int = _more(1000, "Resamples of the confidence intervals.", ge=0, le=100_000)
    block_um: float = _more(128.0, "Side of the blocks that the bootstrap resamples.", "um", gt=1)


class MergeCorrectionsConfig(StageConfig):
    """Gather corrected regions and annotated patches into a training source."""

    stage: ClassVar[str] = "merge_corrections"
    result: ClassVar[str] = "corrections"

    patch_px: int = _more(64, "Side of the training patches.", "px", ge=16, le=4096)
    mpp: float | None = _more(None, "Resolution; none takes the generator's.", "um/px", gt=0.05, lt=50)
    regions: tuple[str, ...] = _more((), "Names of the corrected regions to use; empty takes all.")
    overlap: float = _more(0.5, "Share of a patch that overlaps the next one cut from a region.", ge=0, lt=1)


STAGES: dict[str, type[StageConfig]] = {
    model.stage: model
    for model in (
        AddSlidesConfig,
        ExtractPatchesConfig,
        TrainGanConfig,
        ImportGanConfig,
        SampleImagesConfig,
        TrainPixelClassifierConfig,
        SynthesizeDatasetConfig,
        TrainSegmenterConfig,
        PredictHeatmapConfig,
        EvaluateConfig,
        MergeCorrectionsConfig,
    )
}
"""Every stage's config by the stage's name, in the order of the data flow."""

C = TypeVar("C", bound=StageConfig)


def make_config(model: type[C], values: dict[str, Any], source: str = "the settings") -> C:
    """Build a config; unknown fields and values out of range become a ``ConfigError``.

    Raises
    ------
    ConfigError
        Naming every wrong field, what it got, and the nearest known name.
    """
    try:
        return model(**values)
    except ValidationError as error:
        raise ConfigError(
            f"{source} for {model.stage}: {_explain(error, model)}",
            f"fields {', '.join(model.model_fields)}",
            "correct the named field; `histogan STAGE --help` lists units and ranges",
        ) from error


def load_config(model: type[C], path: Path, overrides: dict[str, Any] | None = None) -> C:
    """Read a config from TOML; ``overrides`` win over the file.

    Raises
    ------
    ConfigError
        If the file is missing, is not TOML, or holds a wrong field.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"there is no config file {path}", "a TOML file", "check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}", "name = value lines") from error
    return make_config(model, {**values, **(overrides or {})}, str(path))


def dump_config(config: StageConfig) -> str:
    """Return the config as TOML; fields that are None are left out."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def _explain(error: ValidationError, model: type[StageConfig]) -> str:
    """Say each problem of a validation error in one clause."""
    from difflib import get_close_matches

    clauses = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = get_close_matches(name, model.model_fields, n=1)
            clauses.append(f"unknown field {name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
        else:
            clauses.append(f"{name or 'value'}: {problem['msg']}, got {problem['input']!r}")
    return "; ".join(clauses)

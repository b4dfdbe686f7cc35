"""Configs of the stages that read slides."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import model_validator

from napari_histogan.config.stage import SchedulerAddress, StageConfig, basic, more


class AddSlidesConfig(StageConfig):
    """Register slides with the project; nothing is copied."""

    stage: ClassVar[str] = "add_slides"
    result: ClassVar[str] = "slides"

    paths: tuple[Path, ...] = basic((), "Slide files, or folders of slides.")
    mpp: float | None = basic(
        None, "Resolution of slides whose file does not say it.", "um/px", gt=0.01, lt=100
    )


class ExtractPatchesConfig(StageConfig):
    """Find tissue and plan the stream of random patches."""

    stage: ClassVar[str] = "extract_patches"
    result: ClassVar[str] = "patches"

    patch_px: int = basic(64, "Side of a patch; a power of two.", "px", ge=16, le=4096)
    mpp: float = basic(
        1.0, "Resolution of a patch; the slide is read at this scale.", "um/px", gt=0.05, lt=50
    )
    min_tissue: float = more(
        0.25,
        "Smallest share of tissue in a patch; some glass teaches the generator what glass is.",
        ge=0,
        le=1,
    )
    slides: tuple[str, ...] = more((), "Names of the slides to use; empty takes all.")
    scheduler: SchedulerAddress = more(
        "",
        "Address of a dask scheduler, such as tcp://host:8786, whose workers see the project's folder and "
        "the slides, and find their tissue; empty works in this process.",
    )

    @model_validator(mode="after")
    def _power_of_two(self) -> ExtractPatchesConfig:
        if self.patch_px & (self.patch_px - 1):
            raise ValueError(f"patch_px must be a power of two, got {self.patch_px}")
        return self

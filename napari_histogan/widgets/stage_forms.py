"""Settings of every stage as the dock keeps them: what was used last, until somebody edits them."""

from __future__ import annotations

from typing import Any

from napari_histogan.config import STAGES, StageConfig, make_config
from napari_histogan.errors import HistoganError
from napari_histogan.project.store import Project

REFERENCES = (
    "patches", "init", "generator", "samples", "pixel_classifier", "sources", "segmenter", "slide",
    "slides", "heatmap", "regions", "paths", "path", "mpp", "places", "checkpoint", "first", "second",
    "blocks",
)  # fmt: skip
"""Fields that name other things; they are not taken over from an earlier run."""


def last_values(project: Project, stage: str) -> dict[str, Any]:
    """Return the settings of the newest result of a stage; empty if there is none."""
    model = STAGES[stage]
    made = [a for a in project.artifacts(model.result) if a.stage == stage]
    if not made:
        return {}
    known = {k: v for k, v in made[-1].config.items() if k in model.model_fields}
    if stage == "extract_patches":
        return known
    return {k: v for k, v in known.items() if k not in REFERENCES}


def config_of(project: Project, stage: str, **values: Any) -> StageConfig:
    """Return a stage's config as it was last used, with some values changed.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """
    model = STAGES[stage]
    try:
        return make_config(model, {**last_values(project, stage), **values})
    except HistoganError:
        # An older version's settings may not fit any more; the defaults always do.
        return make_config(model, values)

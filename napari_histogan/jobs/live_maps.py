"""What the compute process answers about heatmaps: their objects, and their least sure places."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from napari_histogan.inference.review import least_sure_places, object_rows, predicted_labels
from napari_histogan.jobs.engine_requests import Answer, Handler, Request
from napari_histogan.metrics import confusion_matrix, multiclass_mcc
from napari_histogan.project.store import Project
from napari_histogan.slides.zarr_pyramid import open_pyramid


def handlers() -> dict[str, Handler]:
    """Return what answers each kind of request about heatmaps."""
    return {"objects": objects, "unsure": unsure, "round": judge_round}


def objects(request: Request) -> Iterator[Answer | None]:
    """Measure objects: ``path`` of the map, ``class_index``, ``threshold``; rows as of ``object_rows``."""
    values = request.values
    yield None
    heatmap = open_pyramid(values["path"])
    rows = object_rows(heatmap, int(values["class_index"]), float(values["threshold"]))
    yield {}, {"rows": rows}


def unsure(request: Request) -> Iterator[Answer | None]:
    """Find places to look at: ``path`` of the map; ``places`` as in ``least_sure_places``."""
    yield None
    yield {}, {"places": least_sure_places(open_pyramid(request.values["path"]))}


def judge_round(request: Request) -> Iterator[Answer | None]:
    """Compare two maps with the corrections of their slide: ``project``, ``before``, ``after`` (their ids).

    Answers ``places``, ``area_mm2``, and the multiclass MCC ``before`` and ``after``.
    """
    project = Project.open(request.values["project"], read_only=True)
    maps = [project.artifact(str(request.values[key]), "heatmap") for key in ("before", "after")]
    slide = maps[1].summary.get("slide")
    corrections = [c for c in project.corrections() if c.slide == slide]
    pyramids = [open_pyramid(each.path / "heatmap.zarr") for each in maps]
    classes = len(pyramids[0].channels)
    side = max(classes, len(pyramids[1].channels), len(project.classes))
    counts = [np.zeros((side + 1, side + 1), np.int64) for _ in pyramids]
    used, area = 0, 0.0
    for each in corrections:
        yield None
        if any(abs(p.mpp - each.mpp) > 1e-3 * each.mpp for p in pyramids):
            continue  # corrected at another resolution
        for matrix, pyramid in zip(counts, pyramids, strict=True):
            matrix += confusion_matrix(each.mask, predicted_labels(pyramid, each.region), side)
        used, area = used + 1, area + float(np.count_nonzero(each.mask)) * each.mpp**2 / 1e6
    before, after = (float(multiclass_mcc(matrix)) if matrix.any() else 0.0 for matrix in counts)
    yield {"places": used, "area_mm2": area, "before": before, "after": after}, {}

"""What the compute process answers about heatmaps: their objects, unsure places, and what a round brought."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_histogan.inference.detections import stored_rows
from napari_histogan.inference.review import least_sure_places, object_rows, predicted_labels
from napari_histogan.jobs.engine_requests import Answer, Handler, Request
from napari_histogan.metrics import confusion_matrix, multiclass_mcc
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.corrections import Correction
from napari_histogan.project.kept_back import learned_from
from napari_histogan.project.store import Project
from napari_histogan.slides.zarr_pyramid import PyramidReader, open_pyramid


def handlers() -> dict[str, Handler]:
    """Return what answers each kind of request about heatmaps."""
    return {"objects": objects, "unsure": unsure, "round": judge_round}


def objects(request: Request) -> Iterator[Answer | None]:
    """Measure objects: ``path`` of the map, ``class_index``, ``threshold``; or read a stored ``table``.

    Answers ``rows`` as of ``object_rows``; for a table, whose ``names`` are the project's classes, also the
    number of each row's class.
    """
    values = request.values
    yield None
    if "table" in values:
        rows, classes = stored_rows(Path(values["table"]), tuple(values["names"]))
        yield {}, {"rows": rows, "classes": classes}
        return
    heatmap = open_pyramid(values["path"])
    rows = object_rows(heatmap, int(values["class_index"]), float(values["threshold"]))
    yield {}, {"rows": rows}


def unsure(request: Request) -> Iterator[Answer | None]:
    """Find places to look at: ``path`` of the map; ``places`` as in ``least_sure_places``."""
    yield None
    yield {}, {"places": least_sure_places(open_pyramid(request.values["path"]))}


def judge_round(request: Request) -> Iterator[Answer | None]:
    """Compare the nets of two maps: ``project``, ``before``, ``after`` (ids of the maps).

    They are compared on slides with outlines if both nets were evaluated on the same ones, else on
    corrections of the slide that neither learned from, and where there are none, on all of them.

    Answers ``on`` ("slides", "kept back", or "learned"), the multiclass MCC ``before`` and ``after``, the
    corrections ``places``, their ``area_mm2``, ``judged`` (of how many of them the MCC is), and ``slides``.
    """
    project = Project.open(request.values["project"], read_only=True)
    maps = [project.artifact(str(request.values[key]), "heatmap") for key in ("before", "after")]
    slide = maps[1].summary.get("slide")
    corrections = [c for c in project.corrections() if c.slide == slide]
    area = sum(float(np.count_nonzero(c.mask)) * c.mpp**2 / 1e6 for c in corrections)
    answer = {"places": len(corrections), "area_mm2": area}
    nets = [_net_of(each) for each in maps]
    evaluated = _evaluated_alike(project, *nets)
    if evaluated is not None:
        yield {**answer, "on": "slides", **evaluated}, {}
        return
    learned = learned_from(project, nets[0]) | learned_from(project, nets[1])
    fresh = [c for c in corrections if c.name not in learned]
    pyramids = [open_pyramid(each.path / "heatmap.zarr") for each in maps]
    yield None
    for on, places in (("kept back", fresh), ("learned", corrections)):
        judged, *mcc = _agreement(pyramids, places, len(project.classes))
        if judged or on == "learned":
            yield {**answer, "on": on, "judged": judged, "before": mcc[0], "after": mcc[1]}, {}
            return


def _agreement(
    pyramids: Sequence[PyramidReader], places: Sequence[Correction], classes: int
) -> tuple[int, float, float]:
    """Return how many places were corrected at the maps' resolution, and each map's MCC there."""
    side = max(classes, *(len(p.channels) for p in pyramids))
    counts = [np.zeros((side + 1, side + 1), np.int64) for _ in pyramids]
    used = [c for c in places if all(abs(p.mpp - c.mpp) <= 1e-3 * c.mpp for p in pyramids)]
    for each in used:
        for matrix, pyramid in zip(counts, pyramids, strict=True):
            matrix += confusion_matrix(each.mask, predicted_labels(pyramid, each.region), side)
    before, after = (float(multiclass_mcc(matrix)) if matrix.any() else 0.0 for matrix in counts)
    return len(used), before, after


def _evaluated_alike(project: Project, before: str, after: str) -> dict[str, Any] | None:
    """Return slides and MCC of two nets that were compared with the same outlines; None if they were not."""
    made_by = {a.id: _net_of(a) for a in project.artifacts("heatmap")}
    newest: dict[tuple[str, str], dict[str, float]] = {}
    for each in project.artifacts("evaluation"):
        first = str(each.summary.get("heatmap", "")).split(", ")[0]
        mcc = each.summary.get("mcc")
        if made_by.get(first) and isinstance(mcc, int | float):
            key = str(each.config.get("reference")), str(each.summary.get("slide"))
            newest.setdefault(key, {})[made_by[first]] = float(mcc)
    for (_, slides), scores in reversed(newest.items()):
        if before in scores and after in scores:
            return {"slides": slides, "before": scores[before], "after": scores[after]}
    return None


def _net_of(heatmap: Artifact) -> str:
    return next((p.id for p in heatmap.parents if p.id.startswith("segmenters/")), "")

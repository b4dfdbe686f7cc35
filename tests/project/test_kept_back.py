"""Corrections that judge instead of teaching, and what a net has learned from."""

import numpy as np
import pytest

from napari_histogan.config import MergeCorrectionsConfig, TrainSegmenterConfig
from napari_histogan.geometry import Region
from napari_histogan.pipeline import STAGE_FUNCTIONS
from napari_histogan.progress import QuietReporter
from napari_histogan.project.corrections import Correction
from napari_histogan.project.kept_back import kept_back, learned_from


def correction(name: str, created: str = "", y: int = 40, slide: str = "s") -> Correction:
    mask = np.ones((64, 64), np.uint8)
    mask[:, 32:] = 2
    return Correction(name, slide, Region(y, 40, 64, 64), 1.0, mask, created=created)


def test_every_fifth_in_the_order_of_making_is_kept_back():
    made = [correction(f"c-{9 - k}", f"2026-01-0{k + 1}") for k in range(7)]  # names run backwards
    assert kept_back(made, 5) == {"c-5"}
    assert kept_back(made[:4], 5) == set()
    assert kept_back(made, 2) == {"c-8", "c-6", "c-4"}
    assert kept_back(made, 0) == set()
    later = [*made, *(correction(f"d-{k}", f"2026-02-0{k + 1}") for k in range(5))]
    assert kept_back(made, 5) < kept_back(later, 5)  # what was kept back once stays so


@pytest.mark.timeout(300)
def test_a_net_has_learned_what_it_and_its_forebears_were_taught(tiny_project_copy):
    project = tiny_project_copy
    slide = project.slide("").name
    for k in range(5):
        project.save_correction(correction(f"c-{k + 1}", f"2026-01-0{k + 1}T00:00:00", 40 + 8 * k, slide))
    merged = STAGE_FUNCTIONS["merge_corrections"](
        project, MergeCorrectionsConfig(patch_px=32), QuietReporter()
    )
    assert merged.summary["regions"] == 4
    assert merged.summary["kept_back"] == 1
    tiny = {"steps": 2, "width": 4, "depth": 2, "batch": 4, "threads": 1}
    taught = STAGE_FUNCTIONS["train_segmenter"](project, TrainSegmenterConfig(**tiny), QuietReporter())
    assert learned_from(project, taught.id) == {"c-1", "c-2", "c-3", "c-4"}
    heir = TrainSegmenterConfig(**tiny, init=taught.id, sources=("datasets/0006",))
    heir_net = STAGE_FUNCTIONS["train_segmenter"](project, heir, QuietReporter())
    assert learned_from(project, heir_net.id) == {"c-1", "c-2", "c-3", "c-4"}
    assert learned_from(project, project.artifacts("segmenter")[0].id) == set()
    assert learned_from(project, "segmenters/0999") == set()

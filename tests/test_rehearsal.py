"""A net that is trained on with corrections goes on seeing what it learned from before."""

import numpy as np
import pytest

from napari_histogan import config as c
from napari_histogan.geometry import Region
from napari_histogan.pipeline import STAGE_FUNCTIONS
from napari_histogan.progress import QuietReporter
from napari_histogan.project.corrections import Correction
from napari_histogan.training_inputs import segmenter_inputs

TINY = {"steps": 1, "width": 4, "depth": 2, "batch": 4, "threads": 1, "painted_share": 0.0}


@pytest.fixture
def corrected(tiny_project_copy):
    """A project with a net that learned from synthetic pairs, and corrections of its size."""
    project = tiny_project_copy
    mask = np.ones((64, 64), np.uint8)
    mask[:, 32:] = 2
    project.save_correction(Correction("c-1", project.slide("").name, Region(40, 40, 64, 64), 1.0, mask))
    merge = c.MergeCorrectionsConfig(patch_px=32)
    STAGE_FUNCTIONS["merge_corrections"](project, merge, QuietReporter())
    return project


def draws(project, tmp_path, **values):
    """Return how often each source is drawn, and the ids of what the net comes from."""
    settings = c.TrainSegmenterConfig(**{**TINY, **values})
    with segmenter_inputs(project, settings, QuietReporter(tmp_path)) as found:
        drawn = [source.weight * len(source) for source in found.sources]
        return [each / sum(drawn) for each in drawn], [parent.id for parent in found.parents]


def test_corrections_alone_rehearse_what_the_net_knew(corrected, tmp_path):
    net, dataset = (corrected.artifacts(kind)[-1] for kind in ("segmenter", "dataset"))
    merged = corrected.artifacts("corrections")[-1]
    values = {"sources": (merged.id,), "init": net.id}
    shares, parents = draws(corrected, tmp_path / "half", **values)
    assert shares == pytest.approx([0.5, 0.5])
    assert parents == [merged.id, net.id, dataset.id]
    shares, _ = draws(corrected, tmp_path / "fifth", **values, rehearsal=0.2)
    assert shares == pytest.approx([0.8, 0.2])
    shares, parents = draws(corrected, tmp_path / "none", **values, rehearsal=0.0)
    assert shares == [1.0]
    assert parents == [merged.id, net.id]


def test_a_source_is_not_rehearsed_beside_itself_and_a_chain_of_nets_is_followed(corrected, tmp_path):
    net, dataset = (corrected.artifacts(kind)[-1] for kind in ("segmenter", "dataset"))
    merged = corrected.artifacts("corrections")[-1]
    _, parents = draws(corrected, tmp_path / "all", init=net.id)
    assert parents == [dataset.id, merged.id, net.id]
    config = c.TrainSegmenterConfig(**TINY, sources=(merged.id,), init=net.id, rehearsal=0.0)
    second = STAGE_FUNCTIONS["train_segmenter"](corrected, config, QuietReporter())
    _, parents = draws(corrected, tmp_path / "chain", sources=(merged.id,), init=second.id)
    assert parents == [merged.id, second.id, dataset.id]

"""The demo as a person sees it: one command, a project, a report; shipped data that belongs together."""

from __future__ import annotations

import io
import json
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from napari_histogan import demo
from napari_histogan.demo import DemoPlan, run_demo
from napari_histogan.errors import ModelError
from napari_histogan.labels.interchange import read_annotations, read_png_mask
from napari_histogan.project.store import Project

TINY = DemoPlan(pairs=24, steps=4, transfer_steps=2, members=2, epochs=1)


class Text(HTMLParser):
    """Collects what a reader sees, and what the page would load."""

    def __init__(self, page):
        super().__init__()
        self.words, self.loads = [], []
        self.feed(page)

    def handle_data(self, data):
        self.words.append(data)

    def handle_starttag(self, tag, attrs):
        self.loads += [value for name, value in attrs if name in ("src", "href")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A demo that ran to its end with very little of everything, and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "project"
    printed = io.StringIO()
    report = run_demo(folder, open_viewer=False, console=Console(file=printed, width=120), plan=TINY)
    return folder, report, printed.getvalue()


def test_it_ends_with_a_report_that_needs_nothing_else(finished):
    folder, report, printed = finished
    assert str(report) in printed
    assert f"histogan open {folder}" in printed
    assert "MCC" in printed
    assert "Transfer: synthetic" in printed
    page = Text(report.read_text(encoding="utf-8"))
    words = " ".join(page.words)
    for expected in ("MCC", "Dice epidermis", "Control", "Transfer", "Synthetic", "drawn by eye"):
        assert expected in words
    assert page.loads
    assert all(link.startswith("data:") for link in page.loads)


def test_figures_lie_beside_the_report_and_show_something(finished):
    _folder, report, _printed = finished
    for name in ("painted-samples", "uncertainty", "synthetic-kept", "slide", "slide-all"):
        pixels = np.asarray(Image.open(report.parent / f"{name}.png").convert("RGB"))
        assert pixels.std() > 10, name


def test_every_step_was_a_job_with_a_run_folder(finished):
    folder, _report, printed = finished
    project = Project.open(folder)
    states = [json.loads((run / "status.json").read_text())["state"] for run in project.runs()]
    assert set(states) == {"done"}
    assert len(states) == 16
    assert "[16/16]" in printed


def test_the_three_nets_were_compared_on_the_same_pixels(finished):
    project = Project.open(finished[0])
    counted = []
    for evaluation in project.artifacts("evaluation"):
        scores = json.loads((evaluation.path / "evaluation.json").read_text())
        counted.append(np.array(scores["matrix"]).sum(axis=1).tolist())
        assert -1 <= scores["overall"]["mcc"]["value"] <= 1
    assert len(counted) == 3
    assert counted[0] == counted[1] == counted[2]


def test_run_again_it_repeats_nothing(finished):
    folder, report, _printed = finished
    before = len(Project.open(folder).runs())
    printed = io.StringIO()
    again = run_demo(folder, open_viewer=False, console=Console(file=printed, width=120), plan=TINY)
    assert again == report
    assert len(Project.open(folder).runs()) == before
    assert printed.getvalue().count("done earlier") == 16


def test_masks_of_other_samples_are_refused(finished, tmp_path, monkeypatch):
    project = Project.open(finished[0])
    other = tmp_path / "painted"
    shutil.copytree(demo.PAINTED, other)
    painted = dict(np.load(other / "w.npz"))
    np.savez(other / "w.npz", index=painted["index"], w=painted["w"][::-1])
    monkeypatch.setattr(demo, "PAINTED", other)
    with pytest.raises(ModelError, match="not the one that was painted"):
        demo._place_painted_masks(project, project.artifacts("samples")[-1])


def test_with_a_generator_of_its_own_it_asks_for_masks(tmp_path):
    printed = io.StringIO()
    console = Console(file=printed, width=120)
    plan = DemoPlan(kimg=0.032)
    folder = run_demo(tmp_path / "own", from_gan=True, open_viewer=False, console=console, plan=plan)
    project = Project.open(folder)
    assert [a.kind for a in project.artifacts()] == ["slides", "patches", "generator", "samples"]
    assert project.painted(project.artifacts("samples")[0]) == []
    assert f"histogan demo {folder} --from gan" in printed.getvalue().replace("\n", " ")


# What ships


def test_twenty_to_thirty_samples_are_painted_with_every_class():
    painted = np.load(demo.PAINTED / "w.npz")
    masks = [read_png_mask(demo.PAINTED / f"{i:04d}.png", demo.CLASSES) for i in painted["index"]]
    assert 20 <= len(masks) <= 30
    images_with = [sum((mask == info.index).any() for mask in masks) for info in demo.CLASSES]
    assert min(images_with) >= 4, dict(zip(demo.CLASSES.names, images_with, strict=True))


def test_as_many_real_patches_are_outlined_and_lie_on_the_slide(demo_slide):
    from napari_histogan.slides.reader import open_slide

    frames = [a for a in read_annotations(demo.REAL_PATCHES) if a.class_name == demo.PATCH_FRAME]
    assert len(frames) == 24
    with open_slide(demo_slide) as slide:
        for frame in frames:
            x0, y0, x1, y1 = frame.geometry.bounds
            assert x0 >= 0
            assert y0 >= 0
            assert x1 <= slide.size.width
            assert y1 <= slide.size.height


def test_demo_data_is_small():
    size = sum(p.stat().st_size for p in demo.DATA.rglob("*") if p.is_file())
    assert size < 12e6
    assert (demo.GENERATOR / "generator.safetensors").stat().st_size < 10e6

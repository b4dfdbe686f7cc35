"""Heatmaps of several slides by one command: here one after the other, or by two workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from napari_histogan import config as c
from napari_histogan.errors import SlideError, SlideNotFound, Stopped
from napari_histogan.geometry import Size
from napari_histogan.inference.shared_slide import _parts
from napari_histogan.models.segmenter import save_segmenter
from napari_histogan.models.unet import UNet
from napari_histogan.pipeline import STAGE_FUNCTIONS, predict_heatmap
from napari_histogan.progress import QuietReporter
from napari_histogan.project.reads import what_it_reads
from napari_histogan.project.runs import read_status
from napari_histogan.project.slide_list import SlideEntry, find_several
from napari_histogan.project.store import Project
from napari_histogan.slides.reader import open_slide

SIZES = {"a1": (900, 700), "a2": (1100, 600), "b": (600, 600)}
ENTRIES = [SlideEntry(name, Path(f"{name}.tif"), 1.0, Size(*size)) for name, size in SIZES.items()]
HERE = c.PredictHeatmapConfig(device="cpu", threads=1, precision="float32", tile_px=128, slide="all")


def write_slide(path: Path, size: tuple[int, int], seed: int) -> None:
    coarse = np.random.default_rng(seed).integers(60, 200, (30, 30, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize(size[::-1])
    tifffile.imwrite(
        path,
        np.asarray(picture),
        tile=(256, 256),
        compression="zlib",
        photometric="rgb",
    )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with three small slides at 1 um/px, and a net."""
    for seed, (name, size) in enumerate(SIZES.items()):
        write_slide(tmp_path / f"{name}.tif", size, seed)
    project = Project.create(tmp_path / "project")
    paths = tuple(tmp_path / f"{name}.tif" for name in SIZES)
    STAGE_FUNCTIONS["add_slides"](project, c.AddSlidesConfig(paths=paths, mpp=1.0), QuietReporter())
    torch.manual_seed(0)
    net = UNet(2, width=4, depth=2)
    with torch.no_grad():
        net.head.weight.mul_(10)
    reporter = QuietReporter()
    with project.new_artifact("segmenter", c.TrainSegmenterConfig(), reporter) as draft:
        save_segmenter(draft.path, net, ("a", "b"), mpp=1.0)
    return project


def run_of(project: Project, config: c.PredictHeatmapConfig, **options: Any) -> QuietReporter:
    """Return a reporter whose run folder has a number, as a job's has."""
    return QuietReporter(project.new_run(config), **options)


def maps(project: Project) -> dict[str, dict[str, bytes]]:
    """Return the newest map of each slide; blocks may be noted in any order."""
    found = {}
    for artifact in project.artifacts("heatmap"):
        folder = artifact.path / "heatmap.zarr"
        found[str(artifact.summary["slide"])] = {
            str(path.relative_to(folder)): b"".join(sorted(path.read_bytes().splitlines()))
            if path.suffix == ".jsonl"
            else path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
    return found


def tear(path: Path) -> bytes:
    """Overwrite the first tile of a slide; returns what it was."""
    whole = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        start, length = page.dataoffsets[0], page.databytecounts[0]  # type: ignore[union-attr]
    path.write_bytes(whole[:start] + bytes(length) + whole[start + length :])
    return whole


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("", ["a1"]),
        ("b", ["b"]),
        ("all", ["a1", "a2", "b"]),
        ("a*", ["a1", "a2"]),
        ("b, a?", ["a1", "a2", "b"]),
        ("b,a1,", ["a1", "b"]),
    ],
)
def test_slides_are_named_by_name_list_or_pattern(words: str, names: list[str]) -> None:
    assert [entry.name for entry in find_several(ENTRIES, words)] == names


@pytest.mark.parametrize("words", ["c", "a1,c", "c*", ","])
def test_what_fits_no_slide_is_refused_with_the_names_that_there_are(words: str) -> None:
    with pytest.raises(SlideNotFound, match="one of a1, a2, b"):
        find_several(ENTRIES, words)


def test_a_name_that_looks_like_a_pattern_or_a_list_means_its_slide() -> None:
    odd = [SlideEntry(name, Path(name), 1.0, Size(9, 9)) for name in ("a1", "a*", "a1,a*", "all")]
    for entry in odd:
        assert find_several(odd, entry.name) == [entry]


def test_each_slide_gets_the_map_that_it_gets_alone(project: Project) -> None:
    for name in SIZES:
        predict_heatmap(project, HERE.model_copy(update={"slide": name}), QuietReporter())
    alone = maps(project)
    reporter = run_of(project, HERE)
    last = predict_heatmap(project, HERE, reporter)
    made = project.artifacts("heatmap")[len(SIZES) :]
    assert {a.summary["slide"] for a in made} == set(SIZES)
    assert {a.config["slide"] for a in made} == set(SIZES)
    assert reporter.run_dir.name.startswith(last.path.name)
    assert maps(project) == alone
    told = {e["part"]: e["map"] for e in reporter.events if e["kind"] == "block"}
    assert told == {name: f"slides/{name}/heatmap.zarr" for name in SIZES}
    assert not list((reporter.run_dir / "slides").iterdir())


def test_a_slide_that_fails_leaves_the_others_alone_and_is_done_later(
    project: Project, tmp_path: Path
) -> None:
    whole = tear(tmp_path / "a1.tif")
    gone = tmp_path / "b.tif"
    gone.rename(tmp_path / "elsewhere.tif")
    project.add_slide_entries(  # as if the tear were there from the beginning: its map has a hole, no more
        torn_entries(project)
    )
    reporter = run_of(project, HERE)
    with pytest.raises(
        SlideError, match=r"2 of 3 slides failed: b \(.*; a1 \(.*could not be read: \(y=0, x=0\)"
    ):
        predict_heatmap(project, HERE, reporter)
    assert set(maps(project)) == {"a2"}
    blocks = [(e["part"], e["y"], e["x"]) for e in reporter.events if e["kind"] == "block_failed"]
    assert blocks == [("a1", 0, 0)]
    kept = len([e for e in reporter.events if e["kind"] == "block" and e["part"] == "a1"])
    assert kept == 3

    (tmp_path / "a1.tif").write_bytes(whole)
    (tmp_path / "elsewhere.tif").rename(gone)
    project.add_slide_entries(torn_entries(project))
    again = QuietReporter(reporter.run_dir)
    last = predict_heatmap(project, HERE, again)
    assert set(maps(project)) == set(SIZES)
    assert len(project.artifacts("heatmap")) == 3
    assert {e["part"] for e in again.events if e["kind"] == "block"} == {"a1", "b"}
    assert len([e for e in again.events if e["kind"] == "block" and e["part"] == "a1"]) == 1
    assert last.path.name == reporter.run_dir.name.split("-")[0]


def torn_entries(project: Project) -> list[SlideEntry]:
    """Return the entries of the slides whose files are there, with the prints that these have now."""
    found = []
    for entry in project.slides():
        if entry.path.exists():
            with open_slide(entry.path, entry.mpp) as slide:
                found.append(replace(entry, fingerprint=slide.fingerprint()))
    return found


def test_a_dry_run_names_every_slide(project: Project) -> None:
    read = what_it_reads(project, HERE.model_copy(update={"slide": "b,a*"}))
    assert [line.split()[1] for line in read if line.startswith("slide ")] == ["a1", "a2", "b"]
    with pytest.raises(SlideNotFound, match="no slide 'c'"):
        what_it_reads(project, HERE.model_copy(update={"slide": "a*,c"}))


def test_a_stopped_run_goes_on_with_the_slides_that_are_missing(project: Project) -> None:
    reporter = run_of(project, HERE, stop_when=lambda: bool(project.artifacts("heatmap")))
    with pytest.raises(Stopped):
        predict_heatmap(project, HERE, reporter)
    assert set(maps(project)) == {"a1"}
    again = QuietReporter(reporter.run_dir)
    predict_heatmap(project, HERE, again)
    assert set(maps(project)) == set(SIZES)
    assert len(project.artifacts("heatmap")) == 3
    assert {e["part"] for e in again.events if e["kind"] == "block"} == {"a2", "b"}


def test_workers_make_the_same_maps_even_if_one_is_lost(project: Project, cluster: Any) -> None:
    predict_heatmap(project, HERE, run_of(project, HERE))
    alone = maps(project)
    victim = next(iter(cluster.workers.values())).pid

    class Killer(QuietReporter):
        """Kills a worker as soon as the first block is there."""

        def event(self, kind: str, **data: Any) -> None:
            if kind == "block" and not any(e["kind"] == "block" for e in self.events):
                os.kill(victim, signal.SIGKILL)
            super().event(kind, **data)

    there = HERE.model_copy(update={"scheduler": cluster.scheduler_address})
    reporter = Killer(project.new_run(there))
    predict_heatmap(project, there, reporter)
    assert len(project.artifacts("heatmap")) == 6
    assert maps(project) == alone
    told = [(e["part"], e["y"], e["x"]) for e in reporter.events if e["kind"] == "block"]
    assert len(told) == len(set(told)) == 4 + 6 + 4


def test_workers_go_on_without_a_slide_that_fails(project: Project, cluster: Any, tmp_path: Path) -> None:
    whole = tear(tmp_path / "a2.tif")
    project.add_slide_entries(torn_entries(project))
    there = HERE.model_copy(update={"scheduler": cluster.scheduler_address})
    reporter = run_of(project, there)
    with pytest.raises(SlideError, match=r"1 of 3 slides failed: a2 \(1 blocks of a2.tif"):
        predict_heatmap(project, there, reporter)
    assert set(maps(project)) == {"a1", "b"}
    (tmp_path / "a2.tif").write_bytes(whole)
    project.add_slide_entries(torn_entries(project))
    again = QuietReporter(reporter.run_dir)
    predict_heatmap(project, there, again)
    assert [(e["part"], e["y"], e["x"]) for e in again.events if e["kind"] == "block"] == [("a2", 0, 0)]
    assert set(maps(project)) == set(SIZES)


@pytest.mark.parametrize(
    ("costs", "workers", "parts"),
    [
        ([10, 10], 2, [1, 1]),
        ([10, 10, 10], 2, [2, 2, 2]),
        ([30, 10], 2, [3, 1]),
        ([0, 0], 2, [1, 1]),
        ([5] * 8, 4, [1] * 8),
    ],
)
def test_slides_are_cut_only_where_a_worker_would_wait(
    costs: list[float], workers: int, parts: list[int]
) -> None:
    assert _parts(costs, workers) == parts


def test_the_command_ends_non_zero_with_a_list_and_resumes(project: Project, tmp_path: Path) -> None:
    whole = tear(tmp_path / "a1.tif")
    project.add_slide_entries(torn_entries(project))
    histogan = [sys.executable, "-m", "napari_histogan"]
    words = ["--slide", "a*", "--device", "cpu", "--threads", "1", "--tile-px", "128"]
    done = subprocess.run(
        [*histogan, "predict-heatmap", str(project.root), *words], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "1 of 2 slides failed: a1 (1 blocks of a1.tif could not be read" in " ".join(done.stderr.split())
    assert set(maps(project)) == {"a2"}
    (tmp_path / "a1.tif").write_bytes(whole)
    project.add_slide_entries(torn_entries(project))
    done = subprocess.run([*histogan, "resume", str(project.root)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(maps(project)) == {"a1", "a2"}
    assert [read_status(run).state for run in project.runs()] == ["done"] * len(project.runs())

"""How a project behaves as slides, samples, painted masks, and results become many; nothing may be quadratic.

``python benchmarks/many_slides.py [--quick]`` doubles each three times, times what the dock and the command
line do with it, and fits the exponent of ``seconds = a * n ** b`` through the doublings (least squares in
logarithms): 1 is linear, 2 quadratic.  A constant part makes the exponent smaller, never larger.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measuring import finish, machine
from PIL import Image

from napari_histogan.config import AddSlidesConfig, SampleImagesConfig
from napari_histogan.geometry import Size
from napari_histogan.labels.classes import ClassTable
from napari_histogan.progress import QuietReporter
from napari_histogan.project.artifacts import verify_all
from napari_histogan.project.backup import back_up
from napari_histogan.project.cleaning import leftovers
from napari_histogan.project.overview import overview
from napari_histogan.project.slide_list import SlideEntry
from napari_histogan.project.store import Project
from napari_histogan.stage_inputs import open_entry

OPEN_SECONDS = 2.0
STEEPEST = 1.35
"""Largest exponent that counts as linear: n log n over these ranges has 1.1 to 1.2, and timings scatter."""

Timed = dict[str, float]


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Return the CPU seconds of the fastest of some rounds; other programs only add to the wall time."""
    found = []
    for _ in range(rounds):
        before = time.process_time()
        work()
        found.append(time.process_time() - before)
    return min(found)


def exponent(numbers: list[int], times: list[float]) -> float:
    """Return b of ``seconds = a * n ** b``, fitted through all points."""
    return float(np.polyfit(np.log(numbers), np.log(np.maximum(times, 1e-6)), 1)[0])


def entries(count: int, path: Path) -> list[SlideEntry]:
    """Return entries of slides as add-slides makes them; all name one file."""
    return [
        SlideEntry(f"slide-{k:06d}", path, 0.25, Size(80_000, 100_000), f"{k:032x}") for k in range(count)
    ]


def many_slides(root: Path, count: int, rounds: int) -> Timed:
    """Time what is done with a list of slides."""
    picture = root / "slide.png"
    Image.new("RGB", (64, 64), (200, 120, 170)).save(picture)
    project = Project.create(root / "project", classes=ClassTable.from_names(["a", "b"]))
    project.add_slide_entries(entries(count, picture))
    last = f"slide-{count - 1:06d}"

    def every_one_by_name() -> None:
        # A step over all slides looks each of them up once.
        known = {entry.name: entry for entry in project.slides()}
        for entry in project.slides():
            _ = known[entry.name]

    return {
        "open and list slides": seconds(lambda: Project.open(project.root).slides(), rounds),
        "find the last slide": seconds(lambda: project.slide(last), rounds),
        "filter slides by a word": seconds(
            lambda: [entry for entry in project.slides() if "99" in entry.name], rounds
        ),
        "add one slide": seconds(lambda: project.add_slide_entries(entries(1, picture)), rounds),
        "go over all slides": seconds(every_one_by_name, rounds),
        "status": seconds(lambda: overview(Project.open(project.root)), rounds),
    }


def add_slide_files(root: Path, count: int, rounds: int) -> Timed:
    """Time the stage that registers files, on as many small pictures."""
    from napari_histogan.pipeline import add_slides

    (root / "files").mkdir(parents=True)
    Image.new("RGB", (64, 64), (200, 120, 170)).save(root / "files" / "000000.png")
    for number in range(1, count):
        shutil.copyfile(root / "files" / "000000.png", root / "files" / f"{number:06d}.png")
    config = AddSlidesConfig(paths=(root / "files",), mpp=0.5)
    places = iter(range(rounds))

    def add() -> None:
        project = Project.create(root / f"project-{next(places)}")
        add_slides(project, config, QuietReporter(root / "run"))
        open_entry(project.slide("000000")).close()

    return {"add-slides": seconds(add, rounds)}


def many_masks(root: Path, count: int, rounds: int) -> Timed:
    """Time what is done with painted samples."""
    project = Project.create(root / "project", classes=ClassTable.from_names(["a", "b"]))
    with project.new_artifact("samples", SampleImagesConfig(), QuietReporter(root / "run")) as draft:
        (draft.path / "x").write_text("samples")
    samples = draft.result.id
    mask = np.ones((64, 64), np.uint8)

    def paint_all() -> None:
        fresh = Project.open(project.root)
        for index in range(count):
            mask[0, 0] = 1 + (mask[0, 0] % 2)
            fresh.save_mask(samples, index, mask)
        fresh.masks(samples).finish_history()

    painting = seconds(paint_all, 1)
    target = root / "work.zip"
    return {
        "paint all masks": painting,
        "save one more mask": seconds(lambda: project.save_mask(samples, count, mask + 1), 1),
        "list painted samples": seconds(lambda: Project.open(project.root).painted(samples), rounds),
        "hash all masks": seconds(lambda: Project.open(project.root).masks_parent(samples), rounds),
        "status with masks": seconds(lambda: overview(Project.open(project.root)), rounds),
        "backup": seconds(lambda: back_up(project, target, force=True), rounds),
        "look for leftovers": seconds(lambda: leftovers(project.root), rounds),
    }


def many_results(root: Path, count: int, rounds: int) -> Timed:
    """Time what is done with results and their run folders."""
    project = Project.create(root / "project")
    parents = []
    started = time.process_time()
    for number in range(count):
        with project.new_artifact(
            "samples", SampleImagesConfig(seed=number), QuietReporter(root / "run"), parents
        ) as draft:
            (draft.path / "x").write_text(str(number))
        parents = [draft.result]
    made = time.process_time() - started
    newest = draft.result
    return {
        "make all results": made,
        "list results": seconds(lambda: Project.open(project.root).artifacts(), rounds),
        "newest result": seconds(lambda: project.artifact("", "samples"), rounds),
        "family of a chain": seconds(lambda: project.family(newest), rounds),
        "status with results": seconds(lambda: overview(Project.open(project.root)), rounds),
        "verify": seconds(lambda: verify_all(project.root), rounds),
    }


def measure(sizes: dict[str, list[int]], rounds: int) -> tuple[Timed, dict[str, float]]:
    """Return the CPU seconds at the largest size, and the exponent, of every operation."""
    groups = {
        "slides": many_slides,
        "files": add_slide_files,
        "masks": many_masks,
        "results": many_results,
    }
    largest: Timed = {}
    exponents: dict[str, float] = {}
    for group, work in groups.items():
        rows: list[Timed] = []
        for count in sizes[group]:
            with tempfile.TemporaryDirectory(prefix="many-") as folder:
                rows.append(work(Path(folder), count, rounds))
        for name in rows[0]:
            times = [row[name] for row in rows]
            largest[name], exponents[name] = times[-1], exponent(sizes[group], times)
            shown = "  ".join(f"{n}: {t * 1e3:.1f} ms" for n, t in zip(sizes[group], times, strict=True))
            print(f"{group:8} {name:24} n^{exponents[name]:5.2f}   {shown}")
    return largest, exponents


def doubled(first: int) -> list[int]:
    """Return a number and its three doublings."""
    return [first, 2 * first, 4 * first, 8 * first]


def main() -> None:
    """Measure, print, and end with the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="half the sizes, fewer rounds")
    parser.add_argument("--smoke", action="store_true", help="only show that it works")
    options = parser.parse_args()
    print(machine())
    scale = 16 if options.smoke else 2 if options.quick else 1
    sizes = {
        "slides": doubled(max(1250 // scale, 8)),
        "files": doubled(max(64 // scale, 8)),
        "masks": doubled(max(128 // scale, 8)),
        "results": doubled(max(64 // scale, 8)),
    }
    largest, exponents = measure(sizes, 1 if options.smoke else 3)
    with tempfile.TemporaryDirectory(prefix="many-") as folder:
        path = Path(folder) / "slide.png"
        project = Project.create(Path(folder) / "project")
        project.add_slide_entries(entries(5000, path))
        before = time.perf_counter()
        found = Project.open(project.root).slides()
        opening = time.perf_counter() - before
    print(f"5,000 slides open in {opening:.2f} s by the clock ({len(found)} found)")
    steepest = max(exponents.values())
    figures = {f"exponent: {name}": round(max(value, 0.0), 3) for name, value in exponents.items()}
    figures |= {f"cpu_s: {name}": value for name, value in largest.items()}
    figures |= {"open_5000_s": opening, "steepest": steepest}
    goals = {"open_5000_s": OPEN_SECONDS, "steepest": STEEPEST}
    finish("many_slides", figures, goals, opening < OPEN_SECONDS and steepest < STEEPEST)


if __name__ == "__main__":
    main()

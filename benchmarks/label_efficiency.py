"""How far painted synthetic images go beside hand annotation: the renal paper's Table 1, by the stage itself.

Without other words: the shipped demo.  24 painted samples of its generator; the left half of the slide,
outlined by eye, gives the hand-annotated patches, and the right half the test pictures.  With `--glas` and
a generator that saw only images of patients without an image in testA: an oracle paints (a U-Net trained on
those patients' real masks; a line before the figures says how good it is), real patches come from the same
patients, and the test is testA.  With `--glomeruli` likewise, nine tiles to learn from and five to judge by.
`--keep FOLDER` keeps the stage's own report.

    python benchmarks/label_efficiency.py [--quick] [--generator FOLDER --glas FOLDER] [--keep FOLDER]
    python benchmarks/label_efficiency.py [--quick] --generator docs/generator/glomeruli --glomeruli FOLDER
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from measuring import finish, machine
from painting_study import Annotated, oracle, read_glas, read_glomeruli
from PIL import Image

from napari_histogan import config as c
from napari_histogan.demo import CLASSES, GENERATOR, REFERENCE, SLIDE, _place_painted_masks, _sample_config
from napari_histogan.geometry import Region
from napari_histogan.inference.sampling import load_samples
from napari_histogan.labels.interchange import read_annotations
from napari_histogan.labels.outlines import rasterize
from napari_histogan.models.generator_file import generator_info
from napari_histogan.pipeline import STAGE_FUNCTIONS
from napari_histogan.progress import QuietReporter
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.store import Project
from napari_histogan.slides.reader import open_slide

DEMO_MPP = 1.0
PAINTED = 24
LEAST_SHARE = 0.1
"""Of either class in a sample that is painted."""
GLOMERULI_PATCHES = 81
"""All that nine tiles hold."""


def run(project: Project, config: c.StageConfig) -> Artifact:
    return STAGE_FUNCTIONS[config.stage](project, config, QuietReporter(project.new_run(config)))


def demo_project(root: Path) -> tuple[Project, c.LabelEfficiencyConfig]:
    """Return the demo with its painted samples, and the two halves of its slide as pictures and masks."""
    project = Project.create(root / "project", "Demo", CLASSES)
    run(project, c.ImportGanConfig(path=GENERATOR))
    _place_painted_masks(project, run(project, _sample_config()))
    outlines = read_annotations(REFERENCE)
    with open_slide(SLIDE) as slide:
        size = slide.size_at(DEMO_MPP)
        half, tall = size.width // 2, 186
        for name, left in (("train", 0), ("test", half)):
            for k, top in enumerate(range(0, size.height - tall + 1, tall)):
                region = Region(top, left, tall, half)
                mask = rasterize(outlines, region, DEMO_MPP / slide.mpp, CLASSES)
                write_pair(root / name, str(k), slide.read_at(region, DEMO_MPP), mask)
    return project, c.LabelEfficiencyConfig(
        annotated=root / "train", test=root / "test", picture_mpp=DEMO_MPP, painted=PAINTED
    )


def oracle_project(
    root: Path, generator: Path, real: Annotated, steps: int, truncation: float
) -> tuple[Project, c.LabelEfficiencyConfig]:
    """Return a project whose samples an oracle painted, and real pictures split by patients."""
    info = generator_info(generator)
    project = Project.create(root / "project", "Real tissue", real.classes)
    run(project, c.ImportGanConfig(path=generator))
    samples = run(project, c.SampleImagesConfig(count=200, truncation=truncation, seed=1))
    masks, words = oracle(real, load_samples(samples.path), float(info["mpp"]), steps)
    print(f"generator of {info['kimg']:.0f} kimg; {words}", flush=True)
    shares = (masks == 2).mean(axis=(1, 2))
    telling = np.flatnonzero((shares > LEAST_SHARE) & (shares < 1 - LEAST_SHARE))  # a person picks such, too
    for index in telling[: 3 * PAINTED].tolist():
        project.save_mask(samples, index, masks[index])
    for part, pairs in (("train", real.learn), ("test", real.test)):
        for name, (image, mask) in pairs.items():
            write_pair(root / part, name, image, mask)
    return project, c.LabelEfficiencyConfig(
        annotated=root / "train",
        test=root / "test",
        picture_mpp=real.mpp,
        painted=PAINTED,
        truncation=truncation,
    )


def write_pair(folder: Path, name: str, image: np.ndarray, mask: np.ndarray) -> None:
    for part, pixels in (("images", image), ("masks", mask)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / part / f"{name}.png")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="3 seeds of short trainings")
    parser.add_argument("--smoke", action="store_true", help="the smallest run that says anything")
    parser.add_argument("--generator", type=Path)
    parser.add_argument("--glas", type=Path)
    parser.add_argument("--glomeruli", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for the stage's report")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--truncation", type=float, default=0.9, help="of samples and pairs")
    parser.add_argument("--steps", type=int, default=300, help="of each net, with --quick")
    parser.add_argument("--oracle-steps", type=int, default=1500, help="of the net that stands for a person")
    options = parser.parse_args()
    print(f"{machine()}; {options.threads} threads", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        real = read_glas(options.glas) if options.glas else None
        if options.glomeruli:
            real = read_glomeruli(options.glomeruli)
        if real is not None:
            painter = options.oracle_steps, options.truncation
            project, config = oracle_project(Path(folder), options.generator, real, *painter)
            if options.glomeruli:
                config = config.model_copy(update={"control_plus": GLOMERULI_PATCHES})
        else:
            project, config = demo_project(Path(folder))
        small: dict[str, int] = {"threads": options.threads}
        if options.quick:
            small |= {"pairs": 1000, "steps": options.steps}
        if options.smoke:
            small |= {
                "painted": 4,
                "control": 6,
                "control_plus": 8,
                "seeds": 2,
                "pairs": 16,
                "steps": 3,
                "width": 4,
                "picture_steps": 3,
            }
        study = run(project, config.model_copy(update=small))
        rows = json.loads((study.path / "label_efficiency.json").read_text(encoding="utf-8"))
        if options.keep:
            shutil.copytree(study.path, options.keep, dirs_exist_ok=True)
    figures = {}
    for row in rows:
        figures[f"{row['arm']} MCC"], low, high = row["mcc"]
        seeds = ", ".join(f"{value:.3f}" for value in row["mcc_by_seed"])
        mean = figures[f"{row['arm']} MCC"]
        print(f"{row['arm']}: {row['images']} images, MCC {mean:.3f} ({low:.3f} to {high:.3f}); {seeds}")
    leads = {
        "Transfer over Synthetic": rows[3]["ahead_of"]["Synthetic"],
        "Synthetic over Control": rows[0]["ahead_of"]["Control"],
        "Transfer over Control": rows[3]["ahead_of"]["Control"],
    }
    for name, (value, low, high) in leads.items():
        print(f"{name}: {value:+.3f} ({low:+.3f} to {high:+.3f})")
        figures[name] = value
    goals = {"Transfer over Synthetic": 0.0, "Synthetic over Control": 0.0}
    finish("label_efficiency", figures, goals, all(leads[name][0] > 0 for name in goals))


if __name__ == "__main__":
    main()

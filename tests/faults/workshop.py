"""A small project in which every stage has what it needs, and what is tried on it: stages and human work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from napari_histogan import config as c
from napari_histogan.geometry import Region
from napari_histogan.labels.classes import ClassTable
from napari_histogan.project.calibrations import Calibration
from napari_histogan.project.corrections import Correction
from napari_histogan.project.store import Project

SIDE = 32
SLIDE_PX, MPP = 192, 1.0
SLIDES = ("b1", "b2", "m1", "m2")
OFTEN = 1e-6
"""Minutes between checkpoints: one at every chance."""

SAMPLES = "samples/0004"
BLOCKS = "block_labels/0009"
"""The painted samples and the block labels of the finished project."""


def draw_slides(folder: Path, names: tuple[str, ...]) -> None:
    """Write pictures of tissue with dark discs; slides whose name begins with m have more of them."""
    folder.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:SLIDE_PX, :SLIDE_PX]
    for name in names:
        rng = np.random.default_rng(list(name.encode()))
        discs = np.zeros(y.shape, bool)
        for _ in range(14 if name.startswith("m") else 5):
            center = rng.uniform(0, SLIDE_PX, 2)
            discs |= (y - center[0]) ** 2 + (x - center[1]) ** 2 < rng.uniform(8, 22) ** 2
        picture = np.where(discs[..., None], [110, 70, 150], [225, 175, 205]) + rng.normal(
            0, 12, (*y.shape, 3)
        )
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(folder / f"{name}.png")


def build(home: Path) -> Project:
    """Make the project ``home/project`` with a result of every kind, beside slides and labels in ``home``."""
    from napari_histogan.pipeline import STAGE_FUNCTIONS
    from napari_histogan.progress import QuietReporter

    draw_slides(home / "slides", SLIDES)
    draw_slides(home / "more", ("x1", "x2", "x3"))
    _write_labels(home)
    _write_annotated(home / "annotated")
    _save_generator(home / "generator")
    project = Project.create(home / "project", "Faults", ClassTable.from_names(["disc", "ground"]))

    def run(config: c.StageConfig) -> Any:
        return STAGE_FUNCTIONS[config.stage](project, config, QuietReporter())

    run(c.AddSlidesConfig(paths=tuple(home / "slides" / f"{name}.png" for name in SLIDES), mpp=MPP))
    run(c.ExtractPatchesConfig(patch_px=SIDE, mpp=MPP, min_tissue=0.0))
    run(c.ImportGanConfig(path=home / "generator"))
    samples = run(c.SampleImagesConfig(count=8, threads=1))
    for index in range(3):
        project.save_mask(samples, index, _mask(index))
    run(c.TrainPixelClassifierConfig(members=2, epochs=2, threads=1))
    run(c.SynthesizeDatasetConfig(count=16, threads=1))
    run(c.TrainSegmenterConfig(steps=2, batch=4, width=4, depth=2, threads=1))
    run(c.PredictHeatmapConfig(slide="m1", tile_px=64, threads=1))
    blocks = run(c.ImportBlockLabelsConfig(path=home / "blocks.csv", slide="m1", block_um=16.0))
    calibration = Calibration(project, blocks)
    for row in range(3):
        for value, share in (("high", 0.9), ("low", 0.1)):
            column = 2 * row + (value == "low")
            calibration.estimate(row, column, value, {"disc": share, "ground": 1 - share})
    project.save_correction(_correction(0))
    run(c.MergeCorrectionsConfig(patch_px=SIDE))
    run(_patch_gan(home, epochs=1))
    project.masks(samples).finish_history()
    return project


def _patch_gan(home: Path, epochs: int) -> c.TrainPatchGanConfig:
    return c.TrainPatchGanConfig(
        data=home / "annotated" / "thin", mpp=MPP, patch_px=32, width=4, noise=8, batch=16, patches=64,
        epochs=epochs, clahe=False, holdout_share=0.34, judge_stride=16, checkpoint_minutes=OFTEN, threads=1,
    )  # fmt: skip


def _write_labels(home: Path) -> None:
    rows = ["row,column,label"]
    rows += [
        f"{y},{x},{('high', 'low')[x % 2]}" for y in range(SLIDE_PX // 16) for x in range(SLIDE_PX // 16)
    ]
    (home / "blocks.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    labels = "".join(f"{name},{'benign' if name < 'm' else 'malign'}\n" for name in SLIDES)
    (home / "slides.csv").write_text("slide,label\n" + labels, encoding="utf-8")
    square = f"[[0,0],[{SLIDE_PX // 2},0],[{SLIDE_PX // 2},{SLIDE_PX // 2}],[0,{SLIDE_PX // 2}],[0,0]]"
    outline = '{"type":"Polygon","coordinates":[' + square + "]}"
    named = '{"classification":{"name":"disc"}}'
    feature = '{"type":"Feature","geometry":' + outline + ',"properties":' + named + "}"
    text = '{"type":"FeatureCollection","features":[' + feature + "]}"
    (home / "reference.geojson").write_text(text, encoding="utf-8")


def _write_annotated(folder: Path) -> None:
    """Write pictures with masks of both classes, to train and to test on."""
    for part, count, values in (("train", 5, (1, 2)), ("test", 2, (1, 2)), ("thin", 3, (255, 0))):
        draw_slides(folder / part / "images", tuple(f"m{k}" for k in range(count)))
        (folder / part / "masks").mkdir()
        for path in (folder / part / "images").iterdir():
            dark = np.asarray(Image.open(path)).mean(axis=2) < 150
            mask = np.where(dark, *values).astype(np.uint8)
            Image.fromarray(mask).save(folder / part / "masks" / path.name)


def _save_generator(folder: Path) -> None:
    import torch

    from napari_histogan.models.generator_file import save_generator
    from napari_histogan.models.stylegan2 import Generator, GeneratorSpec

    torch.manual_seed(0)
    spec = GeneratorSpec(
        z_dim=16, c_dim=0, w_dim=16, img_resolution=SIDE, mapping_layers=1, channel_base=256, channel_max=16
    )
    folder.mkdir()
    save_generator(folder / "generator.safetensors", Generator(spec).eval(), {"mpp": MPP})


def _mask(number: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[2 + number % 7 : 14, 3:29] = 1
    mask[16 : 30 - number % 5, 3:29] = 2
    return mask


def _correction(number: int) -> Correction:
    mask = np.where(np.add.outer(np.arange(64), np.arange(64)) < 40 + number, 1, 2).astype(np.uint8)
    return Correction("edge", "m1", Region(16, 16, 64, 64), MPP, mask, created="2024-01-01T00:00:00+00:00")


def stage_cases(home: Path) -> dict[str, c.StageConfig]:
    """Return a config of a second or two for every stage, with a checkpoint at every chance."""
    gan = {"z_dim": 16, "w_dim": 16, "mapping_layers": 1, "channel_base": 256, "channel_max": 16}
    tiny = {"steps": 6, "batch": 4, "width": 4, "depth": 2, "threads": 1, "checkpoint_minutes": OFTEN}
    blocks = {"width": 4, "depth": 1, "block_px": 16, "context_px": 2, "groups": 2, "per_group": 3}
    weak = {"steps": 4, "pretrain_steps": 2, "patch_px": 32, "batch": 2, "buffer": 4, "width": 2, "depth": 2}
    arms = {"painted": 2, "control": 2, "control_plus": 4, "seeds": 2, "pairs": 16, "steps": 2, "width": 4}
    configs: tuple[c.StageConfig, ...] = (
        c.AddSlidesConfig(paths=tuple(sorted((home / "more").glob("*.png"))), mpp=MPP),
        c.ExtractPatchesConfig(patch_px=SIDE, mpp=MPP, min_tissue=0.0),
        c.TrainGanConfig(
            kimg=0.032, batch=8, tick_kimg=0.008, threads=1, checkpoint_minutes=OFTEN, **gan
        ),
        c.ImportGanConfig(path=home / "generator"),
        c.SampleImagesConfig(count=40, threads=1),
        c.InvertPatchesConfig(count=2, drawn=3, steps=4, candidates=4, threads=1),
        c.MixSamplesConfig(samples=SAMPLES, first=0, second=1, threads=1),
        c.TrainPixelClassifierConfig(members=2, epochs=4, picture_nets=2, picture_steps=2, threads=1),
        c.SynthesizeDatasetConfig(count=48, batch=8, shard=16, threads=1),
        c.TrainSegmenterConfig(validate_every=2, **tiny),
        c.ImportBlockLabelsConfig(path=home / "blocks.csv", slide="m1", block_um=16.0),
        c.TrainSuperResolutionConfig(
            steps=6, validate_every=2, threads=1, checkpoint_minutes=OFTEN, **blocks
        ),
        c.TrainWeaklyConfig(
            labels=home / "slides.csv", holdout_share=0.5, mpp=2.0, map_tile_px=128, bootstrap=20,
            threads=1, checkpoint_minutes=OFTEN, map_every=2, **weak,
        ),
        _patch_gan(home, epochs=3),
        c.PredictHeatmapConfig(slide="m2", segmenter="segmenters/0007", tile_px=64, threads=1),
        c.PredictPatchMapConfig(slide="m2", stride=2, tile_px=128, threads=1),
        c.DetectObjectsConfig(threshold=0.2, min_area_um2=0.0),
        c.EvaluateConfig(reference=home / "reference.geojson", bootstrap=20),
        c.MergeCorrectionsConfig(patch_px=SIDE),
        c.LabelEfficiencyConfig(
            annotated=home / "annotated" / "train", test=home / "annotated" / "test", picture_mpp=MPP,
            batch=4, bootstrap=20, picture_nets=2, picture_steps=2, **arms,
        ),
    )  # fmt: skip
    return {config.stage: config for config in configs}


@dataclass(frozen=True)
class HumanWork:
    """Something that people do, and how to see whether it is there as it should be.

    Parameters
    ----------
    act
        Does it in a project; doing it again makes it whole after a kill.
    look
        Returns what it left, for comparison with the undisturbed project.
    """

    act: Callable[[Project], object]
    look: Callable[[Project], object]


def _paint(project: Project) -> None:
    for number in range(24):
        project.save_mask(SAMPLES, number % 4, _mask(number))
    project.masks(SAMPLES).finish_history()


def _correct(project: Project) -> None:
    for number in range(1, 12):
        project.save_correction(_correction(number))


def _estimate(project: Project) -> None:
    calibration = Calibration(project, BLOCKS)
    for row in range(4, 10):
        calibration.estimate(row, 0, "high", {"disc": 0.1 * row, "ground": 1 - 0.1 * row})


def _settle(project: Project) -> None:
    for number in range(3, 9):
        project.set_classes(ClassTable.from_names(["disc", "ground", *map(str, range(3, number))]))
        project.set_values(default_mpp=float(number))


def _back_up(project: Project) -> None:
    from napari_histogan.project.backup import back_up

    for _ in range(3):
        back_up(project, project.root.parent / "work.zip", force=True)


def _restore(project: Project) -> None:
    from napari_histogan.project.backup import restore

    restore(project.root.parent / "home.zip", project.root.parent / "restored", force=True)


def _restored(project: Project) -> object:
    return _work(Project.open(project.root.parent / "restored"))


def _work(project: Project) -> tuple[object, ...]:
    project.reload()
    masks = {index: project.load_mask(SAMPLES, index) for index in project.painted(SAMPLES)}
    calibration = Calibration(project, BLOCKS)
    return (
        {index: mask.tobytes() for index, mask in masks.items() if mask is not None},
        [(one.name, one.region, one.mask.tobytes()) for one in project.corrections()],
        sorted((e.row, e.column, e.label, *e.shares.values()) for e in calibration.estimates().values()),
        project.classes.to_dicts(),
        project.default_mpp,
    )


HUMAN_WORK: dict[str, HumanWork] = {
    "save masks": HumanWork(_paint, _work),
    "save corrections": HumanWork(_correct, _work),
    "save estimates": HumanWork(_estimate, _work),
    "set classes": HumanWork(_settle, _work),
    "backup": HumanWork(_back_up, _work),
    "restore": HumanWork(_restore, _restored),
}
"""What people do, by the name that the campaign takes."""

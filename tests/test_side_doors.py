"""Real patches from the user's end: found, painted, learned from beside drawn samples; refused in words."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from napari_histogan import config as c
from napari_histogan.errors import ArtifactMissing, ConfigError, LabelError, SlideNotFound, SlideTooSmall
from napari_histogan.inference.sampling import load_samples
from napari_histogan.models.generator_file import load_generator
from napari_histogan.pipeline import STAGE_FUNCTIONS
from napari_histogan.progress import QuietReporter
from napari_histogan.project.painted_sets import count_painted, painted_sets
from napari_histogan.project.reads import what_it_reads
from napari_histogan.slides.reader import open_slide
from napari_histogan.stage_inputs import generator_of, painted_samples
from napari_histogan.training.labelled_pixels import sample_maps

QUICK = {"steps": 4, "candidates": 4, "threads": 1}
SIDE = 32


def run(project, config):
    reporter = QuietReporter()
    return STAGE_FUNCTIONS[config.stage](project, config, reporter), reporter


def quarters(*classes: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for k, value in enumerate(classes):
        mask[8 * k : 8 * k + 6, 2:30] = value
    return mask


def test_real_patches_are_painted_and_learned_from_with_drawn_samples(painted_project_copy):
    project = painted_project_copy
    drawn = project.artifacts("samples")[-1]
    real, reporter = run(project, c.InvertPatchesConfig(count=2, drawn=3, **QUICK))
    assert (real.summary["count"], real.summary["real"]) == (5, 2)
    assert real.summary["psnr_worst"] <= real.summary["psnr_median"]
    assert {p.id.split("/")[0] for p in real.parents} == {"generators", "patches"}
    with Image.open(real.path / "before_after.png") as sheet:
        assert sheet.width >= 2 * 2 * SIDE
    assert [e["message"] for e in reporter.events if e["kind"] == "progress"]
    # Nothing is painted there yet: the paint on the drawn samples still counts.
    assert [a.id for a in painted_sets(project)] == [drawn.id, real.id]
    assert count_painted(project) == 3
    project.save_mask(real, 0, quarters(1, 2, 3))
    project.save_mask(real, 4, quarters(3, 1))
    assert what_it_reads(project, c.TrainPixelClassifierConfig())[-2:] == [
        f"3 painted masks of {drawn.id}",
        f"2 painted masks of {real.id}",
    ]
    judge, _ = run(project, c.TrainPixelClassifierConfig(members=2, epochs=2, threads=1))
    assert judge.summary["painted"] == 5
    assert count_painted(project) == 5
    assert {drawn.id, real.id, f"masks/{real.number:04d}"} < {p.id for p in judge.parents}
    assert judge.id not in {stale.artifact.id for stale in project.stale()}
    project.save_mask(real, 1, quarters(2, 1))
    told = {stale.artifact.id: stale.reason for stale in project.stale()}
    assert "painted on since" in told[judge.id]


def test_features_of_a_painted_real_patch_are_those_of_its_fitted_noise(painted_project_copy):
    project = painted_project_copy
    real, _ = run(project, c.InvertPatchesConfig(count=1, drawn=1, **QUICK))
    project.save_mask(real, 0, quarters(1, 2))
    project.save_mask(real, 1, quarters(1, 2))
    generator, stored = load_generator(generator_of(project, real).path), load_samples(real.path)
    data = painted_samples(project, [real], generator.spec)
    device = torch.device("cpu")
    for index in (0, 1):
        noise = stored.noise_maps(generator.spec, [index])
        wanted = generator.synthesis.features(torch.from_numpy(stored.w[[index]]), noise=noise)[1]
        for found, map_ in zip(sample_maps(generator, data, index, device), wanted, strict=True):
            assert all(
                torch.equal(a, b) for a, b in zip(found, map_, strict=True) if isinstance(a, torch.Tensor)
            )
    only_drawn = painted_samples(project, [project.artifacts("samples")[0]], generator.spec)
    assert only_drawn.noise is None


def test_pictures_and_places_are_taken_as_they_are(painted_project_copy, tmp_path):
    project = painted_project_copy
    rng = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    exact = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    large = rng.integers(0, 256, (SIDE + 10, SIDE + 4, 3), dtype=np.uint8)
    Image.fromarray(exact).save(folder / "a.png")
    Image.fromarray(large).save(folder / "b.png")
    made, reporter = run(project, c.InvertPatchesConfig(paths=(folder,), drawn=0, **QUICK))
    original = originals(made)
    np.testing.assert_array_equal(original, [exact, large[5 : 5 + SIDE, 2 : 2 + SIDE]])
    assert any("1 of 2 pictures are larger" in e.get("message", "") for e in reporter.events)
    made, _ = run(project, c.InvertPatchesConfig(places="400, 600", drawn=0, **QUICK))
    entry = project.slide()
    with open_slide(entry.path, entry.mpp) as slide:
        from napari_histogan.geometry import Region

        wanted = slide.read_at(Region(600 - SIDE // 2, 400 - SIDE // 2, SIDE, SIDE), 1.0)
    np.testing.assert_array_equal(originals(made)[0], wanted)


def originals(samples) -> np.ndarray:
    import zarr

    group = zarr.open_group(str(samples.path / "samples.zarr"), mode="r")
    return np.asarray(group["original"][:])


def test_what_cannot_be_found_is_refused_before_the_search(painted_project_copy, tmp_path):
    project = painted_project_copy
    count = len(project.artifacts("samples"))
    small, empty = tmp_path / "small.png", tmp_path / "empty"
    Image.new("RGB", (20, 40)).save(small)
    empty.mkdir()
    for error, words, values in (
        (SlideTooSmall, "40 x 20 pixels", {"paths": (small,)}),
        (SlideNotFound, "no pictures", {"paths": (empty,)}),
        (ConfigError, "no picture at", {"paths": (tmp_path / "gone.png",)}),
        (ConfigError, "outside of the slide", {"places": "99999, 3"}),
        (ArtifactMissing, "77", {"patches": "77"}),
    ):
        with pytest.raises(error, match=words):
            run(project, c.InvertPatchesConfig(**values, **QUICK))
    assert len(project.artifacts("samples")) == count


def test_several_sets_can_be_named(painted_project_copy):
    project = painted_project_copy
    drawn = project.artifacts("samples")[-1]
    second, _ = run(project, c.SampleImagesConfig(count=2, seed=1, threads=1))
    with pytest.raises(LabelError, match=f"no sample of {second.id} is painted"):
        painted_sets(project, second.id)
    assert painted_sets(project, f"{second.id}, {drawn.number}") == [drawn, second]
    other, _ = run(project, c.ImportGanConfig(path=project.artifacts("generator")[-1].path))
    third, _ = run(project, c.SampleImagesConfig(count=2, generator=other.id, threads=1))
    with pytest.raises(ConfigError, match="different generators"):
        painted_sets(project, f"{drawn.id}, {third.id}")


def test_the_verb_runs_from_the_command_line(painted_project_copy):
    root = painted_project_copy.root
    command = [sys.executable, "-m", "napari_histogan", "invert-patches", str(root)]
    options = ["--count", "1", "--drawn", "1", "--steps", "2", "--candidates", "2", "--threads", "1"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = [a for a in painted_project_copy.artifacts("samples") if a.stage == "invert_patches"]
    assert len(found) == 1
    assert found[0].summary["real"] == 1

"""The last and the best generator are kept, told apart, and can be used; event files are readable."""

import struct
import sys

import numpy as np
import pytest
from PIL import Image
from test_train_gan import Ramps

from napari_histogan.config import (
    AddSlidesConfig,
    ExtractPatchesConfig,
    ImportGanConfig,
    TrainGanConfig,
)
from napari_histogan.errors import CheckpointError, ConfigError, SlideError, Stopped
from napari_histogan.models.generator_file import generator_info, load_generator
from napari_histogan.pipeline import STAGE_FUNCTIONS
from napari_histogan.progress import QuietReporter
from napari_histogan.project.gan_checkpoints import choose_checkpoint, list_checkpoints
from napari_histogan.project.store import Project
from napari_histogan.stage_inputs import open_generator
from napari_histogan.training.gan_result import read_note
from napari_histogan.training.train_gan import train_gan

CONFIG = TrainGanConfig(
    preset="plain",
    kimg=0.048,
    batch=8,
    z_dim=8,
    w_dim=8,
    mapping_layers=2,
    channel_base=128,
    channel_max=8,
    tick_kimg=0.016,
    ada_target=0.0,
    learning_rate=0.05,
    threads=1,
    precision="float32",
    keep_checkpoints=3,
)


def run(folder, patches=None, stop=None, **values):
    reporter = QuietReporter(folder, stop)
    train_gan(patches or Ramps(), CONFIG.model_copy(update=values), reporter)
    return [e for e in reporter.events if e["kind"] == "metric"]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Two equal runs that take the last and the best, and their figures; the best is not the last."""
    folders = [tmp_path_factory.mktemp(take) for take in ("last", "best")]
    values = {"learning_rate": 0.5, "seed": 1}
    figures = [run(f, take=t, **values) for f, t in zip(folders, ("last", "best"), strict=True)]
    assert figures[0][-1]["sliced_wasserstein"] == figures[1][-1]["sliced_wasserstein"]
    assert min(f["sliced_wasserstein"] for f in figures[0][:-1]) < figures[0][-1]["sliced_wasserstein"]
    return folders, figures[0]


def test_last_and_best_are_kept_and_told_apart(both):
    (last, best), figures = both
    low = min(figures, key=lambda f: f["sliced_wasserstein"])
    for folder, main, other in ((last, 0.048, "best"), (best, low["kimg"], "last")):
        result = folder / "result"
        assert generator_info(result)["kimg"] == pytest.approx(main)
        assert sorted(p.name for p in result.glob("*.safetensors")) == sorted(
            ["discriminator.safetensors", "generator.safetensors", f"{other}.safetensors"]
        )
        found = {c.which: c for c in list_checkpoints(folder) if c.which != "checkpoint"}
        assert found["last"].kimg == pytest.approx(0.048)
        assert found["best"].quality == pytest.approx(low["sliced_wasserstein"])
        for checkpoint in found.values():
            assert generator_info(checkpoint.path)["kimg"] == pytest.approx(checkpoint.kimg)
    same = load_generator(last / "result" / "best.safetensors").state_dict()
    assert all(v.equal(same[k]) for k, v in load_generator(best / "result").state_dict().items())


def test_a_checkpoint_is_chosen_by_name_or_kimg(both):
    (folder, _), figures = both
    low = min(figures, key=lambda f: f["sliced_wasserstein"])
    assert open_generator(folder, "best").info["kimg"] == pytest.approx(low["kimg"])
    assert open_generator(folder, "last").info["kimg"] == pytest.approx(0.048)
    by_kimg = open_generator(folder, "0.048")
    assert by_kimg.discriminator is not None
    assert by_kimg.info["mpp"] == 1.0
    with pytest.raises(ConfigError, match=r"no checkpoint '7'.*last, best, or one of .*0\.048"):
        open_generator(folder, "7")
    with pytest.raises(ConfigError, match="checkpoint 'best' was asked for"):
        open_generator(folder / "result" / "generator.safetensors", "best")


def test_a_stopped_run_shows_what_it_has(tmp_path):
    patches = Ramps()
    with pytest.raises(Stopped):
        run(tmp_path, patches, lambda: patches.position >= 24)
    found = list_checkpoints(tmp_path)
    assert {(c.which, round(c.kimg, 3)) for c in found} == {
        ("last", 0.016),
        ("best", 0.016),
        ("checkpoint", 0.024),
    }
    state = open_generator(tmp_path, "0.024")
    assert state.generator.spec.img_resolution == 16
    assert choose_checkpoint(tmp_path, "best").path.name == "best.safetensors"
    assert list_checkpoints(tmp_path / "nothing") == []
    with pytest.raises(ConfigError, match="a run that has saved one"):
        choose_checkpoint(tmp_path / "nothing", "last")


def test_one_that_is_last_and_best_is_one_file(tmp_path):
    run(tmp_path, kimg=0.016)
    assert not (tmp_path / "result" / "best.safetensors").exists()
    assert read_note(tmp_path / "result")["generator.safetensors"]["which"] == "last and best"
    assert {c.path.name for c in list_checkpoints(tmp_path) if c.which != "checkpoint"} == {
        "generator.safetensors"
    }


def test_event_files_hold_the_figures(tmp_path):
    proto = pytest.importorskip("tensorboardX.proto.event_pb2")
    figures = run(tmp_path, tensorboard=True)
    (file,) = (tmp_path / "tensorboard").iterdir()
    data, position, found = file.read_bytes(), 0, {}
    while position < len(data):
        (length,) = struct.unpack_from("<Q", data, position)
        event = proto.Event.FromString(data[position + 12 : position + 12 + length])
        position += 16 + length
        found |= {(event.step, v.tag): v.simple_value for v in event.summary.value}
    for figure in figures:
        for name in ("sliced_wasserstein", "ada_p", "score_fake", "seconds_per_kimg"):
            assert found[figure["step"], name] == pytest.approx(figure[name], rel=1e-5)


def test_without_the_package_event_files_are_refused_first(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ConfigError, match=r"tensorboardX is not installed.*histogan\[tensorboard\]"):
        run(tmp_path, tensorboard=True)
    assert not (tmp_path / "result").exists()


def test_a_fresh_discriminator_warms_up_alone(tmp_path):
    run(tmp_path / "first")
    first = load_generator(tmp_path / "first" / "result")
    reporter = QuietReporter(tmp_path / "second")
    values = {"warmup_kimg": 0.048, "seed": 5}
    train_gan(Ramps(), CONFIG.model_copy(update=values), reporter, init=first)
    second = load_generator(tmp_path / "second" / "result")
    fixed = dict(first.named_parameters())
    assert all(value.equal(fixed[name]) for name, value in second.named_parameters())
    from napari_histogan.models.generator_file import load_discriminator

    judge = load_discriminator(tmp_path / "first" / "result" / "discriminator.safetensors")
    reporter = QuietReporter(tmp_path / "third")
    train_gan(Ramps(), CONFIG.model_copy(update=values), reporter, init=first, init_discriminator=judge)
    third = load_generator(tmp_path / "third" / "result")
    assert any(not value.equal(fixed[name]) for name, value in third.named_parameters())


def test_a_project_refuses_what_cannot_be_trained_and_takes_a_checkpoint(tmp_path):
    picture = tmp_path / "gray.png"
    Image.fromarray(np.random.default_rng(0).integers(60, 200, (64, 64)).astype(np.uint8)).save(picture)
    project = Project.create(tmp_path / "project", "Small")
    reporter = QuietReporter()

    def do(config):
        return STAGE_FUNCTIONS[config.stage](project, config, reporter)

    do(AddSlidesConfig(paths=(picture,), mpp=1.0))
    assert any("stored as gray" in e["message"] for e in reporter.events if e["kind"] == "warning")
    with pytest.raises(SlideError, match=r"1 um/px; 0\.1 um/px was asked for"):
        do(ExtractPatchesConfig(patch_px=16, mpp=0.1))
    do(ExtractPatchesConfig(patch_px=16, mpp=1.0, min_tissue=0.0))
    with pytest.raises(ConfigError, match=r"there are 16 patches of 16 px.*32 patches or more"):
        do(CONFIG.model_copy(update={"batch": 32}))
    made = do(CONFIG)
    assert made.config["preset"] == "plain"
    again = do(ImportGanConfig(path=made.path, checkpoint="last"))
    assert generator_info(again.path)["kimg"] == pytest.approx(0.048)
    (made.path / "discriminator.json").unlink()
    with pytest.raises(CheckpointError, match=r"discriminator\.json"):
        do(CONFIG.model_copy(update={"init": made.id}))

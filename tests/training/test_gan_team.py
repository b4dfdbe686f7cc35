"""Several processes, or parts of a batch one by one, take the steps that one process takes with the batch."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from napari_histogan.config import TrainGanConfig
from napari_histogan.errors import ConfigError
from napari_histogan.models.ada import AugmentPipe
from napari_histogan.models.device import Compute
from napari_histogan.progress import QuietReporter
from napari_histogan.slides.patches import ZarrPatches
from napari_histogan.training.checkpoint import CheckpointStore
from napari_histogan.training.team import Team, machines, processes_started
from napari_histogan.training.train_gan import train_gan

VALUES = {
    "kimg": 0.096,
    "seed": 2,
    "batch": 16,
    "z_dim": 8,
    "w_dim": 8,
    "mapping_layers": 2,
    "channel_base": 128,
    "channel_max": 8,
    "path_length_weight": 2.0,
    "path_length_every": 2,
    "r1_every": 2,
    "tick_kimg": 0.096,
    "ada_target": 0.01,
    "ada_kimg": 0.02,
    "learning_rate": 1e-3,
    "threads": 1,
    "precision": "float32",
    "device": "cpu",
}

RANK = """
import json, sys
from pathlib import Path
from napari_histogan.config import TrainGanConfig
from napari_histogan.progress import QuietReporter
from napari_histogan.slides.patches import ZarrPatches
from napari_histogan.training.train_gan import train_gan

patches = ZarrPatches(Path(sys.argv[1]), 3, mpp=1.0)
reporter = QuietReporter(Path(sys.argv[2]))
train_gan(patches, TrainGanConfig(**json.loads(sys.argv[3])), reporter)
assert patches.state_dict()["position"] == 96
print(len(reporter.events))
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    path = tmp_path_factory.mktemp("patches") / "patches.zarr"
    rng = np.random.default_rng(0)
    low = rng.integers(0, 256, (40, 4, 4, 3)).astype(np.uint8)
    array = zarr.create_array(path, shape=(40, 16, 16, 3), dtype="uint8", chunks=(8, 16, 16, 3))
    array[:] = low.repeat(4, axis=1).repeat(4, axis=2)
    return path


def trained(pictures: Path, folder: Path, **values):
    reporter = QuietReporter(folder)
    train_gan(ZarrPatches(pictures, 3, mpp=1.0), TrainGanConfig(**VALUES | values), reporter)
    return CheckpointStore(folder / "checkpoints").load_latest().state, figures_of(reporter.events)


def figures_of(events):
    return [e for e in events if e["kind"] == "metric"]


@pytest.fixture(scope="module")
def whole(pictures, tmp_path_factory):
    return trained(pictures, tmp_path_factory.mktemp("whole"))


def start_ranks(count: int, pictures: Path, folder: Path):
    import json

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-c",
        RANK,
        str(pictures),
        str(folder),
        json.dumps(VALUES | {"devices": count}),
    ]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    return [
        subprocess.Popen(
            command,
            env=os.environ | shared | {"LOCAL_RANK": str(rank), "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def assert_close(first, second):
    for name in ("generator", "average", "discriminator"):
        for key, value in first[name].items():
            assert torch.allclose(value, second[name][key], rtol=1e-3, atol=2e-5), (name, key)
    assert first["ada_p"] == pytest.approx(second["ada_p"])
    assert first["ada_p"] > 0
    assert torch.allclose(first["path_mean"], second["path_mean"], rtol=1e-4)
    assert first["images"] == second["images"] == 96
    assert first["patches"] == second["patches"]
    assert torch.equal(first["chance"], second["chance"])


def test_two_processes_take_the_steps_of_one(pictures, whole, tmp_path):
    pytest.importorskip("lightning_fabric")
    ranks = start_ranks(2, pictures, tmp_path)
    said = [rank.communicate(timeout=240)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    assert int(said[0].split()[-1]) > 0
    assert int(said[1].split()[-1]) == 0  # the second process reports nothing
    assert_close(whole[0], CheckpointStore(tmp_path / "checkpoints").load_latest().state)


def test_parts_of_a_batch_add_up_to_the_whole(pictures, whole, tmp_path):
    state, figures = trained(pictures, tmp_path, micro_batch=4)
    assert_close(whole[0], state)
    for a, b in zip(whole[1], figures, strict=True):
        for key in ("score_fake", "score_real", "sign_real", "r1", "sliced_wasserstein", "spread"):
            assert a[key] == pytest.approx(b[key], rel=2e-3, abs=1e-4), key


def test_the_comparison_would_notice_another_seed(pictures, whole, tmp_path):
    other, _ = trained(pictures, tmp_path, seed=1)
    with pytest.raises(AssertionError):
        assert_close(whole[0], other)


@pytest.mark.parametrize("preset", ["bgc", "bgcfnc"])
def test_a_share_is_augmented_as_within_its_batch(preset):
    images = torch.rand(8, 3, 16, 16) * 2 - 1
    pipe = AugmentPipe(preset)
    whole = pipe(images, 0.8, torch.Generator().manual_seed(5))
    for index in range(2):
        part = pipe(images[index::2], 0.8, torch.Generator().manual_seed(5), (index, 2))
        assert torch.allclose(part, whole[index::2], atol=1e-4)


def test_shares_of_a_source_are_the_whole(pictures):
    whole = ZarrPatches(pictures, 7).next_batch(60)
    for index in range(3):
        source = ZarrPatches(pictures, 7)
        source.take_share(index, 3)
        assert np.array_equal(source.next_batch(20), whole[index::3])
        assert source.state_dict()["position"] == 60
        source.load_state_dict({"seed": 7, "position": 30})
        assert np.array_equal(source.next_batch(5), whole[30 + index : 45 : 3])
        source.close()


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"devices": 3}, "batch 16 cannot be divided among 3 devices"),
        ({"devices": 2, "micro_batch": 5}, "16 on 2 devices, 8 on each, is no multiple of micro_batch 5"),
    ],
)
def test_batches_that_cannot_be_shared_are_refused(values, found):
    from napari_histogan.training.gan_networks import build_networks

    with pytest.raises(ConfigError, match=found):
        build_networks(16, TrainGanConfig(**VALUES | values))


def test_more_devices_than_processes_are_refused(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    compute = Compute(torch.device("cpu"), torch.float32, 1)
    with pytest.raises(ConfigError, match="devices is 4, but 1 processes were started"):
        Team.start(4, compute)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="devices is 1, but 2 processes were started"):
        Team.start(1, compute)


def test_without_fabric_one_device_works_and_two_are_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    compute = Compute(torch.device("cpu"), torch.float32, 1)
    assert Team.start(1, compute).size == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"Fabric is not installed.*histogan\[scale\]"):
        Team.start(2, compute)


def test_what_torchrun_and_slurm_say_is_understood():
    torchrun = {"WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"}
    slurm = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2", "SLURM_NTASKS": "16"}
    assert (processes_started(torchrun), machines(torchrun, 16)) == (16, 2)
    assert (processes_started(slurm), machines(slurm, 8)) == (8, 2)
    assert (processes_started({}), machines({}, 1)) == (0, 1)
    assert processes_started({"SLURM_NTASKS": "16"}) == 0

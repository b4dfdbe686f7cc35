"""A job on two devices is one run and one result, whoever started the processes."""

import subprocess
import sys

import pytest

from napari_histogan.config import TrainGanConfig, TrainSegmenterConfig, dump_config
from napari_histogan.jobs.runner import run_job_and_wait
from napari_histogan.models.generator_file import load_generator
from napari_histogan.models.segmenter import load_segmenter
from napari_histogan.project.store import Project

CONFIG = TrainGanConfig(
    preset="plain",
    kimg=0.032,
    batch=8,
    z_dim=8,
    w_dim=8,
    mapping_layers=2,
    channel_base=128,
    channel_max=8,
    tick_kimg=0.032,
    r1_every=2,
    threads=2,
    device="cpu",
    precision="float32",
)


def weights(project, number):
    return load_generator(project.artifacts("generator")[number].path).state_dict()


def test_two_devices_make_what_one_makes(tiny_project_copy):
    pytest.importorskip("lightning_fabric")
    project = tiny_project_copy
    for devices in (1, 2):
        status = run_job_and_wait(project.root, CONFIG.model_copy(update={"devices": devices}))
        assert status.state == "done", status.error
    project = Project.open(project.root)
    one, two = weights(project, -2), weights(project, -1)
    assert all(value.allclose(two[name], rtol=1e-3, atol=1e-4) for name, value in one.items())
    log = (project.runs()[-1] / "log.txt").read_text()
    assert "process 1 of 2" in log
    assert "process 2 of 2" in log


def test_an_error_of_the_first_process_ends_the_others(tiny_project_copy):
    pytest.importorskip("lightning_fabric")
    project = tiny_project_copy
    status = run_job_and_wait(project.root, CONFIG.model_copy(update={"devices": 2, "micro_batch": 3}))
    assert status.state == "failed"
    assert "8 on 2 devices, 4 on each, is no multiple of micro_batch 3" in status.error["message"]


def test_torchrun_starts_one_run_of_two_processes(tiny_project_copy, tmp_path):
    pytest.importorskip("lightning_fabric")
    project, settings = tiny_project_copy, tmp_path / "gan.toml"
    settings.write_text(dump_config(CONFIG.model_copy(update={"devices": 2})))
    before, made = len(project.runs()), len(project.artifacts("generator"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command += ["napari_histogan", "train-gan", str(project.root), "--config", str(settings), "--foreground"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    project = Project.open(project.root)
    assert len(project.runs()) == before + 1
    assert len(project.artifacts("generator")) == made + 1


NET = TrainSegmenterConfig(
    steps=4, batch=4, devices=2, width=4, depth=2, threads=2, device="cpu", precision="float32"
)


def test_a_segmenter_is_trained_on_two_devices(tiny_project_copy):
    pytest.importorskip("lightning_fabric")
    project = tiny_project_copy
    before = len(project.artifacts("segmenter"))
    status = run_job_and_wait(project.root, NET)
    assert status.state == "done", status.error
    project = Project.open(project.root)
    (made,) = project.artifacts("segmenter")[before:]
    assert made.config["devices"] == 2
    assert tuple(load_segmenter(made.path)[1].class_names) == tuple(project.classes.names)
    log = (project.runs()[-1] / "log.txt").read_text()
    assert "MEMBER: 1/2" in log
    assert "MEMBER: 2/2" in log

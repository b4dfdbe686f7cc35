"""Stages that follow a job: they wait in its folder, and start without the process that asked for them."""

import subprocess
import sys
import time

import pytest

from napari_histogan.config import SampleImagesConfig
from napari_histogan.jobs.runner import list_jobs, resume_job
from napari_histogan.project.run_chain import read_chain, take_chain, write_chain


def until(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.timeout(600)
def test_a_chain_outlives_the_process_that_started_it(painted_project_copy):
    root = painted_project_copy.root
    known = len(list_jobs(root))
    code = (
        "from napari_histogan.config import SampleImagesConfig as S\n"
        "from napari_histogan.jobs.runner import start_job\n"
        "then = [S(count=n, threads=1) for n in (4, 5)]\n"
        f"job = start_job({str(root)!r}, S(count=3, threads=1), then=then)\n"
        "import os, signal\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    until(lambda: len(list_jobs(root)) == known + 3 and not any(j.is_alive() for j in list_jobs(root)))
    assert [a.summary["count"] for a in painted_project_copy.artifacts("samples")[-3:]] == [3, 4, 5]
    assert [job.status().state for job in list_jobs(root)[-3:]] == ["done"] * 3


@pytest.mark.timeout(600)
def test_a_job_that_failed_keeps_its_chain_until_it_is_resumed(painted_project_copy):
    project = painted_project_copy
    run = project.new_run(SampleImagesConfig(count=3, threads=1))
    write_chain(run, [SampleImagesConfig(count=6, threads=1)])
    generator = project.artifacts("generator")[-1].path
    hidden = generator.with_name("hidden")
    generator.rename(hidden)
    from napari_histogan.jobs.worker import main

    assert main([str(run)]) != 0
    assert [config.count for config in read_chain(run)] == [6]
    hidden.rename(generator)
    resume_job(run)
    until(lambda: len(project.artifacts("samples")) == 3)
    assert read_chain(run) == []


def test_only_one_is_given_the_chain(tmp_path):
    write_chain(tmp_path, [SampleImagesConfig(count=3)])
    assert [config.count for config in take_chain(tmp_path)] == [3]
    assert take_chain(tmp_path) == []


def test_a_damaged_chain_holds_nothing(tmp_path):
    (tmp_path / "then.json").write_text('[{"stage": "no_such_stage"}]')
    assert read_chain(tmp_path) == []

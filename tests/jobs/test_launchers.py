"""Jobs on other machines: the same worker, reached by ssh or a cluster's queue, followed through its folder.

``ssh``, ``sbatch``, and ``squeue`` on PATH are small programs that do on this machine what the real ones
do on another: run what they were given in a shell of its own, or some time later.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from napari_histogan import __version__
from napari_histogan.config import TrainGanConfig
from napari_histogan.errors import ConfigError
from napari_histogan.jobs.job import Job
from napari_histogan.jobs.launchers import Launcher, parse_launcher
from napari_histogan.jobs.runner import resume_job, start_job
from napari_histogan.project.store import Project

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the stand-ins are shell scripts")

SSH = """#!/bin/sh
while [ "$1" = -o ]; do shift 2; done
[ "$1" = asleep ] && { echo "ssh: connect to host asleep port 22: No route to host" >&2; exit 255; }
shift
cd / && exec env -i HOME="$HOME" PATH=/usr/bin:/bin sh -c "$*"
"""

SBATCH = """#!/bin/sh
echo "$@" >> {folder}/asked
while [ "$1" != --wrap ]; do
  case "$1" in --output=*) log=${{1#--output=}};; --chdir=*) cd "${{1#--chdir=}}";; --partition=none)
    echo "sbatch: error: invalid partition specified: none" >&2; exit 1;; esac
  shift
done
touch {folder}/waiting
( while [ -e {folder}/hold ]; do sleep 0.05; done; rm {folder}/waiting; exec sh -c "$2" ) >> "$log" 2>&1 &
echo "4711;cluster"
"""

SQUEUE = """#!/bin/sh
[ -e {folder}/waiting ] && echo PENDING
exit 0
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-ins lie and leave their notes."""
    place = tmp_path / "bin"
    place.mkdir()
    for name, text in (("ssh", SSH), ("sbatch", SBATCH), ("squeue", SQUEUE)):
        (place / name).write_text(text if name == "ssh" else text.format(folder=place))
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(place), prepend=":")
    return place


def until(job: Job, state: str, seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while job.status().state != state:
        assert time.monotonic() < end, (job.status(), job.tail_log())
        time.sleep(0.02)


def test_words_name_a_launcher():
    assert parse_launcher("") == parse_launcher("local") == Launcher()
    assert parse_launcher("ssh me@gpu1") == Launcher("ssh", "me@gpu1")
    assert parse_launcher("ssh gpu1 '/opt/my tools/python'").python == "/opt/my tools/python"
    assert parse_launcher("slurm --gres=gpu:1 --time=4:00:00").options == ("--gres=gpu:1", "--time=4:00:00")


@pytest.mark.parametrize(
    "words",
    ["ssh", "ssh -oProxyCommand=evil", "ssh a b c", "slurm gpu", "slurm -p gpu", "cloud", "local 1", "ssh '"],
)
def test_other_words_are_refused_before_a_run_is_made(project: Project, words: str) -> None:
    with pytest.raises(ConfigError, match="launcher"):
        start_job(project.root, TrainGanConfig(), launcher=words)
    assert project.runs() == []


def test_a_job_by_ssh_is_followed_stopped_and_resumed(project: Project, stages: str, folder: Path) -> None:
    words = f"ssh gpu1 {sys.executable}"
    started = time.monotonic()
    job = start_job(project.root, TrainGanConfig(kimg=200), pipeline=stages, launcher=words)
    assert time.monotonic() - started < 2, "nobody waits for ssh"
    assert job.status().state == "queued"
    until(job, "running")
    while not any(event["kind"] == "metric" for event in job.events()[0]):
        time.sleep(0.02)
    job.request_stop()
    assert job.wait(40).state == "stopped"
    assert project.artifacts() == []
    assert resume_job(job.run_dir, pipeline=stages, launcher=words).wait(40).state == "done"
    steps = [event["step"] for event in job.events()[0] if event["kind"] == "metric"]
    assert steps == list(range(1, 201))
    assert project.artifact("", "generator").number == job.number


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("ssh asleep", "ssh asleep failed: .*No route to host.*try it in a terminal"),
        ("ssh gpu1 /no/such/python", "/no/such/python on gpu1 has .*not found.*install it there"),
        ("slurm --partition=none", "sbatch failed: .*invalid partition specified: none"),
    ],
)
def test_what_does_not_start_is_the_error_of_the_job(
    project: Project, stages: str, folder: Path, words: str, message: str
) -> None:
    job = start_job(project.root, TrainGanConfig(kimg=2), pipeline=stages, launcher=words)
    status = job.wait(40)
    assert status.state == "failed"
    assert status.error is not None
    import re

    assert re.search(message, status.error["message"]), status.error
    assert resume_job(job.run_dir, pipeline=stages, launcher="local").wait(40).state == "done"


def test_another_version_over_there_is_refused(project: Project, stages: str, folder: Path) -> None:
    python = folder / "python"
    python.write_text("#!/bin/sh\necho 0.0.1\n")
    python.chmod(0o755)
    status = start_job(project.root, TrainGanConfig(), launcher=f"ssh gpu1 {python}").wait(40)
    assert f"{python} on gpu1 has version 0.0.1. Expected: napari-histogan {__version__}" in str(status.error)


def test_a_job_waits_in_the_queue_and_takes_the_projects_setting(
    project: Project, stages: str, folder: Path
) -> None:
    (folder / "hold").touch()
    project.set_values(launcher="slurm --gres=gpu:1")
    job = start_job(project.root, TrainGanConfig(kimg=3), pipeline=stages)
    end = time.monotonic() + 40
    while not (folder / "waiting").exists() or "slurm" not in (job.run_dir / "process.json").read_text():
        assert time.monotonic() < end, job.tail_log()
        time.sleep(0.02)
    told = json.loads((job.run_dir / "process.json").read_bytes())
    (job.run_dir / "process.json").write_text(json.dumps({**told, "at": 0}))  # as after a long night
    assert job.status().state == "queued"
    (folder / "hold").unlink()
    assert job.wait(40).state == "done"
    asked = (folder / "asked").read_text()
    assert "--gres=gpu:1" in asked
    assert f"--job-name=histogan-{job.run_dir.name}" in asked


def test_a_job_that_left_the_queue_without_a_word_has_failed(
    project: Project, stages: str, folder: Path
) -> None:
    (folder / "sbatch").write_text("#!/bin/sh\necho 4712\n")  # taken, and canceled at once
    job = start_job(project.root, TrainGanConfig(kimg=3), pipeline=stages, launcher="slurm")
    status = job.wait(40)
    assert (status.state, (status.error or {})["type"]) == ("failed", "ProcessDied")

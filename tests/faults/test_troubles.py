"""What goes wrong around a job is told in its own words, and what was made stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_histogan import config as c
from napari_histogan.errors import SlideError
from napari_histogan.jobs.job import Job
from napari_histogan.pipeline import STAGE_FUNCTIONS
from napari_histogan.progress import QuietReporter
from napari_histogan.project.artifacts import verify_all
from napari_histogan.project.cleaning import leftovers, remove
from napari_histogan.project.runs import read_status
from napari_histogan.project.store import Project

HISTOGAN = f"{sys.executable} -P -m napari_histogan"


def in_own_mounts(script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script that may mount; nothing outside sees it."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount")
    command = ["unshare", "-m", "sh", "-ec", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform != "linux", reason="needs a disk of its own")
def test_a_disk_that_fills_up_costs_nothing_but_time(tiny_project_copy: Project, tmp_path: Path) -> None:
    size = sum(path.stat().st_size for path in tiny_project_copy.root.rglob("*") if path.is_file())
    disk, root = tmp_path / "disk", tmp_path / "disk" / "project"
    disk.mkdir()
    done = in_own_mounts(
        f"mount -t tmpfs -o size={size + (2 << 20)} disk {disk}; cp -r {tiny_project_copy.root} {root}\n"
        f"! {HISTOGAN} synthesize-dataset {root} --count 1000 --threads 1 2> {tmp_path}/said >&2\n"
        f"cat {tmp_path}/said >&2; grep -qE 'free some space|disk is full' {tmp_path}/said\n"
        f"{HISTOGAN} verify {root} | tail -1\n"
        f"mount -o remount,size={size + (20 << 20)} {disk}\n"
        f"{HISTOGAN} resume {root} | tail -1\n"
        f"{HISTOGAN} verify {root} | tail -1\n"
        f"find {root} -name '*.tmp-*' -o -name '*.partial' | wc -l\n"
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    before, resumed, after, temporary = lines[-4:]
    many = len(verify_all(tiny_project_copy.root))
    assert before == f"{many} of {many} results are whole"
    assert "done, datasets/" in resumed
    assert (after, temporary) == (f"{many + 1} of {many + 1} results are whole", "0")


@pytest.mark.skipif(sys.platform != "linux", reason="needs a disk of its own")
def test_a_project_that_may_no_longer_be_written_says_so(tiny_project_copy: Project) -> None:
    root = tiny_project_copy.root
    before = sorted(root.rglob("*"))
    done = in_own_mounts(
        f"mount --bind {root} {root}; mount -o remount,bind,ro {root}\n"
        f"{HISTOGAN} sample-images {root} --count 4 || echo ended with $?\n"
        f"{HISTOGAN} status {root} > /dev/null"
    )
    assert done.returncode == 0, done.stderr
    assert "ended with 1" in done.stdout
    assert "read-only" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(root.rglob("*")) == before


def obeying_modes() -> list[str]:
    """Return what goes before a command so that it obeys the modes of files, even if root runs the tests."""
    if os.geteuid() != 0:
        return []
    command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"]
    if shutil.which("setpriv") is None or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("root cannot give up its rights here")
    return command


def permit(root: Path, may_write: bool) -> None:
    """Give or take the permission to write anything in a folder."""
    for path in (root, *root.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | 0o200 if may_write else mode & ~0o222)


@pytest.mark.skipif(sys.platform == "win32", reason="modes of folders")
def test_a_permission_that_is_lost_amid_a_job_costs_nothing_but_time(tiny_project_copy: Project) -> None:
    root, before = tiny_project_copy.root, len(tiny_project_copy.artifacts())
    run_dir = tiny_project_copy.new_run(c.SynthesizeDatasetConfig(count=1024, batch=8, shard=32, threads=1))
    command = [*obeying_modes(), sys.executable, "-P", "-m", "napari_histogan.jobs.worker", str(run_dir)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as worker:
        try:
            while not any(event["kind"] == "metric" for event in Job(run_dir).events()[0]):
                assert worker.poll() is None, Job(run_dir).status()
                time.sleep(0.02)
            permit(root, may_write=False)
            said = worker.communicate(timeout=120)[1]
        finally:
            permit(root, may_write=True)
            worker.kill()
    assert worker.returncode == 1
    assert "may not be written" in said or "Permission denied" in said
    status = Job(run_dir).status()
    assert status.state == "failed"
    assert len(tiny_project_copy.artifacts()) == before
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert Job(run_dir).status().state == "done"
    assert not any(verify_all(root).values())
    assert len(tiny_project_copy.artifacts()) == before + 1
    remove(leftovers(root, settled_s=0.0))
    assert not [path for path in root.rglob("*") if ".tmp-" in path.name or path.suffix == ".partial"]


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_a_worker_without_memory_says_what_to_lower(tiny_project_copy: Project) -> None:
    config = c.TrainSegmenterConfig(steps=2, batch=1024, width=128, depth=2, threads=1)
    run_dir = tiny_project_copy.new_run(config)
    code = (
        "import resource, sys; from pathlib import Path; from napari_histogan import pipeline\n"
        "from napari_histogan.jobs.worker import main\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 700 * 2**20, resource.RLIM_INFINITY))\n"
        "sys.exit(main([sys.argv[1]]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run_dir)], capture_output=True, check=False)
    status = read_status(run_dir)
    assert (done.returncode, status.state) == (1, "failed")
    assert status.error is not None
    assert status.error["type"] == "OutOfMemory"
    assert "take a smaller batch" in status.error["message"]
    assert not tiny_project_copy._jobs.is_held()


@pytest.fixture
def mapped(tiny_project_copy: Project, tmp_path: Path) -> tuple[Project, Path]:
    """A project with a slide that may be changed."""
    slide = tmp_path / "slide.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.normal((200, 120, 170), 15, (300, 300, 3)).clip(0, 255).astype(np.uint8)).save(slide)
    add = c.AddSlidesConfig(paths=(slide,), mpp=1.0)
    STAGE_FUNCTIONS["add_slides"](tiny_project_copy, add, QuietReporter())
    return tiny_project_copy, slide


class Meddler(QuietReporter):
    """Does something to the slide when the first block is on disk."""

    def __init__(self, run_dir: Path, deed: Any) -> None:
        super().__init__(run_dir)
        self._deed = deed

    def event(self, kind: str, **data: Any) -> None:
        """Meddle once."""
        super().event(kind, **data)
        if kind == "block" and self._deed is not None:
            self._deed()
            self._deed = None


def test_a_slide_replaced_while_it_is_mapped_gives_no_heatmap(
    mapped: tuple[Project, Path], tmp_path: Path
) -> None:
    project, slide = mapped
    config = c.PredictHeatmapConfig(slide="slide", tile_px=64, threads=1)
    before, kept = len(project.artifacts("heatmap")), tmp_path / "kept.png"
    shutil.copyfile(slide, kept)

    def replace() -> None:
        Image.new("RGB", (300, 300), (180, 60, 120)).save(slide)

    with pytest.raises(SlideError, match="is not the one that was added"):
        STAGE_FUNCTIONS[config.stage](project, config, Meddler(tmp_path / "run", replace))
    assert len(project.artifacts("heatmap")) == before
    with pytest.raises(SlideError, match="put the old file back"):
        STAGE_FUNCTIONS[config.stage](project, config, QuietReporter(tmp_path / "run"))
    os.replace(kept, slide)
    assert STAGE_FUNCTIONS[config.stage](project, config, QuietReporter(tmp_path / "run")).kind == "heatmap"


def test_a_slide_deleted_while_it_is_mapped_is_mapped_to_the_end_and_missed_afterwards(
    mapped: tuple[Project, Path], tmp_path: Path
) -> None:
    project, slide = mapped
    config = c.PredictHeatmapConfig(slide="slide", tile_px=64, threads=1)
    made = STAGE_FUNCTIONS[config.stage](project, config, Meddler(tmp_path / "run", slide.unlink))
    assert made.summary["slide"] == "slide"
    with pytest.raises(SlideError, match=r"slide\.png"):
        STAGE_FUNCTIONS[config.stage](project, config, QuietReporter(tmp_path / "again"))


def test_a_run_folder_without_its_config_does_not_stop_the_others(tiny_project_copy: Project) -> None:
    run = tiny_project_copy.new_run(c.SampleImagesConfig())
    (run / "config.toml").unlink()
    (run / "status.json").write_bytes(b"\0" * 40)
    for options in ((), ("--json",)):
        command = [sys.executable, "-P", "-m", "napari_histogan", "status", str(tiny_project_copy.root)]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert run.name in done.stdout
    assert Job(run).status().state == "failed"

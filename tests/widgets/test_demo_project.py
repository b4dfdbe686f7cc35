"""Trying the demo starts the same command that people type."""

import time

import pytest

from napari_histogan.jobs.runner import list_jobs
from napari_histogan.widgets.demo_project import start_demo


@pytest.mark.timeout(120)
def test_project_appears_with_its_first_job(tmp_path):
    root = tmp_path / "demo"
    process = start_demo(root)
    try:
        end = time.monotonic() + 90
        while not ((root / "project.toml").exists() and list_jobs(root)):
            assert process.poll() is None, (tmp_path / "demo-log.txt").read_text()
            assert time.monotonic() < end
            time.sleep(0.1)
        assert list_jobs(root)[0].stage == "add_slides"
    finally:
        process.terminate()
        process.wait()
        for job in list_jobs(root):
            job.request_stop()
            job.wait(60)

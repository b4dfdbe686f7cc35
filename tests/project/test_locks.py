"""Locks keep processes apart, name their holder, and vanish with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from napari_histogan.errors import ProjectLocked, StorageError
from napari_histogan.geometry import Size
from napari_histogan.labels.classes import ClassTable
from napari_histogan.project.locks import ProjectLock
from napari_histogan.project.slide_list import SlideEntry
from napari_histogan.project.store import Project

HOLD = """
import sys, time
from napari_histogan.project.store import Project
with Project.open(sys.argv[1]).job_lock("train_gan"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(project: Project):
    """Another process that holds the job lock."""
    command = [sys.executable, "-c", HOLD, str(project.root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_holder_is_named_and_a_killed_one_lets_go(project: Project, holder) -> None:
    named = rf"process {holder.pid} on .* \(train_gan, since 20"
    with pytest.raises(ProjectLocked, match=named), project.job_lock("sample_images"):
        pytest.fail("two jobs at once")
    lock = ProjectLock(project.root, "jobs", "")
    assert lock.is_held()
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert lock.holder() is not None, "the note of the killed process is still there"
    assert not lock.is_held()
    with project.job_lock("sample_images", timeout=1):
        told = lock.holder()
        assert told is not None
        assert (told.pid, told.stage) == (os.getpid(), "sample_images")
    assert lock.holder() is None


def test_different_locks_do_not_meet(project: Project, holder) -> None:
    with project.studio_lock(), project.write_lock(timeout=0):
        project.set_classes(ClassTable.from_names(["a", "b"]))


def test_a_second_dock_is_told(project: Project) -> None:
    second = Project.open(project.root)
    with project.studio_lock():
        named = f"process {os.getpid()} .* has opened, for writing"
        with pytest.raises(ProjectLocked, match=named), second.studio_lock():
            pytest.fail("two docks that write")
        assert Project.open(project.root, read_only=True).read_only
    with second.studio_lock():
        pass


def test_a_lock_may_be_entered_twice_by_its_thread_and_not_by_another(project: Project) -> None:
    seen: list[str] = []

    def other() -> None:
        try:
            with project.write_lock(timeout=0):
                seen.append("in")
        except ProjectLocked:
            seen.append("out")

    with project.write_lock(), project.write_lock():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert seen == ["out"]
    other()
    assert seen == ["out", "in"]


def test_an_error_inside_lets_go(project: Project) -> None:
    with pytest.raises(ValueError, match="x"), project.write_lock():
        raise ValueError("x")
    assert not ProjectLock(project.root, "write", "").is_held()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(project: Project) -> None:
    project.root.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="cannot be written"), project.write_lock():
            pass
        assert Project.open(project.root).read_only
    finally:
        project.root.chmod(0o700)


def _add(root: Path, who: str) -> None:
    project = Project.open(root)
    for number in range(20):
        project.add_slide_entries([SlideEntry(f"{who}{number}", Path("/s"), 0.5, Size(1, 1))])
        project.set_values(**{f"{who}{number}": number})


def test_two_processes_that_write_one_project_lose_nothing(project: Project) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_add, args=(project.root, who)) for who in "ab"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        Project.open(project.root).slides()  # never sees half a file
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    expected = {f"{who}{number}" for who in "ab" for number in range(20)}
    opened = Project.open(project.root)
    assert {entry.name for entry in opened.slides()} == expected
    assert expected <= set(opened._document)

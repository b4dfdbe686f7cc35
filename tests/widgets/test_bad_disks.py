"""Projects on disks that take nothing, or nothing more, and devices that are not there: said in the dock."""

import shlex
import subprocess
import sys

import pytest
from other_window import window_command

from napari_histogan.project.store import Project

pytestmark = [pytest.mark.gui, pytest.mark.timeout(400)]
needs_mounts = pytest.mark.skipif(sys.platform != "linux", reason="needs a disk of its own")


def on_own_disk(mounting: str, root, acts: str) -> str:
    """Open a project in another window that alone sees what was mounted; returns what it said."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount")
    script = f"{mounting}\n{shlex.join(window_command(root, acts))}"
    command = ["unshare", "-m", "sh", "-ec", script]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=350, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-3000:]
    return ran.stdout


@needs_mounts
def test_project_on_a_disk_that_takes_nothing_is_for_looking(tiny_project_copy):
    root = tiny_project_copy.root
    before = sorted(root.rglob("*"))
    said = on_own_disk(
        f"mount --bind {root} {root}; mount -o remount,bind,ro {root}",
        root,
        """
print("said", dock.message.text())
while not dock.header.name.text():  # told a moment later
    QApplication.processEvents()
print("head", dock.header.name.text())
session.open_sample(5)
print("paint", session.painting.mask.editable)
for tab in ("samples", "train", "slides", "correct", "blocks", "labels", "patches"):
    dock.show_tab(tab)
    QApplication.processEvents()
print("start", dock.train.train_button.isEnabled(), dock.correct.retrain_button.isEnabled())
print("at the end", dock.message.text())
viewer.close()
""",
    )
    lines = dict(line.split(" ", 1) for line in said.splitlines() if " " in line)
    assert "looking only" in lines["said"]
    assert str(root) in lines["said"]
    assert "looking only" in lines["head"]
    assert lines["paint"] == "False"
    assert lines["start"] == "False False"
    assert "Errno" not in said
    assert sorted(root.rglob("*")) == before


@needs_mounts
def test_full_disk_is_told_in_plain_words_and_the_stroke_is_saved_once_there_is_room(
    tiny_project_copy, tmp_path
):
    root = tmp_path / "disk" / "project"
    root.parent.mkdir()
    said = on_own_disk(
        f"mount -t tmpfs -o size=64m disk {root.parent}; cp -r {tiny_project_copy.root} {root}",
        root,
        """
import numpy as np

from napari_histogan.config import SampleImagesConfig

session.open_sample(5)
stuffing = Path(session.project.root).parent / "stuffing"
with stuffing.open("wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
session.painting.mask.data_setitem((np.array([4]), np.array([4])), 1)
session.painting.flush()
print("stroke:", dock.message_bar.isVisible(), dock.message.text())
dock.message.setText("")
print("started:", session.run(SampleImagesConfig(count=4)), dock.message.text())
stuffing.unlink()
session.painting.flush()
print("saved:", session.project.load_mask(session.samples_artifact, 5)[4, 4])
viewer.close()
""",
    )
    stroke, started, saved = (
        next(line for line in said.splitlines() if line.startswith(word))
        for word in ("stroke:", "started:", "saved:")
    )
    for line in (stroke, started):
        assert "full" in line, said
        assert "free some space" in line
        assert "Errno" not in line
    assert stroke.startswith("stroke: True")
    assert started.startswith("started: False")
    assert saved == "saved: 1"


def test_device_that_is_not_there_is_told_before_anything_is_computed(opened):
    pytest.importorskip("torch")
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    panel = opened.dock.train
    opened.dock.show_tab("train")
    panel.show_step("sample_images")
    form = panel.form("sample_images")
    form.advanced.expand(animate=False)
    form.editor("device").set_value("cuda")
    before = len(Project.open(opened.session.project.root).artifacts("samples"))
    panel.start_button.click()
    opened.until(lambda: opened.errors(), 120)
    words = opened.dock.message.text()
    assert "cuda" in words
    assert "set device to auto" in words
    opened.until(panel.jobs.copy_button.isVisible, 30)
    assert "torch finds only: cpu" in panel.jobs.report_text()
    assert len(Project.open(opened.session.project.root).artifacts("samples")) == before

"""Make the pictures of the docs: open a project and save every tab as a PNG.

Usage: python docs/make_screenshots.py PROJECT [--out docs/images] [--size 1366x768] [--way WAY]

WAY is samples, blocks, labels, or patches; the last three are shown with the projects of
docs/make_example_projects.py.

Needs a display; without one: xvfb-run -a -s "-screen 0 1366x768x24" python docs/make_screenshots.py PROJECT
The project is only looked at: strokes are shown from its masks, nothing is started; its guide is hidden.
"""

from __future__ import annotations

import argparse
import atexit
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_SETTINGS = tempfile.mkdtemp()
atexit.register(shutil.rmtree, _SETTINGS, ignore_errors=True)
os.environ.setdefault("NAPARI_CONFIG", str(Path(_SETTINGS) / "settings.yaml"))
os.environ["XDG_CONFIG_HOME"] = _SETTINGS  # no list of the user's recent projects in the pictures

import napari
import numpy as np
from PIL import Image
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDockWidget

from napari_histogan.project.painted_pictures import PICTURES, picture_in
from napari_histogan.widgets.dock import HistoganDock
from napari_histogan.widgets.launch import open_dock

_PATIENCE_S = 400.0
"""So long a busy machine may take for a prediction; a picture without it would be of no use."""


def main() -> int:
    """Save the pictures; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images")
    parser.add_argument("--size", default="1366x768", help="of the window in pixels")
    parser.add_argument("--theme", choices=("dark", "light"), default="dark")
    parser.add_argument("--way", choices=("samples", "blocks", "labels", "patches"), default="samples")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    width, height = (int(side) for side in options.size.split("x"))
    viewer = napari.Viewer(title="HistoGAN")
    viewer.theme = options.theme
    viewer.window.resize(width, height)
    dock = open_dock(viewer)
    _until(lambda: dock.session is not None)
    save = lambda name: _save(viewer, options.out / f"dock-{name}.png")  # noqa: E731 - reads as a verb below
    if options.way == "samples":
        save("start")
    if not dock.open_project(options.project):
        sys.stderr.write(dock.message.text() + "\n")
        return 1
    viewer.window.resize(width, height)
    ways = {"samples": _tabs, "blocks": _blocks, "labels": _labels, "patches": _patches}
    ways[options.way](dock, viewer, save)
    viewer.close()
    return 0


def _tabs(dock: HistoganDock, viewer: Any, save: Callable[[str], None]) -> None:
    """Go through the tabs as a person does."""
    session = dock.session
    dock.message_bar.hide()
    _until(lambda: not dock.samples.look.pixmap().isNull(), _PATIENCE_S)
    if dock.guide.step is not None or not dock.guide.isVisible():
        dock.guide.show_guide()
    dock.guide.point()
    save("guide")
    dock.guide.hide_guide()
    dock.message_bar.hide()
    _until(lambda: False, 3.0)  # until the frame that points is gone
    painted = session.painted()
    patience = _PATIENCE_S if painted else 0
    if session.samples is not None:
        session.open_sample(painted[len(painted) // 2] if painted else 0)
        _until(lambda: session.painting.prediction.data.any(), patience)
        _until(lambda: bool(session.scores), patience)
        dock.show_tab("samples")
    save("samples")
    if session.samples is not None:
        dock.show_tab("paint")
        save("paint")
        session.painting.open_next()
        _until(lambda: session.painting.prediction.data.any(), patience)
        dock.paint.uncertainty_button.click()
        save("paint-uncertainty")
        dock.paint.uncertainty_button.click()
    dock.show_tab("train")
    trained = session.jobs.newest("train_segmenter") or session.jobs.newest()
    if trained is not None:
        dock.train.jobs.show_job(trained.number)
    save("train")
    dock.train.show_step("train_segmenter")
    _work(0.3)
    dock.train.area.ensureWidgetVisible(dock.train.form("train_segmenter"))
    save("train-settings")
    dock.show_tab("slides")
    save("slides")
    dock.slides.threshold.setValue(50)
    save("slides-threshold")
    dock.slides.threshold.setValue(0)
    dock.show_tab("correct")
    if session.slide_view.map is not None:
        dock.correct.place()
        save("correct")
        dock.correct.discard()


def _blocks(dock: HistoganDock, viewer: Any, save: Callable[[str], None]) -> None:
    """Show the blocks, one of them being estimated, and the sharpened mask beside them."""
    panel = dock.blocks
    dock.show_tab("blocks")
    _until(lambda: panel.queue is not None)
    dock.message_bar.hide()
    _hide_gallery(dock)
    panel.jobs.show_job(dock.session.jobs.newest("train_super_resolution").number)
    panel.result.mask_button.click()
    dock.session.slide_view.toggle_heatmap()
    save("blocks")
    panel.estimate_button.click()
    if not panel.estimating:  # every value has enough: show a block all the same
        panel.calibration.begin(panel.queue, dock.session.slide_view.reader, dock.session.project.classes)
        panel.estimate_button.setChecked(True)
        panel.calibration.show()
        panel._tell()
    panel.calibration.show_value(panel.queue.labels.values[len(panel.queue.labels.values) // 2])
    dock.message_bar.hide()
    save("blocks-estimate")
    panel.toggle_estimating()
    panel._end_estimating()
    panel._tell()
    dock.message_bar.hide()
    panel.result.mask_button.click()
    panel.result.beside_button.click()
    save("blocks-sharpened")


def _labels(dock: HistoganDock, viewer: Any, save: Callable[[str], None]) -> None:
    """Show slides with their labels and a map, and the loss with the curves of the calculator."""
    panel = dock.labels
    dock.show_tab("labels")
    _hide_gallery(dock)
    malign = [row for row in range(panel.table.rowCount()) if panel.table.item(row, 1).text() == "malign"]
    panel.open(panel.table.name(malign[-1]))
    panel.table.selectRow(malign[-1])
    _work(0.5)
    viewer.reset_view()  # the canvas has grown since the slide was opened
    dock.message_bar.hide()
    panel.loss.expand(animate=False)
    save("labels-loss")
    panel.loss.collapse(animate=False)
    _work(0.3)
    bar = panel.area.verticalScrollBar()
    bar.setValue(bar.maximum())
    save("labels-result")


def _patches(dock: HistoganDock, viewer: Any, save: Callable[[str], None]) -> None:
    """Show a painted picture, then the samples and losses of its training, and its map."""
    session, panel = dock.session, dock.patches
    folder = next(
        path for path in sorted((session.project.root / PICTURES).iterdir()) if (path / "masks").is_dir()
    )
    viewer.open(picture_in(folder), plugin="napari")
    dock.show_tab("patches")
    _hide_gallery(dock)
    _work(0.3)
    panel.painting.new_labels()
    with Image.open(folder / "masks" / f"{folder.name}.png") as mask:
        panel.painting.paint.data = np.asarray(mask)
    panel.mpp.setText("1")
    viewer.reset_view()
    dock.message_bar.hide()
    _work(0.5)
    save("patches")
    panel.jobs.show_job(session.jobs.newest("train_patch_gan").number)
    panel.maps.expect(panel.painting.picture, folder.name)
    panel.maps.show(folder.name)
    _work(0.5)
    bar = panel.area.verticalScrollBar()
    bar.setValue(panel.map_button.y() - 4)
    save("patches-map")


def _hide_gallery(dock: HistoganDock) -> None:
    """Make room for the slide; there are no samples on these ways."""
    for other in dock.window().findChildren(QDockWidget):
        if "Samples" in other.windowTitle():
            other.hide()


def _save(viewer: Any, path: Path) -> None:
    """Let the window settle and save it whole, the mouse in the middle of the canvas, where a person's is."""
    canvas = viewer.window._qt_viewer.canvas.native
    QTest.mouseMove(canvas, canvas.rect().center())
    _work(1.0)
    viewer.screenshot(str(path), canvas_only=False, flash=False)


def _work(seconds: float) -> None:
    """Let Qt work."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)


def _until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Let Qt work until something is so, or the time is over."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)


if __name__ == "__main__":
    sys.exit(main())

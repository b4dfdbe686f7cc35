"""The list of slides with thousands of rows: opened and filtered at once, thumbnails as they are seen."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_histogan.geometry import Size
from napari_histogan.project.slide_list import SlideEntry
from napari_histogan.widgets.slide_list import SlideList, _SlideItem

MANY = 5000
CPU_S = 1.0
"""Allowed for a list of 5,000 slides, and for a letter of the filter; CPU time, so that a busy machine does
not fail it."""


@pytest.fixture
def thumbnails(tmp_path: Path) -> list[Path]:
    """Two folders of thumbnails; the second has a newer one of the first slide, in red."""
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
    Image.new("RGB", (40, 30), (0, 0, 255)).save(old / "slide-00000.png")
    Image.new("RGB", (40, 30), (0, 0, 255)).save(old / "slide-00001.png")
    Image.new("RGB", (40, 30), (255, 0, 0)).save(new / "slide-00000.png")
    return [old, new]


def entries(count: int, path: Path) -> list[SlideEntry]:
    return [SlideEntry(f"slide-{k:05d}", path, 0.25, Size(800, 1000), f"{k:032x}") for k in range(count)]


def test_thousands_of_slides_open_and_are_filtered_at_once(
    qapp: QApplication, tmp_path: Path, thumbnails: list[Path]
) -> None:
    shown = SlideList()
    shown.resize(300, 400)
    shown.show()
    begun = time.process_time()
    shown.show_slides(entries(MANY, tmp_path / "gone.svs"), thumbnails)
    QApplication.processEvents()
    assert time.process_time() - begun < CPU_S
    read = [row for row in range(MANY) if "_icon" in vars(_item(shown, row))]
    assert 0 < len(read) < 50, "thumbnails of rows that nobody sees were read"
    shown.filter.show()
    begun = time.process_time()
    QTest.keyClicks(shown.filter, "499")
    QApplication.processEvents()
    assert time.process_time() - begun < 3 * CPU_S
    names = [entry.name for entry in entries(MANY, tmp_path)]
    assert shown.shown() == [name for name in names if "499" in name]
    assert shown.currentItem().data(Qt.ItemDataRole.UserRole) == "slide-00499"
    shown.filter.clear()
    assert len(shown.shown()) == MANY
    shown.close()


def _item(shown: SlideList, row: int) -> _SlideItem:
    item = shown.item(row)
    assert isinstance(item, _SlideItem)
    return item


def test_a_row_tells_its_slide_and_shows_the_newest_thumbnail(
    qapp: QApplication, tmp_path: Path, thumbnails: list[Path]
) -> None:
    there = tmp_path / "there.svs"
    there.touch()
    shown = SlideList()
    shown.show_slides([*entries(2, there), *entries(3, tmp_path / "gone.svs")[2:]], thumbnails)
    assert shown.filter.isHidden()
    assert shown.item(0).text() == "slide-00000\n1000 x 800 px, 0.25 um/px"
    assert shown.item(2).text().endswith("file is missing")
    colors = [shown.item(row).icon().pixmap(40, 30).toImage().pixelColor(5, 5).name() for row in (0, 1)]
    assert colors == ["#ff0000", "#0000ff"]
    assert shown.item(2).icon().isNull()
    assert shown.currentRow() == 0

"""What keeps the window from waiting: pixels read elsewhere, steps, pages made later, memory set aside."""

import gc
import time

import numpy as np
import pytest
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QApplication, QLabel
from scipy import ndimage

from napari_histogan.slides.reader import open_slide
from napari_histogan.widgets.old_memory import OldMemory
from napari_histogan.widgets.panels import Page, Panels
from napari_histogan.widgets.session_view import SessionView
from napari_histogan.widgets.slide_pixels import SlidePixels
from napari_histogan.widgets.threshold_outline import OutlineLevel
from napari_histogan.widgets.turns import Turns, at_once
from napari_histogan.widgets.wrapped_tabs import WrappedTabs

pytestmark = pytest.mark.gui


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        QApplication.processEvents()
        time.sleep(0.002)


# Pixels


@pytest.fixture
def pixels(qapp, demo_slide):
    made = SlidePixels(open_slide(demo_slide))
    yield made
    made.close()


def test_a_slide_is_there_at_once_and_becomes_exact(pixels, demo_slide):
    finest, coarsest = pixels.levels[0], pixels.levels[-1]
    box = np.s_[300:1100, 200:1300]
    with open_slide(demo_slide) as reader:
        levels = reader.pyramid()
        wanted, whole = np.asarray(levels[0][box]), np.asarray(levels[-1][:])
    before = np.asarray(finest[box])
    assert before.shape == wanted.shape
    assert not np.array_equal(before, wanted), "it was read while somebody waited"
    told = []
    pixels.arrived.connect(lambda: told.append(np.array_equal(np.asarray(finest[box]), wanted)))
    until(lambda: not pixels.waiting)
    assert told[-1]
    np.testing.assert_array_equal(coarsest, whole)
    np.testing.assert_array_equal(np.asarray(finest[310:320, 700:900, 1:2]), wanted[10:20, 500:700, 1:2])


def test_what_is_not_read_yet_is_the_coarsest_level_enlarged(pixels):
    until(lambda: not pixels.waiting)
    finest, coarsest = pixels.levels[0], pixels.levels[-1]
    factor = round(finest.shape[0] / coarsest.shape[0])
    blurred = np.asarray(finest[512:1024, 1024:1536])
    there = coarsest[512 // factor : 1024 // factor, 1024 // factor : 1536 // factor]
    assert np.abs(blurred[::factor, ::factor].astype(int) - there).mean() < 12, "another place is shown"


def test_everything_is_exact_for_whoever_asks_for_the_array(pixels, demo_slide):
    with open_slide(demo_slide) as reader:
        wanted = np.asarray(reader.pyramid()[0])
    np.testing.assert_array_equal(np.asarray(pixels.levels[0]), wanted)
    np.testing.assert_array_equal(pixels.levels[0][1000, 1000], wanted[1000, 1000])
    np.testing.assert_array_equal(pixels.levels[0][5:900:7, 0:500:3], wanted[5:900:7, 0:500:3])


class Broken:
    """A slide whose finest level cannot be read."""

    def __init__(self, reader):
        self._reader, self.closed = reader, False

    def pyramid(self):
        first, *others = self._reader.pyramid()
        first._read = self._fail
        return [first, *others]

    def _fail(self, *_):
        raise OSError("the drive is gone")

    def close(self):
        self._reader.close()
        self.closed = True


def test_a_part_that_cannot_be_read_is_told_once_and_closing_closes(qapp, demo_slide):
    broken = Broken(open_slide(demo_slide))
    pixels, told = SlidePixels(broken), []
    pixels.failed.connect(told.append)
    for _ in range(3):
        shown = np.asarray(pixels.levels[0][0:1200, 0:1200])
        until(lambda: not pixels.waiting)
    assert told == ["the drive is gone"]
    assert shown.any(), "the rest is shown"
    assert not broken.closed
    pixels.close()
    until(lambda: broken.closed)


# Outline


@pytest.mark.parametrize(
    "box", [np.s_[:, :], np.s_[7:60, 11:90], np.s_[0:5, 95:120], np.s_[40], np.s_[40, 30]]
)
def test_a_part_of_an_outline_is_that_part_of_the_whole(box):
    percent = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=(80, 120)), 4)
    percent = np.clip(50 + 400 * percent, 0, 100).astype(np.uint8)
    above = percent >= 50
    wanted = above & ~ndimage.binary_erosion(above, iterations=2, border_value=1)
    assert 0.02 < wanted.mean() < 0.5
    np.testing.assert_array_equal(np.asarray(OutlineLevel(percent, 50)[box]), wanted[box])


# Steps


def test_steps_are_done_one_by_one_and_the_latest_work_wins(qapp):
    turns, done = Turns(), []

    def steps(name, count):
        for k in range(count):
            done.append(f"{name}{k}")
            yield

    turns.begin(steps("a", 3))
    assert done == ["a0"]
    turns.begin(steps("b", 3))
    assert done == ["a0", "b0"]
    until(lambda: not turns.busy)
    assert done == ["a0", "b0", "b1", "b2"]
    turns.begin(steps("c", 3))
    turns.finish()
    assert done[-3:] == ["c0", "c1", "c2"]
    turns.begin(steps("d", 3))
    turns.drop()
    QApplication.processEvents()
    assert done[-1] == "d0"
    at_once(steps("e", 2))
    assert done[-2:] == ["e0", "e1"]


# Pages


class First(SessionView):
    pass


class Second(SessionView):
    def __init__(self):
        super().__init__()
        QLabel("second", self)


class Dock(QObject):
    first, second = Page(First), Page(Second)

    def __init__(self):
        super().__init__()
        self.tabs, self.made = WrappedTabs(), []
        kinds = {"first": First, "second": Second}
        titles = {"first": "One", "second": "Two"}
        self.panels = Panels(self.tabs, kinds, titles, lambda name, _page: self.made.append(name))


def test_pages_come_by_themselves_and_at_once_for_who_asks(qapp):
    dock = Dock()
    assert dock.panels.there() == []
    assert [dock.tabs.tabText(k) for k in range(2)] == ["1 One", "2 Two"]
    second = dock.second
    assert isinstance(second, Second)
    assert dock.second is second is dock.tabs.widget(1)
    assert dock.made == ["second"]
    dock.tabs.setCurrentIndex(1)
    until(lambda: dock.panels.done)
    assert dock.made == ["second", "first"], "a page is made once"
    assert dock.panels.there() == [dock.first, second]
    assert dock.tabs.currentIndex() == 1


# Memory


class Knot:
    def __init__(self):
        self.itself = self


def test_what_is_set_aside_is_given_back(qapp):
    gc.collect()
    before = gc.get_freeze_count()
    first, second = OldMemory(), OldMemory()
    first.set_aside()
    second.set_aside()
    assert gc.get_freeze_count() > before
    first.give_back()
    assert gc.get_freeze_count() > before, "another window still uses it"
    second.give_back()
    assert gc.get_freeze_count() == 0


def test_a_layer_that_goes_is_looked_for_before_all_is_set_aside_again(qapp):
    import weakref

    memory, knot = OldMemory(), Knot()
    seen = weakref.ref(knot)
    try:
        memory.set_aside()
        del knot
        gc.collect()
        assert seen() is not None, "what was set aside is not looked through"
        memory.look_again()
        memory.set_aside()  # must wait until everything was looked through
        assert gc.get_freeze_count() == 0
        gc.collect()
        assert seen() is None
        memory._set_aside_what_stayed()
        assert gc.get_freeze_count() > 0
    finally:
        memory.give_back()

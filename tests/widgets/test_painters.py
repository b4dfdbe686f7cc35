"""Widgets that paint themselves end their painters, also when something holds the frame of the call."""

import sys
import threading

import pytest
from qtpy.QtCore import qInstallMessageHandler
from qtpy.QtGui import QPixmap
from qtpy.QtWidgets import QApplication

from napari_histogan.widgets.beta_calculator import BetaCalculator
from napari_histogan.widgets.curve import CurveWidget
from napari_histogan.widgets.painters import painter_on

pytestmark = pytest.mark.gui
PAINTINGS = 60


@pytest.fixture
def warnings_of_qt(qapp):
    said: list[str] = []
    before = qInstallMessageHandler(lambda _kind, _context, text: said.append(text))
    yield said
    qInstallMessageHandler(before)


@pytest.fixture
def held_frames():
    """Hold what the main thread runs, as a profiler does, or the traceback of an error."""
    main, done, held = threading.get_ident(), threading.Event(), []

    def look() -> None:
        while not done.wait(0.0003):
            held.append(sys._current_frames().get(main))
            del held[:-20]

    thread = threading.Thread(target=look)
    thread.start()
    yield
    done.set()
    thread.join()


def curve() -> CurveWidget:
    widget = CurveWidget()
    for step in range(200):
        widget.add(step, "loss", step % 7)
    return widget


@pytest.mark.parametrize("make", [curve, BetaCalculator])
def test_no_painter_outlives_its_event(make, warnings_of_qt, held_frames):
    widget = make()
    widget.resize(320, 240)
    widget.show()
    for _ in range(PAINTINGS):
        widget.update()
        for child in widget.findChildren(type(widget).__mro__[1]):
            child.update()
        QApplication.processEvents()
    widget.close()
    widget.deleteLater()
    QApplication.processEvents()
    assert [text for text in warnings_of_qt if "painter" in text or "paint device" in text] == []


def test_painter_ends_when_drawing_fails(qapp):
    target, painters = QPixmap(8, 8), []

    def fail() -> None:
        with painter_on(target) as painter:
            painters.append(painter)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not painters[0].isActive()

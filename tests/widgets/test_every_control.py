"""Every control says what it does, can be reached by the keyboard, and no key of a tab means two things."""

from collections import Counter

import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QShortcut
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLineEdit,
    QListView,
    QScrollBar,
    QTableView,
    QWidget,
)

from napari_histogan.widgets.dock import TABS
from napari_histogan.widgets.gallery import GalleryDock

pytestmark = pytest.mark.gui
KINDS = (QAbstractButton, QComboBox, QAbstractSpinBox, QAbstractSlider, QLineEdit, QListView, QTableView)
OF_QT = ("QTableCornerButton", "QComboBoxPrivateContainer", "QComboBoxListView", "QHeaderView", "QScrollBar")


def controls_of(panel: QWidget) -> list[QWidget]:
    """Return the controls of a panel that we make, shown or not; parts that Qt makes itself are none."""
    found = {c for kind in KINDS for c in panel.findChildren(kind)}
    return [c for c in found if type(c).__name__ not in OF_QT and not isinstance(c, QScrollBar)]


def has_tip(control) -> bool:
    """Whether a control, or the compound control that it is a part of, has a tooltip."""
    parent = control.parentWidget()
    above = parent.parentWidget() if parent is not None else None
    return any(each is not None and each.toolTip() for each in (control, parent, above))


def is_reached(control) -> bool:
    """Whether the keyboard reaches a control, or the compound control that it is a part of."""
    parent = control.parentWidget()
    return any(
        each is not None and bool(each.focusPolicy() & Qt.FocusPolicy.TabFocus)
        for each in (control, parent, control.focusProxy())
    )


def told(controls) -> list[str]:
    return sorted(
        f"{type(c).__name__} {c.text() if hasattr(c, 'text') else ''!r} in {type(c.parentWidget()).__name__}"
        for c in controls
    )


@pytest.mark.parametrize("name", [*TABS, "start_page", "header", "guide", "tabs", "message_bar"])
def test_every_control_has_a_tooltip_and_a_way_for_the_keyboard(opened, name):
    controls = controls_of(getattr(opened.dock, name))
    assert controls
    assert told(c for c in controls if not has_tip(c)) == []
    assert told(c for c in controls if not is_reached(c)) == []


def test_the_gallery_is_no_exception(opened):
    controls = controls_of(opened.dock.window().findChild(GalleryDock))
    assert controls
    assert told(c for c in controls if not (has_tip(c) and is_reached(c))) == []


@pytest.mark.parametrize("tab", TABS)
def test_no_key_of_a_tab_has_two_meanings(opened, tab):
    opened.dock.show_tab(tab)
    shortcuts = [s for s in opened.dock.findChildren(QShortcut) if s.isEnabled()]
    keys = [key.toString() for s in shortcuts for key in s.keys()]  # noqa: SIM118 - a shortcut is no dict
    assert [key for key, count in Counter(keys).items() if count > 1] == []
    assert len(keys) > 10


@pytest.mark.parametrize("tab", TABS)
def test_a_key_brings_the_keyboard_into_the_tab_and_the_tab_key_on(opened, tab):
    opened.activate()
    opened.dock.show_tab(tab)
    opened.key("Alt+0")
    page, first = getattr(opened.dock, tab), QApplication.focusWidget()
    assert page.isAncestorOf(first)
    QTest.keyClick(first, Qt.Key.Key_Tab)
    opened.let_qt_work()
    assert QApplication.focusWidget() is not first
    opened.canvas.setFocus()


@pytest.mark.parametrize("tab", TABS)
def test_a_tab_fits_a_small_window(opened, tab):
    opened.dock.show_tab(tab)
    opened.let_qt_work()
    page = getattr(opened.dock, tab)
    assert page.minimumSizeHint().width() <= opened.dock.minimumWidth()
    assert page.area.horizontalScrollBar().maximum() == 0
    assert page.minimumSizeHint().height() <= 200

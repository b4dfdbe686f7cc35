"""Every control says what it does, and no two keys of one tab mean different things."""

from collections import Counter

import pytest
from qtpy.QtGui import QShortcut
from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QComboBox, QListWidget, QSlider, QTableView

pytestmark = pytest.mark.gui
KINDS = (QAbstractButton, QComboBox, QAbstractSpinBox, QSlider, QListWidget, QTableView)


def has_tip(control) -> bool:
    """Whether a control, or the compound control that it is a part of, has a tooltip."""
    parent = control.parentWidget()
    return bool(control.toolTip()) or (parent is not None and bool(parent.toolTip()))


@pytest.mark.parametrize("name", ["samples", "paint", "slides", "correct", "start_page", "header"])
def test_every_control_has_a_tooltip(opened, name):
    panel = getattr(opened.dock, name)
    controls = [c for kind in KINDS for c in panel.findChildren(kind)]
    # Parts that Qt makes itself: the corner of a table, the arrow of a field.
    controls = [
        c for c in controls if not type(c).__name__.startswith("QTableCorner") and c.isEnabledTo(panel)
    ]
    silent = [f"{type(c).__name__} {getattr(c, 'text', str)()!r}" for c in controls if not has_tip(c)]
    assert silent == []
    assert controls


@pytest.mark.parametrize("tab", ["paint", "slides", "correct"])
def test_no_key_of_a_tab_has_two_meanings(opened, tab):
    opened.dock.show_tab(tab)
    keys = [s.key().toString() for s in opened.dock.findChildren(QShortcut) if s.isEnabled()]
    assert [key for key, count in Counter(keys).items() if count > 1] == []
    assert len(keys) > 10

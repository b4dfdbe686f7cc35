"""Buttons and keys choose the same tools; keys rest while another tab is in front."""

import pytest

from napari_histogan.widgets.tool_bar import ToolBar


@pytest.fixture
def bar(qtbot):
    bar = ToolBar("correct")
    qtbot.addWidget(bar)
    return bar


def test_keys_and_buttons_agree(bar):
    chosen = []
    bar.tool_chosen.connect(chosen.append)
    for shortcut in bar.shortcuts:
        shortcut.activated.emit()
    for button in bar._group.buttons():
        button.click()
    assert chosen == ["paint", "erase", "fill", "polygon"] * 2


def test_showing_a_size_does_not_choose_it(bar):
    sizes = []
    bar.size_chosen.connect(sizes.append)
    bar.show_size(12)
    assert sizes == []
    bar.size.setValue(13)
    assert sizes == [13]


def test_keys_can_rest(bar):
    bar.set_keys_enabled(False)
    assert not any(shortcut.isEnabled() for shortcut in bar.shortcuts)

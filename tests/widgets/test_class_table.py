"""Classes are added, renamed, and recolored; wrong names are refused in words."""

import pytest
from qtpy.QtWidgets import QTableWidgetItem

from napari_histogan.labels.classes import ClassTable
from napari_histogan.widgets.class_table import ClassTableWidget


@pytest.fixture
def widget(qtbot):
    widget = ClassTableWidget()
    qtbot.addWidget(widget)
    widget.show_classes(ClassTable.from_names(["tumor", "stroma"]))
    return widget


def edits(widget):
    found = []
    widget.edited.connect(found.append)
    return found


def test_add(widget):
    found = edits(widget)
    widget.add_button.click()
    assert found[0].names == ("tumor", "stroma", "class 3")
    assert found[0][3].key == "3"
    assert len({info.color for info in found[0]}) == 3


def test_rename_by_editing_the_cell(widget):
    found = edits(widget)
    widget.table.item(1, 1).setText("fat")
    assert found[0].names == ("tumor", "fat")


def test_name_of_another_class_is_refused_and_the_old_one_shown_again(widget, qtbot):
    found = edits(widget)
    with qtbot.waitSignal(widget.refused) as refused:
        widget.table.item(1, 1).setText("Tumor")
    assert "share the name" in refused.args[0]
    assert not found
    assert widget.table.item(1, 1).text() == "stroma"


def test_recolor(widget):
    found = edits(widget)
    widget.recolor(2, "#123456")
    assert found[0][2].color == "#123456"


def test_choosing_a_row_tells_the_class_and_showing_one_does_not(widget):
    chosen = []
    widget.chosen.connect(chosen.append)
    widget.choose(2)
    assert chosen == []
    assert widget.chosen_index == 2
    widget.table.selectRow(0)
    assert chosen == [1]


def test_scarce_classes_are_marked(widget):
    widget.show_painted({1: 100_000, 2: 100}, {1: 5, 2: 1})
    assert widget.table.item(0, 2).text() == "100k px, 5 masks"
    assert widget.table.item(1, 2).text().endswith("low!")
    assert isinstance(widget.table.item(1, 2), QTableWidgetItem)

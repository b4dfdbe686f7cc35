"""Keys: listed in napari's preferences, changed there, followed by the dock, and shown in a table."""

import pytest
from napari.utils.interactions import Shortcut
from qtpy.QtCore import Qt
from qtpy.QtGui import QShortcut
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QTableWidget

from napari_histogan.widgets.shortcuts import BY_PLACE, PLACES, SHORTCUTS

pytestmark = pytest.mark.gui


def test_no_key_stands_twice_for_one_place():
    assert len(BY_PLACE) == len(SHORTCUTS)
    assert len({each.name for each in SHORTCUTS}) == len(SHORTCUTS)
    assert {each.where for each in SHORTCUTS} == set(PLACES)


def test_every_listed_key_is_there_and_every_key_is_listed(opened):
    from napari_histogan.widgets.keys import Key

    made = [key.shortcut for key in opened.dock.window().findChildren(Key)]
    assert set(made) == {each for each in SHORTCUTS if not each.fixed}
    assert len(made) == len(set(made))
    other = {key.key().toString() for key in opened.dock.findChildren(QShortcut) if not isinstance(key, Key)}
    assert other <= {*"0123456789", "?"}


@pytest.fixture
def preferences(opened):
    """napari's dialog at its page of shortcuts."""
    from napari._qt.dialogs.preferences_dialog import PreferencesDialog
    from napari._qt.widgets.qt_keyboard_settings import ShortcutEditor

    opened.activate()
    dialog = PreferencesDialog(parent=opened.dock.window())
    editor = dialog.findChild(ShortcutEditor)
    yield dialog, editor
    from napari.settings import get_settings

    dialog.close()
    dialog.deleteLater()
    get_settings().shortcuts.reset()
    opened.let_qt_work()


@pytest.fixture(autouse=True)
def _active(opened):
    opened.activate()
    opened.dock.show_tab("samples")


def row_of(table: QTableWidget, words: str) -> int:
    return next(row for row in range(table.rowCount()) if words in table.item(row, 0).text())


def test_a_key_is_changed_in_the_preferences_and_acts(opened, preferences):
    from napari.settings import get_settings

    _dialog, editor = preferences
    panel = opened.dock.paint
    opened.session.open_sample(0)
    table = editor._table
    listed = [table.item(row, 0).text() for row in range(table.rowCount())]
    assert sum(words.startswith("HistoGAN") for words in listed) == sum(not each.fixed for each in SHORTCUTS)
    row = row_of(table, "HistoGAN, Paint: Show or hide the uncertainty")
    assert table.item(row, 2).text() == "U"
    table.setCurrentCell(row, 2)
    table.item(row, 2).setText(Shortcut("Ctrl-Shift-U").platform)  # as napari's editor of cells does
    opened.let_qt_work()
    assert "Ctrl+Shift+U" in panel.uncertainty_button.text()
    assert "Ctrl+Shift+U" in panel.uncertainty_button.toolTip()
    opened.activate()
    opened.key("U")
    assert not opened.session.painting.look.uncertainty
    saved = [name for name in get_settings().shortcuts.shortcuts if "histogan" in name]
    assert saved == [BY_PLACE["paint", "U"].name]  # what stands as it was is not written down
    opened.key("Ctrl+Shift+U")
    assert opened.session.painting.look.uncertainty
    opened.key("Ctrl+Shift+U")


def test_the_settings_keep_a_key_and_reset_brings_it_back(opened, preferences):
    from napari.settings import get_settings

    _dialog, editor = preferences
    shortcut = BY_PLACE["slides", "J"]
    told = dict(get_settings().shortcuts.shortcuts)
    get_settings().shortcuts.shortcuts = {**told, shortcut.name: ["Ctrl+J"]}
    opened.let_qt_work()
    assert "Ctrl+J" in opened.dock.slides.review.unsure_button.text()
    editor._reset_shortcuts()
    opened.let_qt_work()
    assert "(J)" in opened.dock.slides.review.unsure_button.text()


def test_a_question_mark_shows_the_table(opened):
    from napari_histogan.widgets.key_help import KeyHelp

    opened.activate()
    opened.dock.show_tab("paint")
    QTest.keyClick(opened.canvas, Qt.Key.Key_Question, Qt.KeyboardModifier.ShiftModifier)
    opened.let_qt_work()
    dialog = opened.dock.window().findChild(KeyHelp)
    assert dialog is not None
    assert dialog.table.rowCount() == len(SHORTCUTS)
    QTest.keyClicks(dialog.field, "uncertainty")
    shown = [row for row in range(dialog.table.rowCount()) if not dialog.table.isRowHidden(row)]
    assert [dialog.table.item(row, 1).text() for row in shown] == ["U"]
    dialog.close()
    opened.let_qt_work()
    QApplication.processEvents()


def test_a_held_key_peeks_and_a_tap_stays(opened):
    opened.activate()
    opened.session.open_sample(0)
    look, canvas = opened.session.painting.look, opened.canvas
    QTest.keyPress(canvas, Qt.Key.Key_Q)
    opened.let_qt_work(0.5)
    assert look.alone
    QTest.keyRelease(canvas, Qt.Key.Key_Q)
    opened.let_qt_work()
    assert not look.alone
    QTest.keyClick(canvas, Qt.Key.Key_Q)
    opened.let_qt_work()
    assert look.alone
    QTest.keyClick(canvas, Qt.Key.Key_Q)
    opened.let_qt_work()
    assert not look.alone
    assert opened.session.painting.mask.visible


def test_a_slide_is_seen_alone_while_the_key_is_held(opened):
    opened.activate()
    opened.dock.show_tab("slides")
    view = opened.session.slide_view
    assert view.heat.visible
    QTest.keyPress(opened.canvas, Qt.Key.Key_Q)
    opened.let_qt_work(0.5)
    assert view.slide.visible
    assert not view.heat.visible
    assert opened.dock.slides.alone_button.isChecked()
    QTest.keyRelease(opened.canvas, Qt.Key.Key_Q)
    opened.let_qt_work()
    assert view.heat.visible
    assert not opened.dock.slides.alone_button.isChecked()
    opened.key("Q")
    opened.dock.show_tab("paint")
    assert not opened.session.peek.active

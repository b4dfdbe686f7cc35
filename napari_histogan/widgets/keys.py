"""Keys that people can change: they stand in napari's preferences, and the dock follows what is set there.

napari ignores keys in a plugin's manifest.  Its own list of actions is what Preferences > Shortcuts shows,
so every key of the dock is registered there under a keymap of no layer; what acts is Qt's shortcut, which
works wherever the mouse and the focus are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

from app_model.backends.qt import QKeyBindingSequence, qkeysequence2modelkeybinding
from napari.settings import get_settings
from napari.utils.action_manager import action_manager
from napari.utils.key_bindings import KeymapProvider, coerce_keybinding
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QPushButton, QWidget

from napari_histogan.widgets.shortcuts import BY_PLACE, PLACES, SHORTCUTS, Shortcut

_TOKEN = re.compile(r"\{([^{}]+)\}")
_LONG = {"Esc": "Escape", "Del": "Delete"}


class KeyBook(QObject):
    """The present key of every shortcut.

    Signals
    -------
    changed
        Name of an action whose key was changed.
    wanted
        Name of an action that napari was told to do.
    """

    changed = Signal(str)
    wanted = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._present: dict[str, tuple[str, ...]] = {}
        self._binding = False
        providers = {place: _keymap_of(place) for place in PLACES}
        for each in SHORTCUTS:
            self._present[each.name] = (each.key,)
            if not each.fixed:
                command = self._command(each.name)
                title = f"HistoGAN, {PLACES[each.where]}: {each.words}"
                action_manager.register_action(each.name, command, title, providers[each.where])
        self._take_settings()
        action_manager.events.shortcut_changed.connect(self._on_changed)
        get_settings().shortcuts.events.shortcuts.connect(self._take_settings)

    def keys(self, shortcut: Shortcut) -> tuple[str, ...]:
        """Return the present keys of a shortcut in Qt's portable words; none if it was taken away."""
        return self._present[shortcut.name]

    def _take_settings(self, _event: Any = None) -> None:
        """Bind what the preferences say; the keys of :data:`SHORTCUTS` where they say nothing."""
        told = get_settings().shortcuts.shortcuts
        for each in SHORTCUTS:
            if each.fixed:
                continue
            bindings = told.get(each.name)
            keys = (each.key,) if bindings is None else tuple(_from_napari(b) for b in bindings)
            if bindings is None or keys != self._present[each.name]:
                self._bind(each, keys)
        self._tidy()

    def _tidy(self) -> None:
        """Let napari save only keys that were changed: at its start it warns of each that nobody has yet."""
        settings = get_settings().shortcuts
        told = settings.shortcuts
        same = {each.name for each in SHORTCUTS if self._present[each.name] == (each.key,)} & set(told)
        if same:
            settings.shortcuts = {name: keys for name, keys in told.items() if name not in same}

    def _bind(self, shortcut: Shortcut, keys: tuple[str, ...]) -> None:
        self._binding = True
        try:
            action_manager.unbind_shortcut(shortcut.name)
            for key in keys:
                action_manager.bind_shortcut(shortcut.name, _to_napari(key))
        finally:
            self._binding = False
        self._note(shortcut.name, keys)

    def _note(self, name: str, keys: tuple[str, ...]) -> None:
        if keys != self._present[name]:
            self._present[name] = keys
            self.changed.emit(name)

    def _on_changed(self, event: Any) -> None:
        """Follow an edit in the preferences: first all keys of the action go, then the new ones come."""
        name = str(event.name)
        if self._binding or name not in self._present:
            return
        keys = self._present[name] if event.shortcut else ()
        if event.shortcut:
            keys = (*keys, _from_napari(event.shortcut))
        self._note(name, keys)

    def _command(self, name: str) -> Callable[[], None]:
        def act() -> None:
            self.wanted.emit(name)

        return act


@cache
def key_book() -> KeyBook:
    """Return the one book of this process; made at the first call."""
    return KeyBook()


class Key(QShortcut):
    """A shortcut that follows the preferences.

    Parameters
    ----------
    where, key
        Place and first key of one of :data:`~napari_histogan.widgets.shortcuts.SHORTCUTS`.
    slot
        What the key does.
    parent
        The key acts in its window.
    """

    def __init__(self, where: str, key: str, slot: Callable[..., Any], parent: QWidget) -> None:
        super().__init__(parent)
        self.shortcut = BY_PLACE[where, key]
        self._follow()
        self.activated.connect(slot)
        key_book().changed.connect(self._on_changed)
        key_book().wanted.connect(self._on_wanted)

    def _follow(self) -> None:
        self.setKeys([QKeySequence(key) for key in key_book().keys(self.shortcut)])

    def _on_changed(self, name: str) -> None:
        if name == self.shortcut.name:
            self._follow()

    def _on_wanted(self, name: str) -> None:
        if name == self.shortcut.name and self.isEnabled():
            self.activated.emit()


class KeyButton(QPushButton):
    """A button that a click gives no focus, so that the canvas keeps the keys; its words name its keys.

    Parameters
    ----------
    text
        First keys in braces, as in "Run  ({R})", are replaced by the present ones; in tooltips too.
    where
        Place of the keys.
    """

    def __init__(self, text: str, where: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._where, self._text, self._tip = where, "", ""
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setText(text)
        key_book().changed.connect(self._on_changed)

    def setText(self, text: str) -> None:  # noqa: N802 - Qt's name
        """Show words with the present keys."""
        self._text = text
        super().setText(keyed(text, self._where))

    def setToolTip(self, text: str) -> None:  # noqa: N802 - Qt's name
        """Set a tooltip with the present keys."""
        self._tip = text
        super().setToolTip(keyed(text, self._where))

    def _on_changed(self, _name: str) -> None:
        self.setText(self._text)
        self.setToolTip(self._tip)


def keyed(text: str, where: str) -> str:
    """Return words in which first keys in braces are replaced by the present ones."""
    return _TOKEN.sub(lambda found: key_words(where, found[1]), text)


def key_words(where: str, key: str) -> str:
    """Return the present key of a shortcut as people read it; "no key" if it was taken away."""
    return " or ".join(in_words(each) for each in key_book().keys(BY_PLACE[where, key])) or "no key"


def in_words(key: str) -> str:
    """Return a key as people read it."""
    if key not in {each.key for each in SHORTCUTS if each.fixed}:
        key = QKeySequence(key).toString(QKeySequence.SequenceFormat.NativeText)
    return key.replace("Return", "Enter")


def key_table() -> list[tuple[str, str, str]]:
    """Return place, present key, and meaning of every shortcut, in the order of the tabs."""
    return [
        (
            PLACES[each.where],
            in_words(each.key) if each.fixed else key_words(each.where, each.key),
            each.words,
        )
        for each in SHORTCUTS
    ]


def _keymap_of(place: str) -> type[KeymapProvider]:
    """Make a keymap that no layer and no viewer has; keys of two tabs may be the same."""
    return type(f"HistoGAN{place.capitalize()}", (KeymapProvider,), {})


def _to_napari(key: str) -> Any:
    return qkeysequence2modelkeybinding(QKeySequence(key))


def _from_napari(binding: Any) -> str:
    """Return a key of napari in Qt's words; its Enter is Qt's Return."""
    text = QKeyBindingSequence(coerce_keybinding(binding)).toString(QKeySequence.SequenceFormat.PortableText)
    return re.sub(r"\bEnter$", "Return", _LONG.get(text, text))

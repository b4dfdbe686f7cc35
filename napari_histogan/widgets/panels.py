"""The pages of the dock, made one after the other while people look at the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar, overload

from qtpy.QtCore import QObject, Qt, QTimer
from qtpy.QtWidgets import QApplication, QWidget

from napari_histogan.widgets.session_view import SessionView
from napari_histogan.widgets.wrapped_tabs import WrappedTabs

_STEP_MS = 20
"""Between two steps, so that clicks and keys are answered in between."""

P = TypeVar("P", bound=SessionView)


class Panels(QObject):
    """Makes the pages of the dock, one at a time and each in two steps: its controls, and their looks.

    Together they take half a second.  A page that somebody asks for, or whose tab comes to the front, is made
    at once.

    Parameters
    ----------
    tabs
        Where the pages go.
    kinds
        The pages' classes, by the names of their tabs.
    titles
        The titles of the tabs, by their names.
    made
        Called with the name and the page when one is made.
    """

    def __init__(
        self,
        tabs: WrappedTabs,
        kinds: dict[str, type[SessionView]],
        titles: dict[str, str],
        made: Callable[[str, SessionView], None],
    ) -> None:
        super().__init__(tabs)
        self._tabs, self._kinds, self._made = tabs, kinds, made
        self._names = list(kinds)
        self._there: dict[str, SessionView] = {}
        for number, name in enumerate(self._names, 1):
            tabs.addTab(QWidget(), f"{number} {titles[name]}")
        self._steps = self._make_all()
        self._timer = QTimer(self)
        self._timer.setInterval(_STEP_MS)
        self._timer.timeout.connect(self._step)
        self._timer.start()

    @property
    def done(self) -> bool:
        """Whether all pages are made."""
        return not self._timer.isActive()

    def there(self) -> list[SessionView]:
        """Return the pages that are made, in the order of the tabs."""
        return [self._there[name] for name in self._names if name in self._there]

    def get(self, name: str) -> SessionView:
        """Return a page; made now if it is not there yet."""
        if name not in self._there:
            self._place(name, self._kinds[name]())
        return self._there[name]

    def _place(self, name: str, page: SessionView) -> None:
        self._there[name] = page
        self._tabs.setPage(self._names.index(name), page)
        self._made(name, page)

    def _make_all(self) -> Iterator[None]:
        for name in self._names:
            if name in self._there:
                continue
            page = self._kinds[name]()
            yield
            if name in self._there:
                page.deleteLater()  # somebody needed it in between
            else:
                self._place(name, page)
                yield

    def _step(self) -> None:
        if QApplication.mouseButtons() != Qt.MouseButton.NoButton:
            return
        if next(self._steps, self) is self:
            self._timer.stop()


class Page(Generic[P]):
    """A page of a dock that has :class:`Panels`, as an attribute of it.

    Parameters
    ----------
    kind
        The page's class.
    """

    def __init__(self, kind: type[P]) -> None:
        self.kind = kind
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        """Note the name of the tab."""
        self._name = name

    @overload
    def __get__(self, dock: None, owner: type) -> Page[P]: ...
    @overload
    def __get__(self, dock: Any, owner: type) -> P: ...
    def __get__(self, dock: Any, owner: type) -> Page[P] | P:
        """Return the page; made now if it is not there yet."""
        if dock is None:
            return self
        page = dock.panels.get(self._name)
        if not isinstance(page, self.kind):
            raise TypeError(f"the page {self._name} is a {type(page).__name__}, not a {self.kind.__name__}")
        return page

"""The slides of a project: they are registered, never copied."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from napari_histogan.errors import ProjectDamaged, SlideNotFound
from napari_histogan.geometry import Size
from napari_histogan.project.atomic import TEMPORARY, read_json, write_json

FILE = "slides.json"


@dataclass(frozen=True, slots=True)
class SlideEntry:
    """One slide of a project.

    Parameters
    ----------
    name
        Unique in the project; how configs and people call it.
    path
        Where its file lies; absolute.
    mpp
        Microns per pixel of the full resolution.
    size
        Height and width of the full resolution in pixels.
    fingerprint
        See ``SlideReader.fingerprint``; tells whether the file was changed.
    stain
        ``colors``: its two stains as ``#rrggbb``; None if they are not known.
    relative
        Path relative to the project folder; filled in by the project, so that slide and
        project can move together.
    """

    name: str
    path: Path
    mpp: float
    size: Size
    fingerprint: str = ""
    stain: dict[str, Any] | None = None
    relative: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as it is stored."""
        return {
            "name": self.name,
            "path": str(self.path),
            "relative": self.relative,
            "mpp": self.mpp,
            "height": self.size.height,
            "width": self.size.width,
            "fingerprint": self.fingerprint,
            "stain": self.stain,
        }


def read_slides(root: Path) -> list[SlideEntry]:
    """Return the slides in the order in which they were added, their paths resolved.

    Raises
    ------
    ProjectDamaged
        If ``slides.json`` cannot be read.
    """
    return slides_from(read_json(root / FILE), root) if (root / FILE).exists() else []


def only_begun(root: Path) -> bool:
    """Whether a folder is empty but for what a project leaves whose making was killed: no slides yet."""
    others = [path.name for path in root.iterdir() if not path.name.startswith(f".{FILE}{TEMPORARY}")]
    others = [name for name in others if not name.startswith(f".project.toml{TEMPORARY}")]
    return not others or (others == [FILE] and (root / FILE).read_bytes().split() == [b"[]"])


def slides_from(rows: Any, root: Path) -> list[SlideEntry]:
    """Return the slides that the content of a ``slides.json`` lists.

    Raises
    ------
    ProjectDamaged
        If an entry is incomplete.
    """
    try:
        return [_resolved(_from_dict(row), root) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise ProjectDamaged(
            f"{FILE} of {root} has an incomplete entry: {error!r}", "entries as add-slides writes them"
        ) from error


def write_slides(root: Path, entries: Iterable[SlideEntry]) -> None:
    """Replace ``slides.json`` in one rename."""
    write_json(root / FILE, [_with_relative(entry, root).to_dict() for entry in entries])


def merged(present: Iterable[SlideEntry], new: Iterable[SlideEntry]) -> list[SlideEntry]:
    """Return the present slides with the new ones added; one of the same name is replaced."""
    by_name = {entry.name: entry for entry in present}
    by_name.update({entry.name: entry for entry in new})
    return list(by_name.values())


def find_slide(entries: list[SlideEntry], name: str) -> SlideEntry:
    """Return the slide called ``name``; "" is the first.

    Raises
    ------
    SlideNotFound
        Naming the slides that there are.
    """
    if not entries:
        raise SlideNotFound(
            "the project has no slides", "at least one", "add some: histogan add-slides PROJECT --paths FILE"
        )
    for entry in entries:
        if name in ("", entry.name):
            return entry
    names = ", ".join(entry.name for entry in entries)
    raise SlideNotFound(f"the project has no slide {name!r}", f"one of {names}", "check the name")


ALL = "all"
"""Every slide of a project, where slides are named."""


def names_several(entries: list[SlideEntry], words: str) -> bool:
    """Whether words are to name more than one slide: a pattern, a list, or :data:`ALL`."""
    return bool(words) and all(words != entry.name for entry in entries) and _is_list(words)


def find_several(entries: list[SlideEntry], words: str) -> list[SlideEntry]:
    """Return the slides that words name, in their order in the project, each once.

    Parameters
    ----------
    entries
        The project's slides.
    words
        "" for the first; a name; "all"; a pattern such as "case*"; or several of these, divided by commas.
        What is a slide's name as a whole means that slide.

    Raises
    ------
    SlideNotFound
        If a part of it fits no slide; names the slides that there are.
    """
    if not names_several(entries, words):
        return [find_slide(entries, words)]
    chosen = set()
    for word in (part.strip() for part in words.split(",")):
        if not word:
            continue
        pattern = "*" if word == ALL else word
        exact = [entry.name for entry in entries if entry.name == word]
        fitting = exact or [entry.name for entry in entries if fnmatchcase(entry.name, pattern)]
        chosen.update(fitting or [find_slide(entries, word).name])  # which says what there is
    return [entry for entry in entries if entry.name in chosen] or [find_slide(entries, words)]


def _is_list(words: str) -> bool:
    return words == ALL or any(sign in words for sign in ",*?[")


def _from_dict(row: dict[str, Any]) -> SlideEntry:
    """Read one stored entry."""
    return SlideEntry(
        name=str(row["name"]),
        path=Path(row["path"]),
        mpp=float(row["mpp"]),
        size=Size(int(row["height"]), int(row["width"])),
        fingerprint=str(row.get("fingerprint", "")),
        stain=row.get("stain"),
        relative=str(row.get("relative", "")),
    )


def _with_relative(entry: SlideEntry, root: Path) -> SlideEntry:
    """Store an absolute path and one relative to the project; other drives have none."""
    path = Path(os.path.abspath(entry.path))
    try:
        relative = Path(os.path.relpath(path, root)).as_posix()
    except ValueError:
        relative = ""
    return replace(entry, path=path, relative=relative)


def _resolved(entry: SlideEntry, root: Path) -> SlideEntry:
    """Find a slide that moved together with the project."""
    if entry.relative and not entry.path.exists():
        moved = Path(os.path.normpath(root / entry.relative))
        if moved.exists():
            return replace(entry, path=moved)
    return entry


class SlideNames:
    """The names of slides, one for each file.

    Parameters
    ----------
    entries
        Slides that have their names.
    """

    def __init__(self, entries: Iterable[SlideEntry] = ()) -> None:
        self._files = {entry.name: entry.path.resolve() for entry in entries}

    def take(self, path: Path) -> str:
        """Name a slide after its file, and remember it; another file of the same name gets a number."""
        file, name, number = path.resolve(), path.stem, 2
        while self._files.get(name, file) != file:
            name, number = f"{path.stem}-{number}", number + 1
        self._files[name] = file
        return name

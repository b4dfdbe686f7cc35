"""Slides have names of their own, quickly also where there are many."""

from __future__ import annotations

from pathlib import Path

from napari_histogan.geometry import Size
from napari_histogan.project.slide_list import SlideEntry, SlideNames


def entry(name: str, path: Path) -> SlideEntry:
    return SlideEntry(name, path, 0.5, Size(10, 10))


def test_files_of_one_name_are_told_apart_and_one_file_keeps_its_name(tmp_path: Path) -> None:
    first, second, third = (tmp_path / folder / "a.svs" for folder in ("x", "y", "z"))
    names = SlideNames([entry("a", first)])
    assert names.take(first) == "a"
    assert names.take(second) == "a-2"
    assert names.take(third) == "a-3"
    assert names.take(second) == "a-2"
    assert names.take(tmp_path / "b.svs") == "b"


def test_a_name_that_was_given_by_hand_is_not_given_twice(tmp_path: Path) -> None:
    names = SlideNames([entry("a-2", tmp_path / "other.svs"), entry("a", tmp_path / "a.svs")])
    assert names.take(tmp_path / "more" / "a.svs") == "a-3"

"""A file is written whole or not at all, and a refusing disk is told in plain words."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_histogan.errors import ProjectDamaged, SlideUnreadable, StorageError
from napari_histogan.project.atomic import (
    TEMPORARY,
    free_bytes,
    read_json,
    require_space,
    storage_errors,
    sync_tree,
    temporary_sibling,
    write_bytes,
    write_json,
)


@given(st.binary(max_size=2000), st.booleans())
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, durable: bool
) -> None:
    path = tmp_path_factory.mktemp("a") / "file"
    write_bytes(path, b"before")
    write_bytes(path, data, durable=durable)
    assert path.read_bytes() == data
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "file"
    write_bytes(path, b"before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"disk is full: [\d,]+ bytes are free .*at least 1,000 bytes"):
            write_bytes(path, bytes(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_json_survives_and_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": [1, None, "ä"]})
    assert read_json(path) == {"a": [1, None, "ä"]}
    path.write_text("{")
    for each in (path, tmp_path / "none.json"):
        with pytest.raises(ProjectDamaged, match=each.name):
            read_json(each)


def test_temporary_names_are_fresh_hidden_and_name_their_process(tmp_path: Path) -> None:
    names = {temporary_sibling(tmp_path / "0003").name for _ in range(50)}
    assert len(names) == 50
    assert all(name.startswith(f".0003{TEMPORARY}{os.getpid()}-") for name in names)


def test_space_is_asked_for_at_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    free = free_bytes(tmp_path / "not" / "yet")
    assert free > 0
    require_space(tmp_path, 0)
    with pytest.raises(StorageError, match="histogan clean"):
        require_space(tmp_path / "not" / "yet", 2 * free)


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "permissions")],
)
def test_the_words_of_the_system_become_ours(tmp_path: Path, number: int, words: str) -> None:
    with pytest.raises(StorageError, match=words) as caught, storage_errors(tmp_path):
        raise OSError(number, os.strerror(number))
    assert isinstance(caught.value, OSError)


def test_other_errors_pass_unchanged(tmp_path: Path) -> None:
    for error in (OSError(errno.EIO, "x"), SlideUnreadable("x"), ValueError("x")):
        with pytest.raises(type(error)) as caught, storage_errors(tmp_path):
            raise error
        assert caught.value is error


def test_a_tree_with_links_and_folders_can_be_synced(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("x")
    if os.name == "posix":
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    sync_tree(tmp_path)
    assert (tmp_path / "a" / "file").read_text() == "x"


def test_a_file_that_is_being_replaced_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Windows refuses to open a file for the moment of its replacement; other systems never do.
    write_json(tmp_path / "a.json", {"a": 1})
    whole, refusals = Path.read_bytes, [3]

    def refuse_at_first(path: Path) -> bytes:
        if refusals[0]:
            refusals[0] -= 1
            raise PermissionError(errno.EACCES, "used by another process")
        return whole(path)

    monkeypatch.setattr(Path, "read_bytes", refuse_at_first)
    assert read_json(tmp_path / "a.json") == {"a": 1}
    refusals[0] = 10_000
    with pytest.raises(ProjectDamaged, match="used by another process"):
        read_json(tmp_path / "a.json")

"""Read files and byte strings of ``torch.save`` without torch's loader: tensors and plain data only."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import torch

from napari_histogan.errors import DAMAGE, CheckpointError
from napari_histogan.models.pickle_records import Global, Name, Storage, refuse
from napari_histogan.models.safe_pickle import read_pickle

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
STORAGE_TYPES: dict[Name, torch.dtype] = {
    ("torch", "FloatStorage"): torch.float32,
    ("torch", "HalfStorage"): torch.float16,
    ("torch", "BFloat16Storage"): torch.bfloat16,
    ("torch", "DoubleStorage"): torch.float64,
    ("torch", "LongStorage"): torch.int64,
    ("torch", "IntStorage"): torch.int32,
    ("torch", "ShortStorage"): torch.int16,
    ("torch", "CharStorage"): torch.int8,
    ("torch", "ByteStorage"): torch.uint8,
    ("torch", "BoolStorage"): torch.bool,
}
_MENTIONED = frozenset(STORAGE_TYPES)


def storage_from_bytes(data: Any) -> Storage:
    """Read the one storage that a tensor inside a plain pickle brings along.

    Raises
    ------
    CheckpointError
        If it is anything else.
    """
    if not isinstance(data, bytes):
        raise refuse("a tensor's data are not bytes")
    content = read_legacy(data)
    if not isinstance(content, Storage):
        raise refuse("a tensor's data hold something else")
    return content


CONSTRUCTORS: dict[Name, Callable[..., Any]] = {("torch.storage", "_load_from_bytes"): storage_from_bytes}


def read_torch_file(data: bytes) -> Any:
    """Read what ``torch.save`` wrote, in its new (zip) or old layout.

    Raises
    ------
    CheckpointError
        If it is damaged, or holds more than tensors and plain data.
    """
    return _read_zip(data) if data[:4] == b"PK\x03\x04" else read_legacy(data)


def read_legacy(data: bytes) -> Any:
    """Read the layout of torch before 1.6, which tensors inside plain pickles still have.

    Four pickles (magic number, version, facts of the machine, content), one of the storages' keys, then for
    each storage its length as 8 bytes and its content.
    """
    # The data lie behind the pickle that refers to them, so it is read twice: first for its length.
    position = 0
    for expected in (MAGIC, PROTOCOL):
        value, used = read_pickle(data[position : position + 64])
        if value != expected:
            raise refuse("it is not of the layout that torch writes")
        position += used
    facts, used = read_pickle(data[position:])
    position += used
    if not isinstance(facts, dict) or facts.get("little_endian") is False:
        raise refuse("it was written by a machine of another byte order")
    found: dict[str, tuple[torch.dtype, int]] = {}

    def note(identity: Any) -> Storage:
        key, dtype, count = _parse_identity(identity)
        found[key] = dtype, count
        return Storage.from_bytes(dtype, b"")

    start = position
    _, used = read_pickle(data[start:], extra=_PLACEHOLDERS, mentioned=_MENTIONED, persistent=note)
    keys, more = read_pickle(data[start + used :])
    position = start + used + more
    contents: dict[str, Storage] = {}
    for key in keys:
        dtype, count = found[key] if isinstance(key, str) and key in found else (torch.uint8, -1)
        (length,) = struct.unpack_from("<q", data, position) if len(data) >= position + 8 else (-1,)
        end = position + 8 + count * dtype.itemsize
        if count < 0 or length != count or end > len(data):
            raise CheckpointError("the data of a tensor are cut off", "a complete file", "copy it again")
        contents[key] = Storage.from_bytes(dtype, data[position + 8 : end])
        position = end
    return read_pickle(
        data[start:],
        extra=CONSTRUCTORS,
        mentioned=_MENTIONED,
        persistent=lambda identity: contents[_parse_identity(identity)[0]],
    )[0]


_PLACEHOLDERS: dict[Name, Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): lambda *_: None,
    ("torch._utils", "_rebuild_parameter"): lambda *_: None,
}


def _read_zip(data: bytes) -> Any:
    """Read the layout of torch since 1.6: a zip of one pickle and a file per storage."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = {info.filename: info for info in archive.infolist()}
        (pickled,) = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise CheckpointError(
            f"the zip file is not one that torch writes ({error})", "a complete .pt file", "copy it again"
        ) from error
    folder = pickled.removesuffix("data.pkl")

    def member(name: str) -> bytes:
        info = members.get(name)
        if info is None or info.compress_type != zipfile.ZIP_STORED or info.file_size > len(data):
            raise refuse(f"the part {name!s:.60} in it is missing or compressed")
        try:
            return archive.read(info)
        except (zipfile.BadZipFile, *DAMAGE) as error:
            raise CheckpointError(f"the part {name} is damaged ({error})", "", "copy it again") from error

    contents: dict[str, Storage] = {}

    def find(identity: Any) -> Storage:
        key, dtype, count = _parse_identity(identity)
        if key not in contents:
            contents[key] = Storage.from_bytes(dtype, member(f"{folder}data/{key}"))
        if contents[key].flat.dtype != dtype or contents[key].flat.numel() != count:
            raise refuse("a tensor in it has data of another length")
        return contents[key]

    return read_pickle(member(pickled), extra=CONSTRUCTORS, mentioned=_MENTIONED, persistent=find)[0]


def _parse_identity(identity: Any) -> tuple[str, torch.dtype, int]:
    """Return key, number type, and count of a storage's persistent id."""
    if isinstance(identity, tuple) and len(identity) in (5, 6) and identity[0] == "storage":
        _, kind, key, _location, count, *view = identity
        known = isinstance(kind, Global) and kind in STORAGE_TYPES and isinstance(key, str)
        if known and type(count) is int and count >= 0 and view in ([], [None]):
            return key, STORAGE_TYPES[kind], count
    raise refuse("it refers to data in a way that torch does not")

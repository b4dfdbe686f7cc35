"""What a foreign pickle is read into: plain records, and the constructors that its names stand for.

A constructor here takes the place of the function or class that a file names. None of them imports, calls, or
changes anything; each checks what it is given.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_histogan.errors import CheckpointError

MAX_SOURCE = 1 << 20
MAX_AXES = 8
MAX_NAMES = 10_000
Name = tuple[str, str]
Scalar = str | bytes | int | float | bool | None


class Global(NamedTuple):
    """A name that the file refers to; only a key of a table, never the thing itself."""

    module: str
    name: str


class Storage(NamedTuple):
    """The numbers behind one or more tensors, in a row."""

    flat: Tensor

    @classmethod
    def from_bytes(cls, dtype: torch.dtype, data: bytes) -> Storage:
        """Read little-endian numbers."""
        return cls(torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype))


@dataclass
class ModuleRecord:
    """A network module as the official PyTorch code stores it.

    Attributes
    ----------
    class_name
        Of the module.
    state
        Its attributes, among them ``_parameters``, ``_buffers``, and ``_modules``.
    source_sha256
        Hash of the program text that came with it and was dropped.
    """

    class_name: str
    state: dict[str, Any]
    source_sha256: str


@dataclass
class StateRecord:
    """An object of which only the state is kept: a legacy TensorFlow network, or a bag of settings."""

    name: Global
    state: dict[str, Any] = field(default_factory=dict)


@dataclass
class DtypeRecord:
    """A numpy number type, by its code."""

    code: str
    order: str = "<"


@dataclass
class ArrayRecord:
    """An array whose content comes later."""

    value: NDArray[Any] | None = None


# Constructors of the names that checkpoints use -------------------------------------------------------------


def refuse(found: str) -> CheckpointError:
    """Return the error for a file that does what no checkpoint does."""
    # Names in a hostile file may hold anything; messages go to terminals and logs.
    shown = "".join(c if c.isascii() and c.isprintable() else f"\\u{ord(c):04x}" for c in found)
    return CheckpointError(
        f"the file is refused: {shown}",
        "a checkpoint as the official programs write it",
        "get the file from its authors again, and do not open it with other programs before you trust it",
    )


def _module(meta: Any) -> ModuleRecord:
    if not isinstance(meta, dict) or meta.get("type") != "class" or not isinstance(meta.get("state"), dict):
        raise refuse("a module in it has no state")
    source, name = meta.get("module_src"), meta.get("class_name")
    if not isinstance(name, str) or not (name.isidentifier() and name.isascii()):
        raise refuse("a module in it has an odd name")
    if not isinstance(source, str) or len(source) > MAX_SOURCE:
        raise refuse("a module in it has no program text, or an odd one")
    digest = hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()
    return ModuleRecord(name, meta["state"], digest)


def _dict(pairs: Any = ()) -> dict[Any, Any]:
    items = pairs.items() if isinstance(pairs, dict) else pairs
    return {plain_key(key): value for key, value in items}


def _set(items: Any = ()) -> set[Any]:
    return {plain_key(item) for item in items}


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise refuse("it encodes something that is not text")
    return text.encode("latin1")


_NUMPY_CODES = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"})


def _dtype(code: Any, *_: Any) -> DtypeRecord:
    if not isinstance(code, str) or code not in _NUMPY_CODES:
        raise refuse(f"it holds numpy values of type {code!r:.40}")
    return DtypeRecord(code)


def numpy_values(dtype: Any, data: Any) -> NDArray[Any]:
    """Return bytes as numbers, one-dimensional.

    Raises
    ------
    CheckpointError
        If there is no number type, or there are no bytes.
    """
    if isinstance(data, str):
        data = data.encode("latin1")
    if not isinstance(dtype, DtypeRecord) or not isinstance(data, bytes):
        raise refuse("it holds a numpy value without type or bytes")
    return np.frombuffer(data, np.dtype(dtype.order + dtype.code))


def _numpy_scalar(dtype: Any, data: Any) -> bool | int | float:
    values = numpy_values(dtype, data)
    if values.size != 1:
        raise refuse("it holds a numpy number that is not one number")
    return cast("bool | int | float", values[0].item())


def _array(kind: Any, *_: Any) -> ArrayRecord:
    if kind != Global("numpy", "ndarray"):
        raise refuse("it builds an array of a foreign type")
    return ArrayRecord()


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """View a storage as a tensor, if it is large enough."""
    numbers = (offset, *size, *stride)
    sound = isinstance(storage, Storage) and len(size) == len(stride) <= MAX_AXES
    if not sound or not all(type(n) is int and 0 <= n < 2**40 for n in numbers):
        raise refuse("a tensor in it has no data, or odd sizes")
    count, available = math.prod(size), storage.flat.numel()
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if count else -1
    if last >= available or count > available:
        raise refuse(f"a tensor of {count} numbers in it has only {available}")
    if not count:
        return torch.empty(0, dtype=storage.flat.dtype)
    # A view: however often a file refers to its data, they take the same memory.
    view: Tensor = storage.flat.as_strided(size, stride, offset)
    return view


def _parameter(tensor: Any, *_: Any) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise refuse("a parameter in it is not a tensor")
    return tensor


CONSTRUCTORS: dict[Name, Callable[..., Any]] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _module,
    ("dnnlib.util", "EasyDict"): _dict,
    ("dnnlib", "EasyDict"): _dict,
    ("collections", "OrderedDict"): _dict,
    ("builtins", "set"): _set,
    ("__builtin__", "set"): _set,
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "scalar"): _numpy_scalar,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}
"""What a file may call, and what is called instead."""

STATEFUL = frozenset({("dnnlib.tflib.network", "Network"), ("argparse", "Namespace")})
"""Classes of which a record of their state is kept."""

MENTIONED = frozenset({("numpy", "ndarray")})
"""Names that may be given to a constructor, but not called."""


def plain_key(key: Any) -> Scalar:
    """Return a key if it is plain; hashing nested tuples could exhaust the stack."""
    if not isinstance(key, str | bytes | int | float | None):
        raise refuse(f"it has a {type(key).__name__} as a key")
    if isinstance(key, str) and not (key.isascii() and key.isprintable()):
        raise refuse(f"it has the name {key:.60}")
    return key


def plain_array(value: Any) -> NDArray[Any]:
    """Return the numpy array of a record.

    Raises
    ------
    CheckpointError
        If it is no array, or has no content.
    """
    if not isinstance(value, ArrayRecord) or value.value is None:
        raise refuse("a weight in it is no array")
    return value.value


def text_dict(value: object, what: str) -> dict[str, Any]:
    """Return a dict whose keys are text.

    Raises
    ------
    CheckpointError
        If `value` is something else.
    """
    if (
        not isinstance(value, dict)
        or len(value) > MAX_NAMES
        or not all(isinstance(key, str) for key in value)
    ):
        raise refuse(f"{what} in it is a {type(value).__name__}, not a table of names")
    return value

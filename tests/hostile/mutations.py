"""Damage files: bytes at random places, and the values of JSON documents."""

from __future__ import annotations

import copy
import json
import random
import struct
from typing import Any

TOKENS = (
    b"\x00" * 8,
    b"\xff" * 8,
    b"\x7f\xff\xff\xff",
    b"../../outside",
    b"/etc/passwd",
    b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]>&b;",
    b"<!ENTITY c '&b;&b;&b;&b;'>",
    b"[" * 2000,
    b"{" * 50,
    b"1e999",
    b"NaN",
    b"-1",
    b"99999999999999999999",
    b"\xed\xa0\x80",
    b"cos\nsystem\n(S'true'\ntR.",
    b"\x1b[2J",
)

VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    1 << 31,
    1 << 62,
    10**30,
    1e308,
    -1e-308,
    "",
    "..",
    "../../../outside",
    "/etc/passwd",
    "file:///etc/passwd",
    "\u0000",
    "\u202e\x1b[2J",
    "x" * 5000,
    [],
    {},
    [[]] * 50,
    [1 << 40, 1 << 40],
    {"a": {"b": {"c": []}}},
)


def damaged(data: bytes, rng: random.Random, seeds: list[bytes]) -> bytes:
    """Return a mutated copy of ``data``; every kind of damage comes up in turn by chance."""
    if rng.random() < 0.35 and (mutated := _damaged_json(data, rng)) is not None:
        return mutated
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        _damage_bytes(out, rng, seeds)
    return bytes(out)


def _damage_bytes(out: bytearray, rng: random.Random, seeds: list[bytes]) -> None:
    # Headers and directories lie at the ends of most files.
    length = len(out)
    near = min(length, 512)
    place = rng.choice((rng.randrange(length + 1), rng.randrange(near + 1), length - rng.randrange(near + 1)))
    kind = rng.randrange(8)
    if kind == 0 and length:
        out[min(place, length - 1)] ^= 1 << rng.randrange(8)
    elif kind == 1:
        out[place : place + 1] = bytes([rng.randrange(256)])
    elif kind == 2:
        size = rng.choice((1, 2, 4, 8))
        value = rng.choice((0, 1, -1, 1 << (size * 8 - 1), (1 << (size * 8)) - 2, rng.getrandbits(size * 8)))
        order = rng.choice("<>")
        packed = struct.pack(f"{order}Q", value & ((1 << 64) - 1))
        out[place : place + size] = packed[:size] if order == "<" else packed[-size:]
    elif kind == 3:
        del out[place:]
    elif kind == 4:
        del out[place : place + rng.randrange(1, 64)]
    elif kind == 5:
        token = rng.choice(TOKENS)
        out[place : place + rng.choice((0, len(token)))] = token
    elif kind == 6:
        out[place:place] = out[place : place + rng.randrange(1, 256)] * rng.choice((1, 2, 50))
    else:
        other = rng.choice(seeds)
        start = rng.randrange(len(other) + 1)
        out[place : place + 64] = other[start : start + 64]


def _damaged_json(data: bytes, rng: random.Random) -> bytes | None:
    """Return a JSON document with some of its values replaced; None if it is no JSON."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict | list):
        return None
    document = copy.deepcopy(document)
    for _ in range(rng.choice((1, 1, 2, 5))):
        places = list(_places(document))
        if not places:
            break
        holder, key = rng.choice(places)
        what = rng.randrange(4)
        if what == 0:
            del holder[key]
        elif what == 1 and isinstance(holder, dict):
            holder[str(rng.choice(VALUES))] = holder.pop(key)
        elif what == 2:
            holder[key] = [holder[key]] * rng.choice((1, 2, 100))
        else:
            holder[key] = copy.deepcopy(rng.choice(VALUES))  # it may be damaged in turn
    return json.dumps(document).encode()


def _places(node: Any) -> Any:
    """Yield every (container, key) of a document."""
    items = list(node.items()) if isinstance(node, dict) else list(enumerate(node))
    for key, value in items:
        yield node, key
        if isinstance(value, dict | list):
            yield from _places(value)

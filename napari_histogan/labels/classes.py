"""The classes that people paint: number, name, color, and key.

In a mask 0 means unlabeled and 1 to K are classes.  A network gives K logits;
its logit ``k`` stands for class ``k + 1``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histogan.errors import LabelError

UNLABELLED = 0
"""Value of a mask pixel that nobody painted."""

MAX_CLASSES = 255
"""Masks are uint8 and 0 is taken."""

PALETTE = (
    "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999999", "#882255",
)  # fmt: skip
"""Default colors: those of Okabe and Ito, told apart by color-blind eyes, and two more."""

_COLOR = re.compile(r"#[0-9a-f]{6}")


@dataclass(frozen=True, slots=True)
class ClassInfo:
    """One class.

    Parameters
    ----------
    index
        Value in masks, 1 to 255.
    name
        What people read; not empty.
    color
        ``#rrggbb``; kept in lower case.  Empty takes the palette's.
    key
        Key that chooses the class, "1" to "9".  None takes the index, or "" above nine.

    Raises
    ------
    LabelError
        If a field is out of its range.
    """

    index: int
    name: str
    color: str = ""
    key: str | None = None

    def __post_init__(self) -> None:
        """Fill in color and key, and check every field."""
        if not 1 <= self.index <= MAX_CLASSES:
            raise LabelError(f"class {self.name!r} has number {self.index}", f"1 to {MAX_CLASSES}")
        name = self.name.strip()
        if not name or any(ord(c) < 32 for c in name):
            raise LabelError(f"class {self.index} has the name {self.name!r}", "a name of visible letters")
        color = (self.color or PALETTE[(self.index - 1) % len(PALETTE)]).lower()
        if not _COLOR.fullmatch(color):
            raise LabelError(f"class {name!r} has the color {self.color!r}", "#rrggbb, such as #56b4e9")
        key = self.key if self.key is not None else (str(self.index) if self.index <= 9 else "")
        if key and (len(key) != 1 or key not in "123456789"):
            raise LabelError(f"class {name!r} has the key {key!r}", 'one of "1" to "9", or none')
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "color", color)
        object.__setattr__(self, "key", key)

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green, and blue, 0 to 255."""
        return int(self.color[1:3], 16), int(self.color[3:5], 16), int(self.color[5:7], 16)

    def to_dict(self) -> dict[str, Any]:
        """Return the class as it is stored."""
        return {"index": self.index, "name": self.name, "color": self.color, "key": self.key or ""}


@dataclass(frozen=True, slots=True)
class ClassTable:
    """The classes of a project, numbered 1 to K without gaps.

    Parameters
    ----------
    classes
        In any order; kept in the order of their numbers.

    Raises
    ------
    LabelError
        If numbers leave gaps, or two classes share a number, name, or key.
    """

    classes: tuple[ClassInfo, ...] = ()

    def __post_init__(self) -> None:
        """Sort the classes and check that they fit together."""
        ordered = tuple(sorted(self.classes, key=lambda info: info.index))
        object.__setattr__(self, "classes", ordered)
        numbers = [info.index for info in ordered]
        if numbers != list(range(1, len(ordered) + 1)):
            raise LabelError(
                f"the classes have the numbers {numbers}",
                f"1 to {len(ordered)}, each once",
                "number the classes without gaps: class k is a network's output k - 1",
            )
        _refuse_twins("name", [info.name.casefold() for info in ordered])
        _refuse_twins("key", [info.key for info in ordered if info.key])

    @classmethod
    def from_names(cls, names: Iterable[str]) -> ClassTable:
        """Build a table with default colors and keys; numbers follow the order of ``names``."""
        return cls(tuple(ClassInfo(i, name) for i, name in enumerate(names, 1)))

    @classmethod
    def from_dicts(cls, rows: Sequence[Mapping[str, Any]]) -> ClassTable:
        """Build a table from what :meth:`to_dicts` gave.

        Raises
        ------
        LabelError
            If a row lacks its number or name, or a field has a wrong type or value.
        """
        classes = []
        for row in rows:
            try:
                key = row.get("key")
                classes.append(
                    ClassInfo(
                        int(row["index"]),
                        str(row["name"]),
                        str(row.get("color", "")),
                        None if key is None else str(key),
                    )
                )
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                if isinstance(error, LabelError):
                    raise
                raise LabelError(
                    f"a class is stored as {row!r}", "a table with index, name, color, and key"
                ) from error
        return cls(tuple(classes))

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the table as it is stored in ``project.toml``."""
        return [info.to_dict() for info in self.classes]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of classes 1 to K."""
        return tuple(info.name for info in self.classes)

    @property
    def num_classes(self) -> int:
        """K: how many classes there are; unlabeled is not one of them."""
        return len(self.classes)

    def __len__(self) -> int:
        """Return K."""
        return len(self.classes)

    def __iter__(self) -> Iterator[ClassInfo]:
        """Iterate over classes 1 to K."""
        return iter(self.classes)

    def __getitem__(self, index: int) -> ClassInfo:
        """Return the class with the number ``index`` (1 to K, as in masks)."""
        if not 1 <= index <= len(self.classes):
            raise LabelError(f"there is no class {index}", f"1 to {len(self.classes)}")
        return self.classes[index - 1]

    def by_name(self, name: str) -> ClassInfo:
        """Return the class called ``name``; capitals do not count.

        Raises
        ------
        LabelError
            Naming the classes that there are.
        """
        for info in self.classes:
            if info.name.casefold() == name.strip().casefold():
                return info
        raise LabelError(f"there is no class {name!r}", ", ".join(self.names) or "a class; none is defined")

    def color_lut(self) -> NDArray[np.uint8]:
        """Return the colors by mask value, ``(256, 3)`` uint8 RGB; values without a class are black."""
        lut = np.zeros((256, 3), np.uint8)
        for info in self.classes:
            lut[info.index] = info.rgb
        return lut

    def check_mask(self, mask: NDArray[Any], what: str = "the mask") -> NDArray[np.uint8]:
        """Return ``mask`` if it is a mask of these classes.

        Parameters
        ----------
        mask
            ``(H, W)`` uint8, values 0 to K.
        what
            Name of the mask in messages.

        Raises
        ------
        LabelError
            If the shape, the type, or a value is wrong.
        """
        if mask.ndim != 2 or mask.dtype != np.uint8:
            raise LabelError(f"{what} is {mask.dtype} of shape {mask.shape}", "uint8 of shape (H, W)")
        top = int(mask.max(initial=0))
        if top > len(self.classes):
            raise LabelError(
                f"{what} holds the value {top}",
                f"0 (unlabeled) to {len(self.classes)}",
                "add the class to the project first, or repaint these pixels",
            )
        return mask


def _refuse_twins(what: str, values: Sequence[str | None]) -> None:
    """Raise if a value occurs twice."""
    twins = sorted({str(v) for v in values if values.count(v) > 1})
    if twins:
        raise LabelError(f"two classes share the {what} {', '.join(twins)}", f"a {what} of its own for each")

"""How much of each class blocks of each label hold: estimates of people, and the table that follows.

Reference: paper 003, section 2: an expert looks at 10 to 12 blocks of each label z and gives each one's
shares; their mean and standard deviation are ``eta[z, l]`` and ``rho[z, l]``.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_histogan.errors import DAMAGE, LabelError
from napari_histogan.labels.annotation import read_file, write_file

ENOUGH = 10
"""Blocks of a label value from which on its mean and spread are known well enough."""

LEAST = 2
"""Blocks that a standard deviation needs."""

SUM_SLACK = 0.011
"""Shares of a block may miss 1 by this much, as rounded percents do."""

TABLE_FILE = "calibration.json"
_FORMAT = 1
_FORMS = "label,class,mean,sd, or label and a column for each class with one row a block"


@dataclass(frozen=True, eq=False)
class CalibrationTable:
    """Statistics of the shares of K classes in blocks of Z label values.

    Parameters
    ----------
    values, classes
        Names.
    eta, rho
        ``(Z, K) float64``, 0..1: mean and standard deviation (unbiased variance) of the shares.
    blocks
        ``(Z,) int64``: blocks that were looked at; 0 where eta and rho were given as numbers.

    Raises
    ------
    LabelError
        If shapes do not fit, a number is out of range, or means do not sum to 1.
    """

    values: tuple[str, ...]
    classes: tuple[str, ...]
    eta: NDArray[np.float64]
    rho: NDArray[np.float64]
    blocks: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Check shapes, ranges, and sums."""
        shape = len(self.values), len(self.classes)
        if self.eta.shape != shape or self.rho.shape != shape or self.blocks.shape != shape[:1]:
            raise LabelError(f"eta is {self.eta.shape}, rho {self.rho.shape}", f"{shape} both")
        for z, value in enumerate(self.values):
            check_shares(self.eta[z], f"the means of the label value {value!r}")
            if not (np.isfinite(self.rho[z]) & (self.rho[z] >= 0) & (self.rho[z] <= 1)).all():
                raise LabelError(
                    f"a standard deviation of the label value {value!r} is {self.rho[z].tolist()}", "0 to 1"
                )

    def save(self, path: Path) -> None:
        """Write the table as JSON; raises ``StorageError``."""
        stored = {
            "format": _FORMAT,
            "values": self.values,
            "classes": self.classes,
            "eta": self.eta.tolist(),
            "rho": self.rho.tolist(),
            "blocks": self.blocks.tolist(),
        }
        write_file(path, json.dumps(stored, indent=1).encode())

    @classmethod
    def load(cls, path: Path) -> CalibrationTable:
        """Read what :meth:`save` wrote; raises ``LabelError`` if it is damaged."""
        data = read_file(path)
        try:
            stored = json.loads(data)
            if stored["format"] != _FORMAT:
                raise ValueError(f"format {stored['format']}")
            eta, rho = (np.array(stored[name], np.float64) for name in ("eta", "rho"))
            values, classes = tuple(stored["values"]), tuple(stored["classes"])
            return cls(values, classes, eta, rho, np.array(stored["blocks"], np.int64))
        except LabelError:
            raise
        except DAMAGE as error:
            raise LabelError(f"{path} is no calibration table: {error}", "a table of this program") from error


def check_shares(shares: NDArray[np.float64], what: str) -> None:
    """Raise ``LabelError`` unless shares of all classes lie in 0..1 and sum to 1."""
    total = float(np.sum(shares))
    if not np.isfinite(total) or (shares < 0).any() or abs(total - 1) > SUM_SLACK:
        listed = " + ".join(f"{share:g}" for share in shares)
        raise LabelError(
            f"{what}: {listed} is {total:g}", "shares of all classes, 0 to 1, that sum to 1", "correct them"
        )


def table_of(
    shares: Mapping[str, Sequence[Sequence[float]]],
    values: Sequence[str],
    classes: Sequence[str],
    what: str = "the calibration",
) -> CalibrationTable:
    """Return the table of estimates.

    Parameters
    ----------
    shares
        By label value, the shares ``(n, K)`` of its estimated blocks.
    values, classes
        Names of what the table must have.
    what
        Names the estimates' origin in messages.

    Raises
    ------
    LabelError
        Naming the label value that has fewer than two blocks.
    """
    eta, rho, blocks = [], [], []
    for value in values:
        found = np.array(shares.get(value, ()), np.float64).reshape(-1, len(classes))
        if len(found) < LEAST:
            have = "no block" if not len(found) else "one block"
            raise LabelError(
                f"{what} has {have} of the label value {value!r}",
                f"at least {LEAST}, better {ENOUGH}: one block has no spread",
                f"estimate more blocks of {value!r}",
            )
        found = found / found.sum(axis=1, keepdims=True)
        eta.append(found.mean(axis=0))
        rho.append(found.std(axis=0, ddof=1))
        blocks.append(len(found))
    return CalibrationTable(
        tuple(values), tuple(classes), np.array(eta), np.array(rho), np.array(blocks, np.int64)
    )


def few(table: CalibrationTable, enough: int = ENOUGH) -> list[str]:
    """Return the label values with fewer estimated blocks than would be enough."""
    counts = zip(table.values, table.blocks.tolist(), strict=True)
    return [value for value, count in counts if 0 < count < enough]


def read_calibration(path: Path, values: Sequence[str], classes: Sequence[str]) -> CalibrationTable:
    """Read a calibration from CSV: a table of means and deviations, or one row for each estimated block.

    Parameters
    ----------
    path
        With the header ``label,class,mean,sd``, or ``label`` and the names of all classes.
    values, classes
        Names of what it must have.

    Raises
    ------
    LabelError
        Naming the file, the line, and the label value.
    """
    fields, lines = _lines(path)
    if {"label", "class", "mean", "sd"} <= set(fields):
        return _given_table(lines, values, classes, path)
    shares: dict[str, list[list[float]]] = {}
    for where, row in _estimates(path, fields, lines, classes):
        _known(row["label"], values, "label value", where)
        shares.setdefault(row["label"], []).append([_number(row[name], where) for name in classes])
    return table_of(shares, values, classes, str(path))


def read_estimates(
    path: Path, classes: Sequence[str]
) -> list[tuple[str, tuple[int, int], str, dict[str, float]]]:
    """Read a sheet with one row a block: ``row,column,label`` and a column for each class.

    Returns
    -------
    list
        Of each row that was filled in: where it stands in the file, row and column of the block, its
        label, and its shares by class, which sum to 1.

    Raises
    ------
    LabelError
        Naming the file and the line.
    """
    fields, lines = _lines(path)
    if not {"row", "column"} <= set(fields):
        raise LabelError(
            f"{path}, line 1: the columns are {', '.join(fields)}", "row,column,label, and classes"
        )
    found = []
    for where, row in _estimates(path, fields, lines, classes):
        try:
            place = int(row["row"]), int(row["column"])
        except ValueError as error:
            raise LabelError(f"{where}: {error}", "row and column of a block, counted from 0") from error
        found.append((where, place, row["label"], {name: _number(row[name], where) for name in classes}))
    return found


def _lines(path: Path) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    """Return the columns of a CSV file, and its rows with where they stand."""
    try:
        rows = csv.DictReader(io.StringIO(read_file(path).decode("utf-8-sig")))
        fields = [(name or "").strip() for name in rows.fieldnames or ()]
        lines = [
            (f"{path}, line {rows.line_num}", {k.strip(): (v or "").strip() for k, v in row.items() if k})
            for row in rows
        ]
    except (UnicodeDecodeError, csv.Error, TypeError, AttributeError) as error:
        raise LabelError(f"{path} is no table: {error}", f"a CSV file with {_FORMS}") from error
    return fields, lines


def _estimates(
    path: Path,
    fields: Sequence[str],
    lines: Iterable[tuple[str, Mapping[str, str]]],
    classes: Sequence[str],
) -> list[tuple[str, Mapping[str, str]]]:
    """Return the rows that were filled in; refuse those whose shares do not sum to 1."""
    if not {"label", *classes} <= set(fields):
        raise LabelError(f"{path}, line 1: the columns are {', '.join(fields)}", _FORMS)
    filled = [(where, row) for where, row in lines if any(row[name] for name in classes)]
    for where, row in filled:
        check_shares(np.array([_number(row[name], where) for name in classes]), where)
    return filled


def _given_table(
    lines: Iterable[tuple[str, Mapping[str, str]]], values: Sequence[str], classes: Sequence[str], path: Path
) -> CalibrationTable:
    """Return the table that a file gives as means and deviations."""
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for where, row in lines:
        key = row["label"], row["class"]
        _known(key[0], values, "label value", where)
        _known(key[1], classes, "class", where)
        if key in found:
            raise LabelError(f"{where}: {key[0]!r} and {key[1]!r} are there twice", "once")
        found[key] = _number(row["mean"], where), _number(row["sd"], where)
    for value in values:
        for name in classes:
            if (value, name) not in found:
                raise LabelError(f"{path} does not say the label value {value!r} for {name!r}", "a line each")
    numbers = np.array([[found[value, name] for name in classes] for value in values])
    blocks = np.zeros(len(values), np.int64)
    return CalibrationTable(tuple(values), tuple(classes), numbers[..., 0], numbers[..., 1], blocks)


def _known(name: str, names: Sequence[str], what: str, where: str) -> None:
    """Refuse a name that is none of those."""
    if name not in names:
        raise LabelError(f"{where}: there is no {what} {name!r}", ", ".join(names))


def _number(text: str, where: str) -> float:
    """Return a number of a table."""
    try:
        return float(text)
    except ValueError as error:
        raise LabelError(f"{where}: {text!r} is no number", "shares such as 0.25") from error

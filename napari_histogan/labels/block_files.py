"""Read coarse labels of blocks: CSV, GeoJSON, pictures with a pixel a block, and maps of scores."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from math import ceil, floor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from napari_histogan.config.block_labels import TEN_BINS
from napari_histogan.errors import DAMAGE, LabelError
from napari_histogan.labels.annotation import Annotation, read_file
from napari_histogan.labels.block_labels import MISSING, BlockLabels, bin_names, binned
from napari_histogan.labels.geojson import read_geojson

NO_LABEL = ("", "none", "missing", "nan", "na")
"""Labels, in small letters, that mean that a block has none."""

_MISSING_PIXEL = 255
_MOST_ROWS, _MOST_BLOCKS = 100_000, 100_000_000
_FORMS = "row,column,label or x_um,y_um,label (the corner); score instead of label is binned"


class _Found(NamedTuple):
    """One block of a file; ``where`` names its line."""

    row: int
    column: int
    label: str | float
    where: str


def read_block_csv(path: Path, block_um: float, edges: Sequence[float] = TEN_BINS) -> BlockLabels:
    """Read a table with one row a block.

    Parameters
    ----------
    path
        With a header: ``row,column`` (counted from 0) or ``x_um,y_um`` (top left corner of the block
        in um), and ``label`` (any text) or ``score`` (percent 0..100).  Empty labels mean none.
    block_um
        Side of a block in um.
    edges
        Of the bins of scores in percent.

    Raises
    ------
    LabelError
        Naming the file and the line.
    """
    try:
        text = read_file(path).decode("utf-8-sig")
        rows = csv.DictReader(io.StringIO(text))
        names = {name.strip().casefold() for name in rows.fieldnames or ()}
    except (UnicodeDecodeError, csv.Error) as error:
        raise LabelError(f"{path} is no table: {error}", f"a CSV file with {_FORMS}") from error
    by_index, by_um = {"row", "column"} <= names, {"x_um", "y_um"} <= names
    if not (by_index or by_um) or not names & {"label", "score"}:
        raise LabelError(f"{path}, line 1: the columns are {', '.join(sorted(names))}", _FORMS)
    found = []
    try:
        for raw in rows:
            row = {(key or "").strip().casefold(): str(value or "").strip() for key, value in raw.items()}
            found.append(_csv_block(row, by_index, block_um, f"{path}, line {rows.line_num}"))
    except csv.Error as error:
        raise LabelError(f"{path}, line {rows.line_num}: {error}", f"a CSV file with {_FORMS}") from error
    return _grid(found, block_um, edges, str(path))


def _csv_block(row: dict[str, str], by_index: bool, block_um: float, where: str) -> _Found:
    """Return the block of one row of a table."""
    try:
        places = [float(row[name]) for name in (("row", "column") if by_index else ("y_um", "x_um"))]
        label = float(row["score"] or "nan") if "score" in row else row["label"]
        if not by_index:
            places = [place / block_um for place in places]
        cells = [round(place) for place in places]
    except (ValueError, OverflowError) as error:
        raise LabelError(f"{where}: {error}", _FORMS, "correct or delete this line") from error
    if any(abs(place - cell) > 0.05 for place, cell in zip(places, cells, strict=True)):
        raise LabelError(
            f"{where}: the block begins {places[0]:.2f} blocks below and {places[1]:.2f} right of the corner",
            f"corners at multiples of {block_um:g} um",
            "give the size of the blocks (block_um)",
        )
    return _Found(cells[0], cells[1], label, where)


def read_block_geojson(
    path: Path, block_um: float, mpp: float, edges: Sequence[float] = TEN_BINS
) -> BlockLabels:
    """Read squares with a class, such as tiles of QuPath; ``mpp`` is that of the slide's level 0.

    The class is the label.  A number ``score`` among the properties, in percent, is binned instead.

    Raises
    ------
    LabelError
        Naming the file and the feature.
    """
    found = [
        _square(annotation, block_um, mpp, f"{path}, feature {number} (counted from 0)")
        for number, annotation in enumerate(read_geojson(path))
    ]
    return _grid(found, block_um, edges, str(path))


def _square(annotation: Annotation, block_um: float, mpp: float, where: str) -> _Found:
    """Return the block that a square of a slide is; one at the rim may be cut."""
    left, top, right, bottom = (float(edge) * mpp for edge in shapely.bounds(annotation.geometry))
    side = max(right - left, bottom - top)
    if not 0.9 <= side / block_um <= 1.1:
        raise LabelError(
            f"{where}: it is {right - left:.0f} x {bottom - top:.0f} um",
            f"a square of {block_um:g} um",
            "give the size of the blocks (block_um), or delete this feature",
        )
    score = annotation.properties.get("score")
    label = float(score) if isinstance(score, int | float) else annotation.class_name
    row, column = (floor((edge + 0.25 * block_um) / block_um) for edge in (top, left))
    return _Found(row, column, label, where)


def read_block_picture(path: Path, block_um: float) -> BlockLabels:
    """Read a gray picture with one pixel a block: the values are the labels, 255 means none.

    Raises
    ------
    LabelError
        If it is no gray picture of 8 bits.
    """
    try:
        with Image.open(io.BytesIO(read_file(path))) as picture:
            kind, pixels = picture.mode, np.asarray(picture)
    except (UnidentifiedImageError, *DAMAGE) as error:
        raise LabelError(f"{path} cannot be read: {error}", "a PNG with one gray pixel a block") from error
    if pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise LabelError(f"{path} is a picture of the kind {kind}", "a PNG with one gray pixel a block")
    values = np.unique(pixels[pixels != _MISSING_PIXEL])
    grid = np.where(pixels == _MISSING_PIXEL, MISSING, np.searchsorted(values, pixels)).astype(np.int16)
    return BlockLabels(tuple(str(value) for value in values), grid, block_um)


def score_blocks(
    read: Callable[[slice, slice], NDArray[np.float64]],
    shape: tuple[int, int],
    pixels_per_block: float,
) -> NDArray[np.float64]:
    """Return the mean score of each block of a map; NaN where more than half of a block has none.

    Parameters
    ----------
    read
        Gives scores of rows and columns of the map, ``(h, w)``; NaN means none.
    shape
        Height and width of the map.
    pixels_per_block
        Side of a block in pixels of the map, at least 1.

    Raises
    ------
    LabelError
        If the map is coarser than the blocks.
    """
    if pixels_per_block < 0.99:
        raise LabelError(
            f"a pixel of the map spans {1 / pixels_per_block:.2f} blocks",
            "a map at least as fine as the blocks",
            "choose larger blocks (block_um)",
        )
    rows, columns = (max(1, ceil(side / pixels_per_block - 0.01)) for side in shape)
    edges = [
        np.minimum(np.round(np.arange(n + 1) * pixels_per_block), side).astype(int)
        for n, side in zip((rows, columns), shape, strict=True)
    ]
    out = np.full((rows, columns), np.nan)
    for row in range(rows):
        if edges[0][row] == edges[0][row + 1]:
            continue
        strip = read(slice(edges[0][row], edges[0][row + 1]), slice(0, shape[1]))
        known = np.isfinite(strip)
        for column in range(columns):
            part = slice(edges[1][column], edges[1][column + 1])
            if known[:, part].size and known[:, part].mean() >= 0.5:
                out[row, column] = float(np.nanmean(strip[:, part]))
    return out


def labels_of_scores(scores: NDArray[np.float64], block_um: float, edges: Sequence[float]) -> BlockLabels:
    """Return block labels of scores in percent ``(rows, columns)``; NaN means none."""
    return BlockLabels(bin_names(edges), binned(scores, edges), block_um)


def _grid(found: list[_Found], block_um: float, edges: Sequence[float], what: str) -> BlockLabels:
    """Put the blocks of a file on a grid; refuse twins and places that cannot be."""
    if not found:
        raise LabelError(f"{what} holds no block", "one block or more")
    for block in found:
        if not (0 <= block.row < _MOST_ROWS and 0 <= block.column < _MOST_ROWS):
            raise LabelError(f"{block.where}: row {block.row}, column {block.column}", f"0 to {_MOST_ROWS:,}")
    shape = max(b.row for b in found) + 1, max(b.column for b in found) + 1
    if shape[0] * shape[1] > _MOST_BLOCKS:
        raise LabelError(f"{what} spans {shape[0]} x {shape[1]} blocks", "a slide's grid")
    scored = any(isinstance(b.label, float) for b in found)
    values = bin_names(edges) if scored else _names(found)
    grid, line_of = np.full(shape, MISSING, np.int16), dict[tuple[int, int], str]()
    for block in found:
        place = block.row, block.column
        if place in line_of:
            raise LabelError(
                f"{block.where}: the block in row {block.row}, column {block.column} is there twice",
                f"once; it was given at {line_of[place]}",
                "delete one of the two",
            )
        line_of[place] = block.where
        grid[place] = _value(block, values, edges, scored)
    return BlockLabels(values, grid, block_um)


def _names(found: list[_Found]) -> tuple[str, ...]:
    """Return the label values of a file: numbers by size, names by alphabet."""
    names = {str(b.label) for b in found if str(b.label).casefold() not in NO_LABEL}
    try:
        return tuple(sorted(names, key=float))
    except ValueError:
        return tuple(sorted(names))


def _value(block: _Found, values: tuple[str, ...], edges: Sequence[float], scored: bool) -> int:
    """Return the index of a block's label value, or -1."""
    if not scored:
        return MISSING if str(block.label).casefold() in NO_LABEL else values.index(str(block.label))
    if not isinstance(block.label, float):
        raise LabelError(f"{block.where}: the label is {block.label!r}", "a score, as other blocks have one")
    if np.isfinite(block.label) and not 0 <= block.label <= 100:
        raise LabelError(
            f"{block.where}: the score is {block.label:g}", "0 to 100 percent", "give scores in percent"
        )
    return int(binned(np.array([block.label]), edges)[0])

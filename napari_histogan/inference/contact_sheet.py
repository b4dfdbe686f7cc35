"""One picture of a synthetic data set: what was kept, and what was dropped, in the order of uncertainty."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_histogan.errors import StorageError
from napari_histogan.labels.classes import ClassTable

from .pair_store import open_pairs

SHEET = "contact_sheet.png"
_GAP, _CAPTION, _TITLE, _KEY, _BAR = 6, 18, 34, 30, 44
_INK, _FAINT = (30, 30, 30), (110, 110, 110)

Picture = NDArray[np.uint8]


class _Part(NamedTuple):
    title: str
    rows: NDArray[np.int64]


def write_contact_sheet(folder: Path, columns: int = 8, rows: int = 4, side: int = 128) -> Path:
    """Draw pairs with the outlines of their masks in the classes' colors, the most certain first.

    Each side of an outline has the color of its own class.  A bar under the pair shows the classes' shares.

    Parameters
    ----------
    folder
        Of the data set.
    columns, rows
        Most pairs that each part shows: those that were kept, evenly from the most certain to the least;
        those that were dropped for being uncertain, with the most uncertain; and, where shares of
        classes were wanted, certain ones that were not needed for them.
    side
        Of a pair in pixels.

    Returns
    -------
    Path
        The PNG in the folder.

    Raises
    ------
    StorageError
        If the data set cannot be read or the picture cannot be written.
    """
    group = open_pairs(folder)
    table = ClassTable.from_dicts(cast(Any, group.attrs["classes"]))
    names = [(str(row["name"]), k) for k, row in enumerate(cast(Any, group.attrs["classes"]), start=1)]
    colors, uncertainty = table.color_lut(), group["uncertainty"][:]
    width = columns * (side + _GAP) + _GAP
    pictures = [_key(names, colors, width)]
    for part in _parts(group, columns * rows):
        pictures.append(_text(part.title, width, _TITLE, 0.55, _INK))
        tiles = [
            _tile(group["images"][i], group["masks"][i], colors, side, f"{uncertainty[i]:.3f}")
            for i in part.rows
        ]
        pictures.append(_grid(tiles, columns, width))
    path = folder / SHEET
    encoded, data = cv2.imencode(".png", cv2.cvtColor(np.concatenate(pictures), cv2.COLOR_RGB2BGR))
    try:
        if not encoded:
            raise OSError("the picture could not be packed")
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise StorageError(
            f"{path} could not be written ({error})", "a writable folder with free space"
        ) from error
    return path


def _parts(group: Any, most: int) -> list[_Part]:
    """Return what to show: titles, and at most so many rows each, by uncertainty."""
    kept, uncertainty = group["kept"][:], group["uncertainty"][:]
    order = np.argsort(uncertainty, kind="stable")
    certain = np.zeros(len(kept), np.bool_)
    certain[order[: int(group.attrs.get("certain", kept.sum()))]] = True
    groups = (
        ("kept", order[kept[order]]),
        ("dropped for being the most uncertain", order[~certain[order] & ~kept[order]]),
        ("certain, but not needed for the wanted shares of the classes", order[(certain & ~kept)[order]]),
    )
    parts = []
    for name, rows in groups:
        if len(rows):
            reach = f"uncertainty {uncertainty[rows[0]]:.3f} to {uncertainty[rows[-1]]:.3f}"
            some = rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))]
            parts.append(_Part(f"{len(rows)} of {len(kept)} pairs {name}; {reach}", some))
    return parts


def _tile(image: Picture, mask: Picture, colors: Picture, side: int, caption: str) -> Picture:
    """Scale one pair to a tile with outlines; under it a line, and a bar of the classes' shares."""
    shrink = cv2.INTER_AREA if image.shape[0] > side else cv2.INTER_CUBIC
    tile = cv2.resize(image, (side, side), interpolation=shrink)
    large = cv2.resize(mask, (side, side), interpolation=cv2.INTER_NEAREST)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    edge = (cv2.dilate(large, cross) != large) | (cv2.erode(large, cross) != large)
    tile[edge] = colors[large[edge]]
    under = _text(caption, side, _CAPTION, 0.4, _FAINT, left=0)
    bar = np.sort(mask, axis=None)[np.linspace(0, mask.size - 1, side - _BAR).astype(int)]
    under[4:13, _BAR:] = colors[bar]
    return cast(
        Picture, np.pad(np.concatenate([tile, under]), ((0, _GAP), (_GAP, 0), (0, 0)), constant_values=255)
    )


def _grid(tiles: list[Picture], columns: int, width: int) -> Picture:
    """Lay tiles out in rows."""
    height, side = tiles[0].shape[:2]
    sheet = np.full((-(-len(tiles) // columns) * height, width, 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = i // columns * height, i % columns * side
        sheet[y : y + height, x : x + side] = tile
    return sheet


def _text(
    text: str, width: int, height: int, scale: float, ink: tuple[int, int, int], left: int = _GAP
) -> Picture:
    """Return a line of text on white."""
    line = np.full((height, width, 3), 255, np.uint8)
    cv2.putText(line, text, (left, height - 6), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 1, cv2.LINE_AA)
    return line


def _key(names: list[tuple[str, int]], colors: Picture, width: int) -> Picture:
    """Return a line that tells the classes' colors; names that do not fit are left out."""
    line, x = np.full((_KEY, width, 3), 255, np.uint8), _GAP
    for name, k in names:
        (length, _), _ = cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
        if x + 20 + length > width:
            break
        line[8:22, x : x + 14] = colors[k]
        cv2.putText(line, name, (x + 20, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, _INK, 1, cv2.LINE_AA)
        x += 40 + length
    return line

"""Figures of samples and slides, drawn with Pillow.

Every figure says in a legend what its colors mean, and slides carry a scale bar.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from napari_histogan.errors import LabelError
from napari_histogan.labels.annotation import Annotation
from napari_histogan.labels.classes import UNLABELLED, ClassTable

_INK, _PAPER, _FAINT = (32, 32, 32), (255, 255, 255), (110, 110, 110)
_GAP, _TEXT = 8, 14
_PANEL_PX = 160
_OUTLINE, _TINT, _RULE = 2, 0.25, 2
_HEAT_STOPS = np.array([(0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191)], float)
_BAR_STEPS = (1, 2, 5)

Picture = NDArray[np.uint8]


def sample_sheet(
    images: Picture,
    masks: Picture | None,
    uncertainty: NDArray[np.floating] | None,
    classes: ClassTable,
    titles: Sequence[str] = (),
    columns: int = 4,
) -> Image.Image:
    """Draw samples, each beside its outlines and its uncertainty.

    Parameters
    ----------
    images
        ``(n, R, R, 3)`` uint8 RGB.
    masks
        ``(n, R, R)`` uint8, 0 = unlabeled; None leaves the outlines out.
    uncertainty
        ``(n, R, R)``, any scale from 0; None leaves it out.  All samples share one scale.
    classes
        Names and colors by value.
    titles
        One line above each sample; may be empty.
    columns
        Samples in a row.

    Raises
    ------
    LabelError
        If the arrays do not fit together or a mask is of other classes.
    """
    shape = images.shape[:3]
    for name, extra in (("masks", masks), ("uncertainty", uncertainty)):
        if extra is not None and extra.shape != shape:
            raise LabelError(f"the {name} have the shape {extra.shape}", f"{shape}, as the images")
    if not len(images):
        raise LabelError("there are no samples to draw", "one or more")
    zoom = max(1, round(_PANEL_PX / images.shape[1]))
    top = float(np.nanmax(uncertainty)) if uncertainty is not None else 0.0
    cells = []
    for i, image in enumerate(images):
        panels = [_enlarged(image, zoom)]
        if masks is not None:
            panels.append(_outlined(panels[0], _enlarged(classes.check_mask(masks[i]), zoom), classes))
        if uncertainty is not None:
            panels.append(_enlarged(heat(uncertainty[i], top), zoom))
        cells.append(Image.fromarray(_side_by_side(panels)))
    sheet = panels_in_rows([(titles[i] if i < len(titles) else "", c) for i, c in enumerate(cells)], columns)
    return with_legend(sheet, classes if masks is not None else ClassTable(), top)


def slide_overlay(
    slide: Picture,
    classes: ClassTable,
    mpp: float,
    predicted: Picture | None = None,
    outlines: Sequence[Annotation] = (),
    downsample: float = 1.0,
    opacity: float = 0.5,
    unfilled: Sequence[str] = ("glass",),
) -> Image.Image:
    """Draw a slide with predicted classes as tints, outlines as lines, a legend, and a scale bar.

    Parameters
    ----------
    slide
        ``(H, W, 3)`` uint8 RGB, such as a thumbnail.
    classes
        Names and colors.
    mpp
        Resolution of ``slide`` in um/px.
    predicted
        A mask ``(h, w)`` uint8 of the same area, or probabilities ``(K, h, w)`` uint8 in
        percent; then the tint is as strong as the likeliest class is sure.
    outlines
        In pixels of level 0; classes that ``classes`` does not know are drawn gray.
    downsample
        Side of a pixel of ``slide`` in level 0 pixels.
    opacity
        Strength of a full tint, 0 to 1.
    unfilled
        Classes without a tint, so that the background stays light.

    Raises
    ------
    LabelError
        If ``predicted`` has another number of classes.
    """
    height, width = slide.shape[:2]
    pixels = slide.astype(np.float32)
    if predicted is not None:
        mask, strength = _likeliest(predicted, classes)
        mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
        strength = cv2.resize(strength, (width, height), interpolation=cv2.INTER_LINEAR)
        bare = [UNLABELLED, *(info.index for info in classes if info.name in unfilled)]
        weight = np.where(np.isin(mask, bare), 0, strength * opacity)[..., None].astype(np.float32)
        pixels = pixels * (1 - weight) + classes.color_lut()[mask] * weight
    canvas = np.ascontiguousarray(pixels.round().astype(np.uint8))
    colors = {info.name.casefold(): info.rgb for info in classes}
    thickness = max(2, round(max(height, width) / 700))
    for annotation in outlines:
        color = colors.get(annotation.class_name.casefold(), _FAINT)
        for line, ink in ((thickness + 2, _PAPER), (thickness, color)):
            _draw_rings(canvas, annotation, downsample, line, ink)
    image = Image.fromarray(canvas)
    _draw_scale_bar(image, mpp)
    others = {a.class_name: _FAINT for a in outlines if a.class_name.casefold() not in colors}
    return with_legend(image, classes, others=others)


def panels_in_rows(panels: Sequence[tuple[str, Image.Image]], columns: int) -> Image.Image:
    """Lay pictures out in rows, each below its title.

    Parameters
    ----------
    panels
        Title and picture of each; titles may be empty.
    columns
        Pictures in a row, at least 1.
    """
    columns = max(1, min(columns, len(panels)))
    width = max(picture.width for _, picture in panels)
    height = max(picture.height for _, picture in panels)
    header = _TEXT + 6 if any(title for title, _ in panels) else 0
    rows = math.ceil(len(panels) / columns)
    sheet = Image.new(
        "RGB",
        (columns * (width + _GAP) + _GAP, rows * (height + header + _GAP) + _GAP),
        _PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    for i, (title, picture) in enumerate(panels):
        x, y = _GAP + i % columns * (width + _GAP), _GAP + i // columns * (height + header + _GAP)
        draw.text((x, y), title, _INK, _font())
        sheet.paste(picture, (x, y + header))
    return sheet


def with_legend(
    image: Image.Image,
    classes: ClassTable,
    top_uncertainty: float = 0.0,
    others: Mapping[str, tuple[int, int, int]] | None = None,
) -> Image.Image:
    """Return the picture with a legend below.

    Parameters
    ----------
    image
        What the legend is for.
    classes
        Names and colors that come first.
    top_uncertainty
        Upper end of the uncertainty scale; 0 leaves the scale out.
    others
        Further names and their RGB.
    """
    font = _font()
    colors = {info.name: info.rgb for info in classes} | dict(others or {})
    entries = [(name, Image.new("RGB", (_TEXT, _TEXT), rgb)) for name, rgb in colors.items()]
    if top_uncertainty > 0:
        ramp = heat(np.tile(np.linspace(0, 1, 100), (_TEXT, 1)), 1.0)
        entries.append((f"uncertainty, 0 to {top_uncertainty:.2g}", Image.fromarray(ramp)))
    places: list[tuple[int, int]] = []
    x = y = _GAP
    for name, swatch in entries:
        extent = swatch.width + 6 + math.ceil(font.getlength(name))
        if x > _GAP and x + extent > image.width - _GAP:
            x, y = _GAP, y + _TEXT + _GAP
        places.append((x, y))
        x += extent + 2 * _GAP
    if not entries:
        return image
    out = Image.new("RGB", (image.width, image.height + y + _TEXT + _GAP), _PAPER)
    out.paste(image, (0, 0))
    draw = ImageDraw.Draw(out)
    for (name, swatch), (x, y) in zip(entries, places, strict=True):
        out.paste(swatch, (x, image.height + y))
        draw.text((x + swatch.width + 6, image.height + y - 2), name, _INK, font)
    return out


def heat(values: NDArray[np.floating], top: float) -> Picture:
    """Return values from 0 to ``top`` as colors from black to light yellow, ``(..., 3)`` uint8.

    Values that are not numbers come out black.
    """
    share = np.nan_to_num(np.clip(np.asarray(values, float) / max(top, 1e-12), 0, 1))
    stops = np.linspace(0, 1, len(_HEAT_STOPS))
    channels = [np.interp(share, stops, _HEAT_STOPS[:, c]) for c in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)


def scale_bar_um(width_um: float) -> float:
    """Return the roundest length (1, 2, or 5 times a power of ten) up to a fifth of a width, in um."""
    wanted = width_um / 5
    power = 10.0 ** math.floor(math.log10(wanted))
    return max(step * power for step in _BAR_STEPS if step * power <= wanted * (1 + 1e-9))


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font that comes with Pillow, so that figures look alike everywhere."""
    return ImageFont.load_default(_TEXT)


def _side_by_side(panels: Sequence[Picture]) -> Picture:
    """Join pictures of one height with a narrow white rule between them."""
    rule = np.full((panels[0].shape[0], _RULE, 3), 255, np.uint8)
    joined = [part for panel in panels for part in (rule, panel)]
    return np.concatenate(joined[1:], axis=1)


def _enlarged(pixels: Picture, zoom: int) -> Picture:
    """Repeat every pixel ``zoom`` times along both axes."""
    return np.repeat(np.repeat(pixels, zoom, 0), zoom, 1)


def _outlined(image: Picture, mask: Picture, classes: ClassTable) -> Picture:
    """Return the picture lightly tinted by class, with a line inside the rim of every piece."""
    tinted = image * (1 - _TINT) + classes.color_lut()[mask] * _TINT
    out = np.where((mask == UNLABELLED)[..., None], image, tinted.round().astype(np.uint8))
    kernel = np.ones((2 * _OUTLINE + 1, 2 * _OUTLINE + 1), np.uint8)
    for info in classes:
        inside = (mask == info.index).astype(np.uint8)
        rim = inside & ~cv2.erode(inside, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=1)
        out[rim > 0] = info.rgb
    return out


def _likeliest(predicted: Picture, classes: ClassTable) -> tuple[Picture, NDArray[np.float32]]:
    """Return the mask and how strongly to tint it, 0 to 1, of a mask or of probabilities."""
    if predicted.ndim == 2:
        return classes.check_mask(predicted, "the prediction"), np.ones(predicted.shape, np.float32)
    if predicted.ndim != 3 or len(predicted) != len(classes):
        raise LabelError(
            f"the prediction has the shape {predicted.shape}", f"(h, w) or ({len(classes)}, h, w)"
        )
    sure = predicted.max(0)
    mask = np.where(sure > 0, predicted.argmax(0) + 1, UNLABELLED).astype(np.uint8)
    return mask, (sure / 100).astype(np.float32)


def _draw_rings(
    canvas: Picture, annotation: Annotation, downsample: float, thickness: int, color: tuple[int, int, int]
) -> None:
    """Draw an outline's rings, in place."""
    parts = shapely.get_parts(shapely.get_parts(annotation.geometry))
    for ring in shapely.get_rings(parts[shapely.get_dimensions(parts) == 2]):
        corners = shapely.get_coordinates(ring) / downsample - 0.5
        cv2.polylines(
            canvas, [(corners * 16).round().astype(np.int32)], True, color, thickness, cv2.LINE_AA, 4
        )


def _draw_scale_bar(image: Image.Image, mpp: float) -> None:
    """Draw a scale bar in the lower left corner, in place."""
    length_um = scale_bar_um(image.width * mpp)
    length = length_um / mpp
    label = f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} um"
    draw, font = ImageDraw.Draw(image), _font()
    x, y = 2 * _GAP, image.height - 2 * _GAP
    wide = max(length, font.getlength(label))
    draw.rectangle((x - _GAP, y - _TEXT - 2 * _GAP, x + wide + _GAP, y + _GAP), _PAPER)
    draw.rectangle((x, y - 3, x + length, y), _INK)
    draw.text((x, y - _TEXT - _GAP - 2), label, _INK, font)

"""Outlines as XML of Aperio ImageScope.

A file holds layers (``Annotation``) of regions (``Region``).  A layer's name is the
class; where it has none, its ``Description`` is.  ``LineColor`` is ``0xBBGGRR``.
Regions with ``NegativeROA="1"`` are holes.  Coordinates are pixels of level 0.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, SubElement, indent, tostring

import defusedxml.ElementTree
import numpy as np
import shapely
from defusedxml.common import DefusedXmlException
from shapely.geometry.base import BaseGeometry

from napari_histogan.errors import LabelError
from napari_histogan.labels.annotation import (
    Annotation,
    hex_color,
    read_file,
    repaired,
    rgb_color,
    write_file,
)

logger = logging.getLogger("napari_histogan")

_RECTANGLE, _ELLIPSE, _ARROW, _RULER = "1", "2", "3", "4"
_ELLIPSE_CORNERS = 64


@dataclass(frozen=True)
class _Region:
    """A region as it stands in the file."""

    number: str
    polygon: BaseGeometry
    text: str
    negative: bool
    cuts: str
    """Number of the region that a negative one belongs to; empty if the file does not say."""


def read_aperio_xml(path: Path | str) -> list[Annotation]:
    """Read outlines; negative regions become holes.

    A negative region is cut out of the region that its ``InputRegionId`` names, else out
    of every region of its layer that it does not cover wholly.  Arrows and rulers are
    left out; ellipses become polygons.

    Parameters
    ----------
    path
        An ``.xml`` file.

    Returns
    -------
    list of Annotation
        In the order of the file, one for each positive region with an area.

    Raises
    ------
    LabelError
        If the file is not such XML, or declares entities or a document type, which
        outlines never need; tells the line, or the layer and region.
    """
    path = Path(path)
    try:
        root = defusedxml.ElementTree.fromstring(read_file(path), forbid_dtd=True)
    except ParseError as error:
        line, column = error.position
        raise LabelError(
            f"{path}, line {line}, column {column + 1}: this is not XML: {error}", "ImageScope XML"
        ) from error
    except DefusedXmlException as error:
        raise LabelError(
            f"{path} declares a document type or entities, which can harm",
            "plain ImageScope XML",
            "remove the declarations if you trust the file",
        ) from error
    except (LookupError, ValueError) as error:  # the declaration names an encoding that nobody knows
        raise LabelError(f"{path} cannot be read as XML: {error}", "ImageScope XML in UTF-8") from error
    if root.tag != "Annotations":
        raise LabelError(f"{path} is XML of another kind (<{root.tag}>)", "<Annotations> of ImageScope")
    annotations: list[Annotation] = []
    for number, layer in enumerate(root.iter("Annotation"), 1):
        annotations.extend(_layer(layer, number, path))
    return annotations


def write_aperio_xml(path: Path | str, annotations: Iterable[Annotation], mpp: float | None = None) -> None:
    """Write outlines so that ImageScope and :func:`read_aperio_xml` read them.

    One layer a class and color; holes are written as negative regions.  Outlines without
    an area, and properties, have no place in this format and are left out.

    Parameters
    ----------
    path
        Where to; an earlier file is replaced.
    annotations
        What to write.
    mpp
        Resolution of level 0 in um/px, if known.
    """
    root = Element("Annotations", {"MicronsPerPixel": f"{mpp:.6g}"} if mpp else {})
    layers: dict[tuple[str, str | None], Element] = {}
    for annotation in annotations:
        key = annotation.class_name, annotation.color
        if key not in layers:
            layers[key] = _write_layer(root, len(layers) + 1, *key)
        for polygon in shapely.get_parts(annotation.geometry):
            if isinstance(polygon, shapely.Polygon) and not polygon.is_empty:
                _write_polygon(layers[key], polygon, annotation.name)
            else:
                logger.warning("a %s has no area and was not written to %s", polygon.geom_type, path)
    indent(root)
    write_file(Path(path), tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def _layer(layer: Element, number: int, path: Path) -> list[Annotation]:
    """Return the outlines of one layer."""
    where = f"{path}, layer {number}"
    try:
        packed = int(layer.get("LineColor", "0"))
    except ValueError as error:
        raise LabelError(f"{where}: LineColor is {layer.get('LineColor')!r}", "a whole number") from error
    color = hex_color(packed & 0xFF, packed >> 8 & 0xFF, packed >> 16 & 0xFF)
    name = layer.get("Name", "").strip() or _description(layer) or f"Layer {layer.get('Id', number)}"
    regions = []
    for position, element in enumerate(layer.iter("Region"), 1):
        if element.get("Type") in (_ARROW, _RULER):
            logger.warning("%s, region %d is an arrow or a ruler and was left out", where, position)
            continue
        regions.append(_region(element, f"{where}, region {position}"))
    shapes = repaired([region.polygon for region in regions])
    _cut_holes(regions, shapes)
    return [
        Annotation(name, shape, color, region.text)
        for region, shape in zip(regions, shapes, strict=True)
        if not region.negative and not shape.is_empty
    ]


def _description(layer: Element) -> str:
    """Return the layer's description, where older versions keep the name."""
    for attribute in layer.iterfind("Attributes/Attribute"):
        if attribute.get("Name") == "Description":
            return attribute.get("Value", "").strip()
    return ""


def _region(element: Element, where: str) -> _Region:
    """Read one region."""
    try:
        corners = np.array(
            [(float(v.attrib["X"]), float(v.attrib["Y"])) for v in element.iter("Vertex")], np.float64
        ).reshape(-1, 2)
    except (KeyError, ValueError) as error:
        raise LabelError(f"{where}: a vertex has no X and Y that are numbers", 'X="12.5" Y="30"') from error
    if not np.isfinite(corners).all():
        raise LabelError(f"{where}: a vertex is not finite", "positions in pixels")
    kind = element.get("Type", "0")
    if kind in (_ELLIPSE, _RECTANGLE) and len(corners) == 2:
        shape = _ellipse(corners) if kind == _ELLIPSE else shapely.box(*corners.min(0), *corners.max(0))
    elif len(corners) >= 3:
        shape = shapely.Polygon(corners)
    else:
        raise LabelError(
            f"{where} has {len(corners)} vertices", "at least 3", "draw the region again or delete it"
        )
    return _Region(
        element.get("Id", ""),
        shape,
        element.get("Text", ""),
        element.get("NegativeROA", "0") == "1",
        "" if (cuts := element.get("InputRegionId", "0")) == "0" else cuts,
    )


def _ellipse(corners: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> shapely.Polygon:
    """Return a polygon on the ellipse between two corners of its box, of the ellipse's area."""
    center, half = corners.mean(0), np.abs(np.diff(corners, axis=0)[0]) / 2
    step = 2 * math.pi / _ELLIPSE_CORNERS
    half = half * math.sqrt(step / math.sin(step))
    angle = np.arange(_ELLIPSE_CORNERS) * step
    return shapely.Polygon(center + half * np.stack([np.cos(angle), np.sin(angle)], 1))


def _cut_holes(regions: list[_Region], shapes: list[BaseGeometry]) -> None:
    """Subtract the negative regions from the positive ones, in place."""
    positives = [i for i, region in enumerate(regions) if not region.negative]
    owners = {regions[i].number: i for i in positives if regions[i].number}
    tree = shapely.STRtree([shapes[i] for i in positives])
    for region, hole in zip(regions, list(shapes), strict=True):
        if not region.negative:
            continue
        if region.cuts in owners:
            touched = [owners[region.cuts]]
        else:
            touched = [positives[i] for i in tree.query(hole, predicate="intersects")]
            touched = [i for i in touched if not hole.covers(shapes[i])]
        for i in touched:
            shapes[i] = shapely.difference(shapes[i], hole)


def _write_layer(root: Element, number: int, name: str, color: str | None) -> Element:
    """Append an empty layer; return its list of regions."""
    red, green, blue = rgb_color(color) if color else (0, 0, 0)
    attributes = {"Id": str(number), "Name": name, "ReadOnly": "0", "Type": "4", "Visible": "1"}
    packed = str(blue << 16 | green << 8 | red)
    return SubElement(SubElement(root, "Annotation", {**attributes, "LineColor": packed}), "Regions")


def _write_polygon(regions: Element, polygon: shapely.Polygon, text: str) -> None:
    """Append a polygon and its holes to a layer."""
    number = str(len(regions) + 1)
    _write_ring(regions, polygon.exterior, text, negative=False, cuts="0")
    for hole in polygon.interiors:
        _write_ring(regions, hole, "", negative=True, cuts=number)


def _write_ring(regions: Element, ring: shapely.LinearRing, text: str, negative: bool, cuts: str) -> None:
    """Append one region."""
    attributes = {"Id": str(len(regions) + 1), "Type": "0", "Text": text}
    attributes |= {"NegativeROA": str(int(negative)), "InputRegionId": cuts}
    vertices = SubElement(SubElement(regions, "Region", attributes), "Vertices")
    for x, y in shapely.get_coordinates(ring)[:-1].tolist():
        SubElement(vertices, "Vertex", {"X": repr(x), "Y": repr(y), "Z": "0"})

"""Outlines as GeoJSON, in the dialect of QuPath.

A file holds a ``FeatureCollection``, an array of features, or one feature.  A feature's
class stands in ``properties.classification`` with its name and a color: ``color`` as
``[r, g, b]`` (QuPath 0.3 and later) or ``colorRGB`` as one signed number (before).
Coordinates are pixels of level 0, ``x`` before ``y``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import shapely
from numpy.typing import NDArray
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

_SHORTEST = {"ring": 3, "line": 2}


def read_geojson(path: Path | str) -> list[Annotation]:
    """Read outlines; those that cross themselves are repaired.

    Parameters
    ----------
    path
        A ``.geojson`` or ``.json`` file.

    Returns
    -------
    list of Annotation
        In the order of the file.  What this program does not know of a feature's
        properties, and its ``id``, stay in :attr:`Annotation.properties`.

    Raises
    ------
    LabelError
        If the file is not GeoJSON; tells the line, or the number of the feature.
    """
    path = Path(path)
    try:
        document = orjson.loads(read_file(path))
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise LabelError(f"{path}, {where}: this is not JSON: {error.msg}", "GeoJSON") from error
    features = _features(document, path)
    annotations = []
    geometries = []
    for number, feature in enumerate(features):
        try:
            annotation = _annotation(feature)
        except (ValueError, TypeError) as error:
            raise LabelError(
                f"{path}, feature {number} (counted from 0): {error}",
                "a GeoJSON feature as QuPath writes it",
                "correct or delete this feature",
            ) from error
        annotations.append(annotation)
        geometries.append(annotation.geometry)
    return [
        a if g is a.geometry else Annotation(a.class_name, g, a.color, a.name, a.properties)
        for a, g in zip(annotations, repaired(geometries), strict=True)
    ]


def write_geojson(
    path: Path | str, annotations: Iterable[Annotation], properties: Mapping[str, Any] | None = None
) -> None:
    """Write outlines so that QuPath and :func:`read_geojson` read them.

    Parameters
    ----------
    path
        Where to; an earlier file is replaced.
    annotations
        What to write, in order.
    properties
        Facts about the whole file, such as who drew it; other programs skip them.

    Raises
    ------
    LabelError
        If a property is nothing that JSON can hold.
    """
    document: dict[str, Any] = {"type": "FeatureCollection"}
    if properties:
        document["properties"] = dict(properties)
    document["features"] = [_feature(annotation) for annotation in annotations]
    try:
        data = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        raise LabelError(f"an outline's properties cannot be stored: {error}", "JSON values") from error
    write_file(Path(path), data + b"\n")


def read_properties(path: Path | str) -> dict[str, Any]:
    """Return the facts about the whole file that :func:`write_geojson` was given.

    Raises
    ------
    LabelError
        If the file is not JSON.
    """
    try:
        document = orjson.loads(read_file(Path(path)))
    except orjson.JSONDecodeError as error:
        raise LabelError(f"{path}, line {error.lineno}: this is not JSON: {error.msg}") from error
    found = document.get("properties") if isinstance(document, dict) else None
    return found if isinstance(found, dict) else {}


def _features(document: Any, path: Path) -> Sequence[Any]:
    """Return the features of any of the three kinds of files."""
    if isinstance(document, list):
        return document
    if isinstance(document, dict) and document.get("type") == "FeatureCollection":
        features = document.get("features")
        if isinstance(features, list):
            return features
    if isinstance(document, dict) and document.get("type") == "Feature":
        return [document]
    kind = document.get("type", "no type") if isinstance(document, dict) else type(document).__name__
    raise LabelError(
        f"{path} holds JSON of another kind ({kind})",
        "a FeatureCollection, an array of features, or one Feature",
        "export the outlines as GeoJSON",
    )


def _annotation(feature: Any) -> Annotation:
    """Build an outline from a feature; any problem is a ValueError or TypeError."""
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        raise ValueError("this is not a Feature")
    found = feature.get("properties") or {}
    if not isinstance(found, dict):
        raise ValueError("its properties are not a table")
    rest = dict(found)
    classification = rest.pop("classification", None) or {}
    if not isinstance(classification, dict):
        raise ValueError(f"its classification is {classification!r}, not a table")
    name = rest.pop("name", None) or ""
    color = _color(classification) or _color(rest)
    for key in ("color", "colorRGB"):
        rest.pop(key, None)
    if "id" in feature:
        rest["id"] = feature["id"]
    return Annotation(_class_name(classification), _geometry(feature.get("geometry")), color, str(name), rest)


def _class_name(classification: Mapping[str, Any]) -> str:
    """Return the class; QuPath writes a derived class as a list of names or joined by colons."""
    names = classification.get("names")
    if isinstance(names, list):
        return ": ".join(str(part) for part in names)
    return str(classification.get("name") or "")


def _color(values: Mapping[str, Any]) -> str | None:
    """Return ``#rrggbb`` from either way of writing a color."""
    if (parts := values.get("color")) is not None:
        if not isinstance(parts, list) or len(parts) not in (3, 4):
            raise ValueError(f"its color is {parts!r}, not [r, g, b]")
        return hex_color(*(int(part) for part in parts[:3]))
    if (packed := values.get("colorRGB")) is not None:
        number = int(packed) & 0xFFFFFF
        return hex_color(number >> 16, number >> 8 & 0xFF, number & 0xFF)
    return None


def _geometry(geometry: Any) -> BaseGeometry:
    """Build a shapely geometry."""
    if not isinstance(geometry, dict):
        raise ValueError("it has no geometry")
    kind = geometry.get("type")
    if kind == "GeometryCollection":
        parts = geometry.get("geometries")
        if not isinstance(parts, list):
            raise ValueError("its collection has no geometries")
        return shapely.GeometryCollection([_geometry(part) for part in parts])
    coordinates = geometry.get("coordinates")
    if kind not in _BUILDERS:
        raise ValueError(f"its geometry is a {kind!r}")
    if not isinstance(coordinates, list):
        raise ValueError(f"its {kind} has no coordinates")
    return _BUILDERS[kind](coordinates)


def _points(coordinates: Any, what: str = "point") -> NDArray[np.float64]:
    """Return ``(n, 2)`` finite positions; a third coordinate is dropped."""
    try:
        points = np.asarray(coordinates, np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError(f"a {what} has coordinates that are not pairs of numbers") from error
    if points.ndim != 2 or points.shape[1] < 2:
        raise ValueError(f"a {what} has coordinates that are not pairs of numbers")
    if len(points) < (shortest := _SHORTEST.get(what, 1)):
        raise ValueError(f"a {what} has {len(points)} corners, at least {shortest} are needed")
    if not np.isfinite(points).all():
        raise ValueError(f"a {what} has a coordinate that is not finite")
    return points[:, :2]


def _polygon(rings: list[Any]) -> shapely.Polygon:
    """Build a polygon from its outer ring and its holes; rings left open are closed."""
    if not rings:
        return shapely.Polygon()
    outer, *holes = (_points(ring, "ring") for ring in rings)
    return shapely.Polygon(outer, holes)


_BUILDERS: dict[str, Callable[[list[Any]], BaseGeometry]] = {
    "Polygon": _polygon,
    "MultiPolygon": lambda parts: shapely.MultiPolygon([_polygon(rings) for rings in parts]),
    "LineString": lambda line: shapely.LineString(_points(line, "line")),
    "MultiLineString": lambda lines: shapely.MultiLineString([_points(line, "line") for line in lines]),
    "Point": lambda point: shapely.Point(_points([point])[0]),
    "MultiPoint": lambda points: shapely.MultiPoint(_points(points)),
}


def _feature(annotation: Annotation) -> dict[str, Any]:
    """Return the outline as a feature."""
    properties = dict(annotation.properties)
    feature: dict[str, Any] = {"type": "Feature"}
    if "id" in properties:
        feature["id"] = properties.pop("id")
    feature["geometry"] = _numbers(shapely.geometry.mapping(annotation.geometry))
    properties.setdefault("objectType", "annotation")
    if annotation.name:
        properties["name"] = annotation.name
    color = list(rgb_color(annotation.color)) if annotation.color else None
    if annotation.class_name:
        properties["classification"] = {"name": annotation.class_name}
        if color:
            properties["classification"]["color"] = color
    elif color:
        properties["color"] = color
    feature["properties"] = properties
    return feature


def _numbers(value: Any) -> Any:
    """Write whole coordinates as whole numbers, which halves the file."""
    if isinstance(value, dict):
        return {key: _numbers(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_numbers(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value

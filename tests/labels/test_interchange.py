import time

import numpy as np
import orjson
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_histogan.errors import LabelError, StorageError
from napari_histogan.labels.annotation import Annotation
from napari_histogan.labels.classes import ClassTable
from napari_histogan.labels.geojson import read_geojson, read_properties, write_geojson
from napari_histogan.labels.interchange import (
    read_annotations,
    read_png_mask,
    write_annotations,
    write_png_mask,
)

CLASSES = ClassTable.from_names(["epidermis", "dermis", "keratin"])

numbers = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 3))
texts = st.text(st.characters(blacklist_categories=("Cs", "Cc"), max_codepoint=0x2FFF), max_size=12)
names = texts.map(str.strip).filter(bool)
colors = st.integers(0, 0xFFFFFF).map("#{:06x}".format)


@st.composite
def rectangles(draw, hole=True):
    x, y = draw(numbers), draw(numbers)
    width, height = draw(st.floats(8, 1e4)), draw(st.floats(8, 1e4))
    outer = shapely.box(x, y, x + width, y + height)
    if hole and draw(st.booleans()):
        return outer.difference(shapely.box(x + 2, y + 2, x + 5, y + 5))
    return outer


annotations = st.lists(
    st.builds(
        Annotation,
        names,
        st.one_of(rectangles(), rectangles().map(lambda p: shapely.MultiPolygon([p]))),
        st.one_of(st.none(), colors),
        texts,
        st.dictionaries(st.sampled_from(["isLocked", "note", "measurements"]), st.integers(0, 9)),
    ),
    max_size=4,
)


@given(annotations)
@settings(max_examples=60, deadline=None)
def test_geojson_gives_back_what_it_was_given(tmp_path_factory, given_annotations):
    path = tmp_path_factory.mktemp("geojson") / "outlines.geojson"
    write_annotations(path, given_annotations)
    found = read_annotations(path)
    assert len(found) == len(given_annotations)
    for before, after in zip(given_annotations, found, strict=True):
        assert after.geometry.equals_exact(before.geometry, tolerance=0)
        assert (after.class_name, after.color, after.name) == (before.class_name, before.color, before.name)
        assert after.properties == {**before.properties, "objectType": "annotation"}


@given(st.lists(st.builds(Annotation, names, rectangles(), colors, texts), max_size=4))
@settings(max_examples=60, deadline=None)
def test_imagescope_xml_gives_back_shapes_and_classes(tmp_path_factory, given_annotations):
    path = tmp_path_factory.mktemp("xml") / "outlines.xml"
    write_annotations(path, given_annotations)
    found = read_annotations(path)
    key = lambda a: (a.class_name, a.color, a.name, a.geometry.normalize().wkt)  # noqa: E731
    assert sorted(map(key, found)) == sorted(map(key, given_annotations))


def test_a_hole_stays_the_hole_of_its_outline_alone(tmp_path):
    island = shapely.box(40, 40, 60, 60)
    lake = shapely.box(0, 0, 100, 100).difference(shapely.box(30, 30, 70, 70))
    over = shapely.box(20, 20, 50, 50)
    path = tmp_path / "outlines.xml"
    write_annotations(path, [Annotation("dermis", shape, "#ff0000") for shape in (lake, island, over)])
    assert [a.geometry.area for a in read_annotations(path)] == pytest.approx([8400, 400, 900])


def test_all_three_kinds_of_geojson_files_are_read(tmp_path):
    feature = {
        "type": "Feature",
        "id": "b2c1",
        "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [4, 0], [4, 3]]]},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": "Tumor", "colorRGB": -3670016},
            "isLocked": True,
        },
    }
    for document in (feature, [feature], {"type": "FeatureCollection", "features": [feature]}):
        path = tmp_path / "outlines.json"
        path.write_bytes(orjson.dumps(document))
        (found,) = read_annotations(path)
        assert (found.class_name, found.color, found.geometry.area) == ("Tumor", "#c80000", 6)
        assert found.properties == {"objectType": "annotation", "isLocked": True, "id": "b2c1"}


def test_classes_are_written_as_qupath_expects_them(tmp_path):
    path = tmp_path / "outlines.geojson"
    write_annotations(path, [Annotation("dermis", shapely.box(0, 0, 2, 2), "#0a0b0c", "left")])
    document = orjson.loads(path.read_bytes())
    assert document["type"] == "FeatureCollection"
    (feature,) = document["features"]
    assert feature["type"] == "Feature"
    assert feature["properties"] == {
        "objectType": "annotation",
        "name": "left",
        "classification": {"name": "dermis", "color": [10, 11, 12]},
    }
    assert feature["geometry"]["coordinates"] == [[[2, 0], [2, 2], [0, 2], [0, 0], [2, 0]]]


def test_derived_classes_and_lines_and_points_are_kept(tmp_path):
    classification = {"names": ["Tumor", "Ki-67"], "color": [1, 2, 3]}
    shapes = [
        {"type": "LineString", "coordinates": [[0, 0], [4, 0]]},
        {"type": "Point", "coordinates": [3, 4]},
        {"type": "MultiPoint", "coordinates": [[3, 4], [5, 6]]},
    ]
    path = tmp_path / "a.geojson"
    path.write_bytes(
        orjson.dumps(
            [
                {"type": "Feature", "geometry": shape, "properties": {"classification": classification}}
                for shape in shapes
            ]
        )
    )
    found = read_annotations(path)
    assert [a.class_name for a in found] == ["Tumor: Ki-67"] * 3
    assert [a.geometry.geom_type for a in found] == ["LineString", "Point", "MultiPoint"]


def test_facts_about_the_file_are_kept(tmp_path):
    path = tmp_path / "a.geojson"
    write_geojson(path, [], {"drawn": "by eye"})
    assert read_geojson(path) == []
    assert read_properties(path) == {"drawn": "by eye"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"type": "Feature",\n nonsense}]', "line 2, column 2"),
        ('{"type": "Topology"}', r"another kind \(Topology\)"),
        ("[3]", "feature 0 .* not a Feature"),
        ('[{"type": "Feature", "geometry": null}]', "feature 0 .* no geometry"),
        (
            '[{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}}]',
            "2 corners",
        ),
        (
            '[{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1], [2]]]}}]',
            "not pairs of numbers",
        ),
        (
            '[{"type": "Feature", "geometry": {"type": "Point", "coordinates": [0, 0]},'
            ' "properties": {"classification": {"name": "x", "color": [1, 2, 999]}}}]',
            "feature 0 .* 0 to 255",
        ),
        ('[{"type": "Feature", "geometry": {"type": "Circle", "coordinates": []}}]', "'Circle'"),
    ],
)
def test_damaged_geojson_says_where(tmp_path, text, message):
    path = tmp_path / "a.geojson"
    path.write_text(text)
    with pytest.raises(LabelError, match=f"a.geojson.*{message}"):
        read_annotations(path)


IMAGESCOPE = """<?xml version="1.0"?>
<Annotations MicronsPerPixel="0.499">
 <Annotation Id="1" Name="" LineColor="65535">
  <Attributes><Attribute Name="Description" Value="gland"/></Attributes>
  <Regions><RegionAttributeHeaders/>
   <Region Id="1" Type="0" Text="big" NegativeROA="0"><Vertices>
    <Vertex X="0" Y="0"/><Vertex X="10" Y="0"/><Vertex X="10" Y="10"/><Vertex X="0" Y="10"/></Vertices>
   </Region><Region Id="2" Type="0" NegativeROA="1"><Vertices>
    <Vertex X="2" Y="2"/><Vertex X="4" Y="2"/><Vertex X="4" Y="4"/><Vertex X="2" Y="4"/></Vertices></Region>
   <Region Id="3" Type="4"><Vertices><Vertex X="2" Y="2"/><Vertex X="4" Y="2"/></Vertices></Region>
   <Region Id="4" Type="2"><Vertices><Vertex X="20" Y="0"/><Vertex X="40" Y="10"/></Vertices></Region>
   <Region Id="5" Type="1"><Vertices><Vertex X="50" Y="0"/><Vertex X="60" Y="5"/></Vertices></Region>
  </Regions></Annotation></Annotations>"""


def test_imagescope_layers_are_read(tmp_path, caplog):
    path = tmp_path / "slide.xml"
    path.write_text(IMAGESCOPE)
    big, ellipse, rectangle = read_annotations(path)
    assert (big.class_name, big.color, big.name) == ("gland", "#ffff00", "big")
    assert big.geometry.area == 96
    assert ellipse.geometry.area == pytest.approx(np.pi * 10 * 5, rel=1e-6)
    assert rectangle.geometry.area == 50
    assert "region 3 is an arrow or a ruler" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<Annotations>\n<Annotation>", "line 2, column"),
        ("<Slides/>", "another kind"),
        ("<Annotations><Annotation LineColor='red'/></Annotations>", "layer 1: LineColor is 'red'"),
        (
            IMAGESCOPE.replace('X="2" Y="2"/><Vertex X="4" Y="2"/><Vertex X="4" Y="4"', 'X="2"'),
            "region 2: a ve",
        ),
        (IMAGESCOPE.replace('X="10" Y="0"', 'X="nan" Y="0"'), "region 1: a vertex is not finite"),
        (IMAGESCOPE.replace('Type="4"', 'Type="0"'), "region 3 has 2 vertices"),
        ('<!DOCTYPE a [<!ENTITY e "ha">]><Annotations>&e;</Annotations>', "entities"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><Annotations/>', "document type"),
        ('<?xml version="1.0" encoding="utg-8"?><Annotations/>', "unknown encoding: utg-8"),
    ],
)
def test_damaged_or_hostile_xml_says_where(tmp_path, text, message):
    path = tmp_path / "slide.xml"
    path.write_text(text)
    with pytest.raises(LabelError, match=f"slide.xml.*{message}"):
        read_annotations(path)


def test_unknown_formats_and_missing_files_are_refused(tmp_path):
    for call in (read_annotations, lambda path: write_annotations(path, [])):
        with pytest.raises(LabelError, match=r"suffix '.ndpa'.*\.geojson"):
            call(tmp_path / "a.ndpa")
    with pytest.raises(LabelError, match="no file"):
        read_annotations(tmp_path / "a.geojson")
    with pytest.raises(StorageError, match="cannot be written"):
        write_annotations(tmp_path / "missing" / "a.geojson", [])
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_earlier_file(tmp_path):
    path = tmp_path / "a.geojson"
    write_annotations(path, [Annotation("dermis", shapely.box(0, 0, 1, 1))])
    before = path.read_bytes()
    with pytest.raises(LabelError, match="cannot be stored"):
        write_annotations(path, [Annotation("dermis", shapely.box(0, 0, 1, 1), properties={"a": object()})])
    assert path.read_bytes() == before


def test_masks_survive_png_and_show_their_colors(tmp_path):
    mask = np.random.default_rng(0).integers(0, 4, (13, 9)).astype(np.uint8)
    path = tmp_path / "mask.png"
    write_png_mask(path, mask, CLASSES)
    np.testing.assert_array_equal(read_png_mask(path, CLASSES), mask)
    shown = np.asarray(Image.open(path).convert("RGB"))
    np.testing.assert_array_equal(shown, CLASSES.color_lut()[mask])
    Image.fromarray(shown).save(path)
    np.testing.assert_array_equal(read_png_mask(path, CLASSES), mask)
    Image.fromarray(mask.astype(np.uint16)).save(path)
    np.testing.assert_array_equal(read_png_mask(path, CLASSES), mask)


def test_strange_pixels_say_where_they_are(tmp_path):
    path = tmp_path / "mask.png"
    values = np.zeros((5, 6), np.uint8)
    values[3, 2] = 200
    Image.fromarray(values).save(path)
    with pytest.raises(LabelError, match="value 200 at row 3, column 2"):
        read_png_mask(path, CLASSES)
    Image.fromarray(np.stack([values] * 3, -1)).save(path)
    with pytest.raises(LabelError, match="color #c8c8c8 at row 3, column 2"):
        read_png_mask(path, CLASSES)
    path.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(LabelError, match="no readable picture"):
        read_png_mask(path, CLASSES)


@pytest.mark.parametrize("suffix", [".geojson", ".xml"])
def test_twenty_thousand_polygons_load_in_seconds(tmp_path, suffix):
    rng = np.random.default_rng(0)
    shapes = shapely.buffer(shapely.points(rng.uniform(0, 1e5, (20_000, 2))), 30, quad_segs=2)
    path = tmp_path / f"many{suffix}"
    write_annotations(path, [Annotation("dermis", shape) for shape in shapes])
    start = time.process_time()
    assert len(read_annotations(path)) == 20_000
    assert time.process_time() - start < 20

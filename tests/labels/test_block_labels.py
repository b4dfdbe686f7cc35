"""Block labels from every kind of file, and what is said when a file is wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from napari_histogan.config.block_labels import TEN_BINS
from napari_histogan.errors import LabelError
from napari_histogan.labels.block_files import (
    labels_of_scores,
    read_block_csv,
    read_block_geojson,
    read_block_picture,
    score_blocks,
)
from napari_histogan.labels.block_labels import MISSING, BlockLabels, bin_names, binned, block_means


def write(tmp_path, text, name="blocks.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def square(x, y, side, name="", **properties):
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    properties = {**properties, **({"classification": {"name": name}} if name else {})}
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": properties,
    }


def test_a_table_by_row_and_column_and_one_by_corners_say_the_same(tmp_path):
    first = read_block_csv(write(tmp_path, "row,column,label\n0,0,high\n1,2,low\n0,1,\n2,0,high\n"), 50.0)
    second = read_block_csv(write(tmp_path, "X_um,Y_um,Label\n0,0,high\n100,50,low\n0,100,high\n"), 50.0)
    assert first.values == second.values == ("high", "low")
    assert np.array_equal(first.grid, [[0, -1, -1], [-1, -1, 1], [0, -1, -1]])
    assert np.array_equal(first.grid, second.grid)
    assert first.counts().tolist() == [2, 1]
    assert first.places(1).tolist() == [[1, 2]]


def test_numbers_as_labels_are_sorted_as_numbers(tmp_path):
    found = read_block_csv(write(tmp_path, "row,column,label\n0,0,10\n0,1,9\n0,2,none\n"), 50.0)
    assert found.values == ("9", "10")
    assert found.grid.tolist() == [[1, 0, -1]]


def test_scores_are_binned_and_a_missing_score_is_no_label(tmp_path):
    found = read_block_csv(write(tmp_path, "row,column,score\n0,0,19.9\n0,1,20\n0,2,100\n0,3,\n"), 50.0)
    assert found.values == bin_names(TEN_BINS)
    assert found.values[0] == "0-20 %"
    assert found.grid.tolist() == [[0, 1, 9, MISSING]]


def test_bins_hold_their_lower_edge_and_nothing_beyond():
    scores = np.array([4.9, 5.0, 10.0, 19.99, 20.0, 20.1, np.nan])
    assert binned(scores, (5, 10, 20)).tolist() == [-1, 0, 1, 1, 1, -1, -1]


def test_squares_of_qupath(tmp_path):
    features = [square(0, 0, 100, "tumor"), square(200, 100, 100, "stroma"), square(100, 0, 100, "tumor")]
    path = write(tmp_path, json.dumps({"type": "FeatureCollection", "features": features}), "blocks.geojson")
    found = read_block_geojson(path, 50.0, 0.5)
    assert found.values == ("stroma", "tumor")
    assert found.grid.tolist() == [[1, 1, -1], [-1, -1, 0]]
    scored = [square(0, 0, 100, score=97), square(100, 0, 100, score=3.5)]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": scored}), encoding="utf-8")
    assert read_block_geojson(path, 50.0, 0.5).grid.tolist() == [[9, 0]]


def test_a_pixel_a_block(tmp_path):
    Image.fromarray(np.array([[0, 255, 1], [1, 1, 0]], np.uint8)).save(tmp_path / "blocks.png")
    found = read_block_picture(tmp_path / "blocks.png", 200.0)
    assert found.values == ("0", "1")
    assert found.grid.tolist() == [[0, -1, 1], [1, 1, 0]]


def test_scores_of_a_map_are_means_over_blocks():
    rng = np.random.default_rng(0)
    picture = rng.uniform(0, 100, (60, 90))
    picture[:20, :20] = np.nan
    picture[20:25, 20:40] = np.nan
    found = score_blocks(lambda y, x: picture[y, x], picture.shape, 20.0)
    assert found.shape == (3, 5)
    assert np.isnan(found[0, 0])
    assert found[1, 1] == pytest.approx(picture[25:40, 20:40].mean())
    assert found[2, 4] == pytest.approx(picture[40:60, 80:90].mean())
    assert np.allclose(found[1:, 2:4], block_means(picture, 20)[1:, 2:4])
    labels = labels_of_scores(found, 10.0, (0, 50, 100))
    assert set(labels.grid.ravel().tolist()) <= {-1, 0, 1}
    with pytest.raises(LabelError, match="at least as fine"):
        score_blocks(lambda y, x: picture[y, x], picture.shape, 0.5)


def test_labels_survive_the_disk_and_damage_is_told(tmp_path):
    labels = BlockLabels(("a", "b"), np.array([[0, 1], [-1, 1]], np.int16), 12.5)
    labels.save(tmp_path)
    again = BlockLabels.load(tmp_path)
    assert (again.values, again.block_um) == (("a", "b"), 12.5)
    assert np.array_equal(again.grid, labels.grid)
    (tmp_path / "grid.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(LabelError, match="import the block labels again"):
        BlockLabels.load(tmp_path)


def test_a_grid_is_fitted_to_its_slide():
    labels = BlockLabels(("a",), np.zeros((2, 3), np.int16), 10.0)
    fitted = labels.fitted((25.0, 45.0), "blocks.csv")
    assert fitted.grid.tolist() == [[0, 0, 0, -1, -1], [0, 0, 0, -1, -1], [-1, -1, -1, -1, -1]]
    assert fitted.whole((25.0, 45.0)).sum() == 8
    with pytest.raises(LabelError, match=r"row 0, column 2 lies outside of the slide.*block_um"):
        labels.fitted((25.0, 18.0), "blocks.csv")
    with pytest.raises(LabelError, match=r"blocks.png has 2 x 3 blocks.*4 x 5"):
        labels.fitted((40.0, 50.0), "blocks.png", whole_grid=True)
    assert labels.fitted((24.0, 36.0), "blocks.png", whole_grid=True).grid.shape == (3, 4)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,b\n1,2\n", r"blocks.csv, line 1: the columns are a, b"),
        ("row,column,label\n0,0,x\n0,one,x\n", r"blocks.csv, line 3.*one"),
        ("row,column,label\n0,0,x\n0,0,y\n", r"line 3: the block in row 0, column 0 is there twice.*line 2"),
        ("row,column,score\n0,0,0.5\n0,1,250\n", r"line 3: the score is 250.*0 to 100 percent"),
        ("x_um,y_um,label\n0,0,x\n75,0,x\n", r"line 3: the block begins.*multiples of 50 um"),
        ("row,column,label\n-1,0,x\n", r"line 2: row -1"),
        ("row,column,label\n0,0,none\n", r"0 label values"),
        ("row,column,label\n", r"holds no block"),
    ],
)
def test_wrong_tables_are_refused_by_line(tmp_path, text, told):
    with pytest.raises(LabelError, match=told):
        read_block_csv(write(tmp_path, text), 50.0)


def test_wrong_squares_and_pictures_are_refused(tmp_path):
    path = write(tmp_path, json.dumps([square(0, 0, 100, "a"), square(0, 100, 30, "a")]), "b.geojson")
    with pytest.raises(LabelError, match=r"feature 1 .*15 x 15 um.*a square of 50 um"):
        read_block_geojson(path, 50.0, 0.5)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "rgb.png")
    with pytest.raises(LabelError, match="of the kind RGB"):
        read_block_picture(tmp_path / "rgb.png", 50.0)
    with pytest.raises(LabelError, match="no file"):
        read_block_csv(tmp_path / "none.csv", 50.0)

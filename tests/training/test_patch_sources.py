"""Folders in the layouts of DRIVE and CHASE_DB1, made up in miniature, and of any pictures with masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_histogan.errors import LabelError
from napari_histogan.training.patch_sources import kept_back, read_labelled

SIDE = 48


def vessels(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A round orange picture with a dark line, the line, and the disk."""
    y, x = np.mgrid[:SIDE, : SIDE + 4]
    disk = (y - SIDE / 2) ** 2 + (x - SIDE / 2) ** 2 < (SIDE / 2 - 3) ** 2
    line = np.abs(y - 10 - seed - x / 3) < 2
    color = np.where(line[..., None], (120, 40, 20), (220, 110, 50))
    return np.where(disk[..., None], color, 0).astype(np.uint8), line & disk, disk


def make_drive(root: Path) -> None:
    for split, numbers in (("training", (21, 22)), ("test", (1,))):
        for folder in ("images", "1st_manual", "mask"):
            (root / split / folder).mkdir(parents=True)
        for number in numbers:
            pixels, line, disk = vessels(number % 5)
            stem = f"{number:02d}_{split}"
            Image.fromarray(pixels).save(root / split / "images" / f"{stem}.tif")
            Image.fromarray(255 * line.astype(np.uint8)).save(
                root / split / "1st_manual" / f"{number:02d}_manual1.gif"
            )
            Image.fromarray(255 * disk.astype(np.uint8)).save(root / split / "mask" / f"{stem}_mask.gif")


def make_chase(root: Path) -> None:
    for number, eye in ((1, "L"), (1, "R"), (2, "L"), (2, "R"), (3, "L")):
        pixels, line, _ = vessels(number)
        Image.fromarray(pixels).save(root / f"Image_{number:02d}{eye}.jpg", quality=95)
        Image.fromarray(line).save(root / f"Image_{number:02d}{eye}_1stHO.png")
        Image.fromarray(~line).save(root / f"Image_{number:02d}{eye}_2ndHO.png")


def test_drive_is_read_part_by_part_with_its_fields_of_view(tmp_path):
    make_drive(tmp_path)
    training = read_labelled(tmp_path)
    assert [p.name for p in training] == ["21_training", "22_training"]
    for picture, seed in zip(training, (1, 2), strict=True):
        pixels, line, disk = vessels(seed)
        assert np.array_equal(picture.pixels, pixels)
        assert np.array_equal(picture.mask > 0, line)
        assert np.array_equal(picture.inside, disk)
    assert [p.name for p in read_labelled(tmp_path, "drive", "test")] == ["01_test"]
    assert [p.name for p in read_labelled(tmp_path / "test")] == ["01_test"]


def test_chase_is_grouped_by_child_and_its_field_of_view_is_found(tmp_path):
    make_chase(tmp_path)
    pictures = read_labelled(tmp_path)
    assert [p.group for p in pictures] == ["01", "01", "02", "02", "03"]
    _, line, disk = vessels(1)
    assert np.array_equal(pictures[0].mask > 0, line)  # the first observer's
    assert (pictures[0].inside == disk).mean() > 0.97
    back = kept_back(pictures, 0.3, seed=0)
    assert len(back) == 1
    assert kept_back(pictures, 0.95, seed=0) < {"01", "02", "03"}  # somebody is left to learn from
    assert kept_back(pictures, 0, seed=0) == set()


def test_any_two_folders_do_and_a_third_may_say_where_to_look(tmp_path):
    for name in ("images", "masks", "inside"):
        (tmp_path / name).mkdir()
    pixels, line, disk = vessels(0)
    for name in ("a", "b"):
        Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(line.astype(np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    Image.fromarray(disk).save(tmp_path / "inside" / "a.png")
    first, second = read_labelled(tmp_path)
    assert np.array_equal(first.inside, disk)
    assert second.inside.all()
    assert np.array_equal(second.mask, line.astype(np.uint8))


def test_what_is_missing_or_misfits_is_named(tmp_path):
    with pytest.raises(LabelError, match="no pictures"):
        read_labelled(tmp_path)
    with pytest.raises(LabelError, match="no pictures of this layout"):
        read_labelled(tmp_path, "chase")
    make_drive(tmp_path / "d")
    (tmp_path / "d" / "training" / "1st_manual" / "22_manual1.gif").unlink()
    with pytest.raises(LabelError, match=r"22_training.tif has no mask at .*22_manual1.gif"):
        read_labelled(tmp_path / "d")
    (tmp_path / "c").mkdir()
    make_chase(tmp_path / "c")
    Image.fromarray(np.zeros((9, 9), bool)).save(tmp_path / "c" / "Image_02R_1stHO.png")
    with pytest.raises(LabelError, match="9 x 9"):
        read_labelled(tmp_path / "c")


def test_the_real_set_has_ten_children_and_round_views(shared):
    folder = shared / "data" / "chase_db1"
    if not folder.is_dir():
        pytest.skip("CHASE_DB1 is not here")
    pictures = read_labelled(folder)
    assert len(pictures) == 20
    assert len({p.group for p in pictures}) == 10
    for picture in pictures:
        assert 0.6 < picture.inside.mean() < 0.85
        assert (picture.mask > 0)[~picture.inside].mean() < 0.002

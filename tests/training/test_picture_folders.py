from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_histogan.errors import ConfigError, LabelError
from napari_histogan.labels.classes import ClassTable
from napari_histogan.training.picture_folders import PictureFolder

CLASSES = ClassTable.from_names(["dark", "bright"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures whose brightness tells the class."""
    for name in ("train", "masks"):
        (tmp_path / name).mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a", (48, 80)), ("b", (24, 20))):
        mask = np.kron(rng.integers(1, 3, (size[0] // 4, size[1] // 4)), np.ones((4, 4))).astype(np.uint8)
        Image.fromarray(np.repeat(mask[..., None] * 100, 3, axis=2)).save(tmp_path / "train" / f"{name}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    return tmp_path


@pytest.mark.parametrize("mpp", [0.5, 1.0])
def test_patches_hold_the_pixels_that_their_masks_label(folder: Path, mpp: float) -> None:
    source = PictureFolder(folder, 0.5, CLASSES, 16, mpp)
    images, masks = source.batch(range(len(source)))
    assert images.shape == (len(source), 16, 16, 3)
    labeled = masks > 0
    assert np.array_equal((images[..., 0] // 100)[labeled], masks[labeled])
    assert source.class_counts()[1:3].sum() == labeled.sum()
    assert set(source.groups) == {0, 1}
    expected = {0.5: 3 * 5 + 2 * 2, 1.0: 2 * 3 + 1}[mpp]
    assert len(source) == expected


def test_a_picture_smaller_than_a_patch_is_unlabelled_at_its_rim(folder: Path) -> None:
    source = PictureFolder(folder, 0.5, CLASSES, 64, 0.5)
    _, masks = source.batch([len(source) - 1])
    assert (masks[0][:24, :20] > 0).all()
    assert not masks[0][24:].any()
    assert not masks[0][:, 20:].any()


def test_a_picture_without_mask_is_named(folder: Path) -> None:
    (folder / "masks" / "b.png").unlink()
    with pytest.raises(LabelError, match="holds b as a picture or as a mask only"):
        PictureFolder(folder, 0.5, CLASSES, 16, 0.5)


def test_what_does_not_fit_is_refused(folder: Path) -> None:
    with pytest.raises(LabelError, match="no pictures and masks"):
        PictureFolder(folder / "masks", 0.5, CLASSES, 16, 0.5)
    with pytest.raises(ConfigError, match="accept_far_mpp"):
        PictureFolder(folder, 0.1, CLASSES, 16, 0.5)
    mask = folder / "masks" / "b.png"
    Image.fromarray(np.full((24, 20), 3, np.uint8)).save(mask)
    with pytest.raises(LabelError, match="3"):
        PictureFolder(folder, 0.5, CLASSES, 16, 0.5)
    Image.fromarray(np.ones((24, 24), np.uint8)).save(mask)
    with pytest.raises(LabelError, match="its mask"):
        PictureFolder(folder, 0.5, CLASSES, 16, 0.5)
    mask.write_bytes(b"no picture")
    with pytest.raises(LabelError, match="cannot be read"):
        PictureFolder(folder, 0.5, CLASSES, 16, 0.5)


def test_masks_without_a_label_are_refused(folder: Path) -> None:
    for path in (folder / "masks").iterdir():
        with Image.open(path) as image:
            size = image.size
        Image.new("L", size).save(path)
    with pytest.raises(LabelError, match="labels a pixel"):
        PictureFolder(folder, 0.5, CLASSES, 16, 0.5)

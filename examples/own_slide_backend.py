"""A slide format of your own: ``python examples/own_slide_backend.py FOLDER``.

A backend says what its levels are and how the inside of one is read; padding, resampling to any um/px,
thumbnails, lazy pyramids for viewers, and tissue are written once, in the base class. This one reads
pyramids kept as numpy files, ``level-0.npy``, ``level-1.npy``, and so on, without loading them. What takes a
``SlideReader``, such as ``run_tiles``, takes it; a project opens its slides by their suffix (``open_slide``).
"""

import sys
from pathlib import Path

import numpy as np

from napari_histogan.geometry import Region, Size
from napari_histogan.slides.reader import SlideReader, pyramid_levels
from napari_histogan.slides.tissue import tissue_mask


class NumpySlide(SlideReader):
    """A folder of (H, W, 3) uint8 arrays; ``mpp.txt`` says the resolution of the finest."""

    def __init__(self, path: Path, mpp: float | None = None) -> None:
        files = sorted(Path(path).glob("level-*.npy"))
        self._arrays = [np.load(file, mmap_mode="r") for file in files]
        sizes = [Size(*array.shape[:2]) for array in self._arrays]
        file_mpp = float((Path(path) / "mpp.txt").read_text())
        super().__init__(path, pyramid_levels(sizes), file_mpp, mpp)

    def _read_inside(self, region: Region, level: int) -> np.ndarray:
        return np.array(self._arrays[level][region.slices])


def main(folder: Path) -> NumpySlide:
    folder.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:1200, :1600]
    disc = (y - 600) ** 2 + (x - 800) ** 2 < 400**2
    finest = np.where(disc[..., None], [180, 90, 150], [244, 243, 245]).astype(np.uint8)
    for level, step in enumerate((1, 4)):
        np.save(folder / f"level-{level}.npy", finest[::step, ::step])
    (folder / "mpp.txt").write_text("0.5")

    slide = NumpySlide(folder)
    print(slide)
    print("1 um/px:", slide.read_at(Region(250, 350, 100, 100), 1.0).shape)
    print("beyond the rim:", slide.read(Region(-10, -10, 20, 20))[0, 0])
    print("lazy levels:", [level.shape for level in slide.pyramid()])
    whole = Region(0, 0, *slide.size_at(1.0).shape)
    print(f"tissue: {tissue_mask(slide).fraction(whole, 1.0):.2f}, drawn: {disc.mean():.2f}")
    return slide


if __name__ == "__main__":
    main(Path(sys.argv[1]))

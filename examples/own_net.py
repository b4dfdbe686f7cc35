"""A segmentation net of your own in the tiling engine: ``python examples/own_net.py FOLDER``.

Whatever maps pixels to class probabilities will do: a net of another library, on any device, or plain
arithmetic. The engine reads ahead, skips glass, blends overlaps, and writes an OME-Zarr map that grows.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from napari_histogan.demo import SLIDE
from napari_histogan.inference.net_tiles import with_tissue
from napari_histogan.inference.tiles import run_tiles
from napari_histogan.progress import QuietReporter
from napari_histogan.slides.reader import open_slide
from napari_histogan.slides.zarr_pyramid import PyramidWriter, open_pyramid


class OwnNet:
    """What the engine asks of a model: four numbers and a call."""

    mpp = 4.0  # um/px that the net was trained at; the engine resamples the slide
    margin_px = 2  # pixels at a window's rim that lack context: 1 for each of two 3 x 3 convolutions
    stride_px = 1  # 2 to the power of the net's downsamplings
    num_classes = 2

    def __init__(self) -> None:
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, self.num_classes, 3, padding=1)
        self.net = nn.Sequential(*layers).eval()

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Map (n, 3, S, S) uint8 to probabilities (n, K, S, S) float32."""
        return self.net(pixels.float() / 255).softmax(dim=1)


def main(folder: Path) -> None:
    model = OwnNet()
    with open_slide(SLIDE) as slide:
        size = slide.size_at(model.mpp)
        writer = PyramidWriter(folder / "own.zarr", size, ["one", "two"], mpp=model.mpp)
        done = run_tiles(slide, model, writer, QuietReporter(), wanted=with_tissue(slide, model.mpp))
    print(done)
    level = open_pyramid(folder / "own.zarr").levels[0]
    print(level.shape, "percent at the middle:", level[:, size.height // 2, size.width // 2])


if __name__ == "__main__":
    main(Path(sys.argv[1]))

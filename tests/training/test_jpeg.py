from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from napari_histogan.training.jpeg import jpeg_like


def picture(side: int = 40) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(40, 230, (8, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float32)
    return np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("quality", [20, 50, 85])
def test_it_takes_away_what_a_jpeg_file_takes_away(quality: int) -> None:
    image = picture()
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    expected = np.asarray(Image.open(buffer), np.float32)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    found = jpeg_like(tensor, torch.tensor([float(quality)]))[0].permute(1, 2, 0).numpy()
    lost = np.abs(expected - image).mean()
    assert np.abs(found - expected).mean() < 0.3 * lost
    assert np.abs(found - expected).mean() < 1.5


def test_each_picture_has_its_quality_and_any_size_is_taken() -> None:
    tensor = torch.from_numpy(picture(37)).permute(2, 0, 1)[None].float().repeat(2, 1, 1, 1)
    found = jpeg_like(tensor, torch.tensor([10.0, 95.0]))
    assert found.shape == tensor.shape
    lost = (found - tensor).abs().mean(dim=(1, 2, 3))
    assert lost[0] > 2 * lost[1]
    assert found.min() >= 0
    assert found.max() <= 255

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_histogan.geometry import Region
from napari_histogan.slides.reader import open_slide
from napari_histogan.slides.stain import combine, separate
from napari_histogan.training.augment import AugmentStrength, augment, warp

Batch = tuple[torch.Tensor, torch.Tensor]
STILL = AugmentStrength(
    flip=0, turn=0, rotate=0, scale=0, shift=0, stain=0, stain_offset=0, blur=0, blur_px=0, noise=0, jpeg=0
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def batch(demo_slide: Path) -> Batch:
    """Eight patches of tissue, and masks that follow their brightness."""
    with open_slide(demo_slide) as reader:
        patches = [reader.read_at(Region(300 + 40 * k, 600, 64, 64), 1.0) for k in range(8)]
    pixels = torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).float()
    return pixels, 1 + (pixels.mean(dim=1) > 150).long()


def only(**strength: float) -> AugmentStrength:
    return replace(STILL, **strength)


def test_without_strength_nothing_changes(batch: Batch) -> None:
    pixels, masks = augment(*batch, seeded(), STILL)
    torch.testing.assert_close(pixels, batch[0], atol=1e-3, rtol=0)
    assert torch.equal(masks, batch[1])


def test_flips_and_quarter_turns_move_pixels_and_masks_alike(
    batch: Batch,
) -> None:
    pixels, masks = augment(*batch, seeded(), only(flip=0.5, turn=1))
    found = set()
    for before, mask_before, after, mask_after in zip(*batch, pixels, masks, strict=True):
        matches = [
            (mirrored, turns)
            for mirrored in (False, True)
            for turns in range(4)
            if torch.allclose(_moved(before, mirrored, turns), after, atol=0.05)
            and torch.equal(_moved(mask_before, mirrored, turns), mask_after)
        ]
        assert len(matches) == 1
        found.update(matches)
    assert len(found) > 2


def _moved(image: torch.Tensor, mirrored: bool, turns: int) -> torch.Tensor:
    return torch.rot90(image.flip(-1) if mirrored else image, turns, (-2, -1))


def test_masks_keep_their_values_and_are_unlabelled_outside(batch: Batch) -> None:
    _, masks = augment(
        batch[0], 3 * torch.ones_like(batch[1]), seeded(), only(rotate=1, scale=0.5, shift=0.2)
    )
    assert set(masks.unique().tolist()) == {0, 3}


def test_a_shift_moves_a_mask_with_its_image() -> None:
    image = torch.zeros(1, 3, 32, 32)
    image[..., 10:14, 20:24] = 255
    mask = (image[:, 0] > 0).long() + 1
    affine = torch.tensor([[[1.0, 0, 8 / 16], [0, 1, -4 / 16]]])  # 8 px to the left, 4 px down
    pixels, moved = warp(image, mask, affine)
    assert torch.equal(moved[0, 14:18, 12:16], torch.full((4, 4), 2))
    assert (moved == 2).sum() == 16
    assert (moved[0, :4] == 0).all()
    assert (moved[0, :, 24:] == 0).all()
    torch.testing.assert_close(pixels[0, 0, 14:18, 12:16], torch.full((4, 4), 255.0))


def test_stain_jitter_scales_the_amounts_of_stain(batch: Batch) -> None:
    pixels, _ = augment(*batch, seeded(), only(stain=0.3))
    for before, after in zip(batch[0], pixels, strict=True):
        amounts = separate(before.permute(1, 2, 0).numpy().astype(np.uint8)).reshape(-1, 3)
        changed = separate(after.permute(1, 2, 0).numpy()).reshape(-1, 3)
        unclipped = ((after > 2) & (after < 253)).all(dim=0).flatten().numpy()
        stained = unclipped & (amounts[:, :2] > 0.1).all(axis=1)
        ratio = changed[stained, :2] / amounts[stained, :2]
        assert ratio.std(axis=0).max() < 0.03
        assert (np.abs(ratio.mean(axis=0) - 1) < 0.31).all()


def test_stain_jitter_agrees_with_the_slides_own_deconvolution() -> None:
    gray = torch.full((1, 3, 8, 8), 128.0)
    pixels, _ = augment(gray, torch.ones(1, 8, 8), seeded(), only(stain_offset=0.1))
    amounts = separate(pixels[0].permute(1, 2, 0).numpy())
    shift = amounts - separate(gray[0].permute(1, 2, 0).numpy())
    assert np.abs(shift).max() < 0.11
    assert np.abs(shift).max() > 0.01
    shown = combine(amounts.astype(np.float32))
    assert np.abs(shown.astype(float) - pixels[0].permute(1, 2, 0).numpy()).max() <= 1


def test_blur_smooths_some_images_and_keeps_their_mean(batch: Batch) -> None:
    pixels, masks = augment(*batch, seeded(1), only(blur=0.5, blur_px=2.0))
    roughness = (pixels.diff(dim=-1).abs().mean((1, 2, 3)), batch[0].diff(dim=-1).abs().mean((1, 2, 3)))
    smoothed = roughness[0] < 0.95 * roughness[1]
    assert 0 < smoothed.sum() < 8
    torch.testing.assert_close(pixels.mean((1, 2, 3)), batch[0].mean((1, 2, 3)), atol=1.5, rtol=0)
    assert torch.equal(masks, batch[1])


def test_noise_differs_between_images(batch: Batch) -> None:
    pixels, _ = augment(torch.full_like(batch[0], 128), batch[1], seeded(), only(noise=10))
    strength = pixels.std((1, 2, 3))
    assert strength.max() < 11
    assert strength.max() > 2 * strength.min()


def test_one_seed_gives_one_result_in_range(batch: Batch) -> None:
    first, second, other = (augment(*batch, seeded(seed))[0] for seed in (5, 5, 6))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert first.min() >= 0
    assert first.max() <= 255

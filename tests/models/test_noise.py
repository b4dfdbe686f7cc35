from __future__ import annotations

import torch

from napari_histogan.models.noise import noise_maps
from napari_histogan.models.stylegan2 import Generator, GeneratorSpec

SPEC = GeneratorSpec(z_dim=16, c_dim=0, w_dim=16, img_resolution=32, channel_base=256, channel_max=16)


def test_a_sample_has_the_same_noise_in_every_batch() -> None:
    together = noise_maps(SPEC, [3, 2**62, 7])
    for i, seed in enumerate((3, 2**62, 7)):
        for a, b in zip(together, noise_maps(SPEC, [seed]), strict=True):
            assert torch.equal(a[i : i + 1], b)
    assert not torch.equal(together[0][0], together[0][2])


def test_the_numbers_never_change() -> None:
    first = noise_maps(SPEC, [12345])[0].flatten()[:4]
    expected = torch.tensor(
        [-0.0765472799539566, 0.34252315759658813, -0.3746684193611145, 1.526304841041565]
    )
    assert torch.equal(first, expected)


def test_shapes_are_those_of_the_generator() -> None:
    shapes = Generator(SPEC).synthesis.noise_shapes()
    assert [tuple(m.shape) for m in noise_maps(SPEC, [1, 2])] == [(2, 1, *s) for s in shapes]


def test_unit_normal() -> None:
    drawn = torch.cat([m.flatten() for m in noise_maps(SPEC, range(40))])
    assert abs(float(drawn.mean())) < 0.01
    assert abs(float(drawn.std()) - 1) < 0.01

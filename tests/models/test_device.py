from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from napari_histogan.config import TrainSegmenterConfig
from napari_histogan.errors import ConfigError
from napari_histogan.models.device import (
    NARROW,
    available_cores,
    has_matrix_unit,
    has_native_bfloat16,
    resolve,
    resolve_for_training,
)


@pytest.fixture(autouse=True)
def _same_threads_after() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_auto_leaves_a_core_to_the_viewer() -> None:
    compute = resolve(TrainSegmenterConfig(device="cpu"))
    assert compute.threads == max(1, available_cores() - 1)
    assert torch.get_num_threads() == compute.threads


def test_threads_are_applied() -> None:
    assert resolve(TrainSegmenterConfig(device="cpu", threads=2)).threads == 2
    assert torch.get_num_threads() == 2


def test_precision_follows_the_hardware_unless_told() -> None:
    auto = resolve(TrainSegmenterConfig(device="cpu", threads=1))
    assert (auto.dtype == torch.bfloat16) == has_native_bfloat16()
    assert resolve(TrainSegmenterConfig(device="cpu", precision="float32")).dtype == torch.float32
    assert resolve(TrainSegmenterConfig(device="cpu", precision="bfloat16")).dtype == torch.bfloat16


def test_narrow_nets_are_trained_in_float32_unless_told() -> None:
    auto = TrainSegmenterConfig(device="cpu")
    assert resolve_for_training(auto, NARROW) == resolve(auto)
    narrow = resolve_for_training(auto, NARROW - 1)
    assert narrow.dtype == (resolve(auto).dtype if has_matrix_unit() else torch.float32)
    told = TrainSegmenterConfig(device="cpu", precision="bfloat16")
    assert resolve_for_training(told, 1).dtype == torch.bfloat16


def test_autocast_runs_convolutions_in_the_chosen_type() -> None:
    layer, image = torch.nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8)
    for precision, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        compute = resolve(TrainSegmenterConfig(device="cpu", precision=precision))
        with compute.autocast():
            assert layer(image).dtype == dtype


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_missing_device_is_refused_with_the_devices_that_are_there() -> None:
    with pytest.raises(ConfigError, match=r"only: cpu"):
        resolve(TrainSegmenterConfig(device="cuda"))

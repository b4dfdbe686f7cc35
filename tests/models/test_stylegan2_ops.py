"""Contracts of the StyleGAN2 arithmetic: golden arrays, adjoints, derivatives."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from napari_histogan.errors import ModelError
from napari_histogan.models import stylegan2_ops as ops


@pytest.fixture
def golden(request):
    """Load one file of golden arrays, or skip where they are absent."""

    def load(name: str) -> dict[str, Tensor | str]:
        path = Path(__file__).parents[2] / ".." / "shared" / "reference" / "golden" / name
        if not path.exists():
            pytest.skip("golden arrays are not beside the checkout")
        with np.load(path) as arrays:
            return {k: str(v) if v.dtype.kind == "U" else torch.from_numpy(v) for k, v in arrays.items()}

    return load


def test_filter_is_outer_product_of_sum_one():
    f = ops.setup_filter([1, 3, 3, 1])
    assert f.shape == (4, 4)
    assert f[1, 2] == pytest.approx(9 / 64)
    assert f.sum() == pytest.approx(1)
    assert ops.setup_filter([1.0] * 12).shape == (12,)
    assert ops.setup_filter(None).shape == (1, 1)


@pytest.mark.parametrize("case", range(10))
def test_upfirdn2d_matches_golden(golden, case):
    data = golden("upfirdn2d.npz")
    name, arguments = ast.literal_eval(data[f"case{case}.args"])
    f = None if name == "none" else data[name]
    torch.testing.assert_close(
        ops.upfirdn2d(data["x"], f, **arguments), data[f"case{case}.out"], rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("name", ["upsample2d", "downsample2d", "filter2d"])
def test_resampling_matches_golden(golden, name):
    data = golden("upfirdn2d.npz")
    torch.testing.assert_close(getattr(ops, name)(data["x"], data["f4"]), data[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("act", ops.ACTIVATION_GAINS)
def test_bias_act_matches_golden(golden, act):
    data = golden("bias_act.npz")
    assert ops.ACTIVATION_GAINS[act] == data[f"{act}.def_gain"]
    plain = ops.bias_act(data["x"], data["b"], act=act)
    clamped = ops.bias_act(data["x"], data["b"], act=act, gain=0.7, clamp=0.9)
    torch.testing.assert_close(plain, data[f"{act}.default"], rtol=0, atol=1e-6)
    torch.testing.assert_close(clamped, data[f"{act}.gain0.7_clamp0.9"], rtol=0, atol=1e-6)


def test_unknown_activation_is_refused():
    with pytest.raises(ModelError, match="mish"):
        ops.activate(torch.zeros(1), "mish")


@pytest.mark.parametrize("case", range(9))
def test_conv2d_resample_matches_golden(golden, case):
    data = golden("conv2d_resample.npz")
    name, arguments = ast.literal_eval(data[f"case{case}.args"])
    f = ops.setup_filter([1, 3, 3, 1])
    out = ops.conv2d_resample(data["x"], data[name], f, **arguments)
    torch.testing.assert_close(out, data[f"case{case}.out"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", ["up1", "up2", "nodemod_1x1"])
def test_modulated_convolution_matches_golden(golden, case):
    data = golden("conv2d_resample.npz")
    f = ops.setup_filter([1, 3, 3, 1])
    weight = data["w1"] if case == "nodemod_1x1" else data["w3"]
    up = 2 if case == "up2" else 1
    demodulate = case != "nodemod_1x1"
    y, scale = ops.modulated_conv2d(data["x"], weight, data["styles"], f=f, up=up, demodulate=demodulate)
    if scale is not None:
        y = y * scale[:, :, None, None]
    if case == "up1":
        y = y + data["noise"]
    torch.testing.assert_close(y, data[f"modconv.{case}"], rtol=0, atol=1e-5)
    if f"modconv.{case}_nonfused" in data:
        torch.testing.assert_close(y, data[f"modconv.{case}_nonfused"], rtol=0, atol=1e-5)


def test_modulated_projection_is_the_modulated_1x1_convolution(golden):
    data = golden("conv2d_resample.npz")
    y = ops.modulated_project(data["x"], data["w1"][:, :, 0, 0], data["styles"])
    torch.testing.assert_close(y, data["modconv.nodemod_1x1"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_merged_kernels_equal_filter_and_convolution_in_turn(direction):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    weight = torch.randn(5, 3, 3, 3, dtype=torch.float64)
    f = torch.rand(4, 4, dtype=torch.float64)  # not symmetric, so that a flip would show
    if direction == "up":
        merged = ops.conv2d_up2(x, weight, f)
        steps = ops.upfirdn2d(x, f, up=2, padding=[3, 2, 3, 2], gain=4)
        steps = torch.nn.functional.conv2d(steps, weight.flip([2, 3]))
    else:
        merged = ops.conv2d_down2(x, weight, f)
        steps = ops.upfirdn2d(x, f, padding=[2] * 4)
        steps = torch.nn.functional.conv2d(steps, weight, stride=2)
    torch.testing.assert_close(merged, steps)


@pytest.mark.parametrize("flip", [False, True])
def test_resampling_by_two_equals_upfirdn_and_has_right_derivatives(flip):
    torch.manual_seed(0)
    x = torch.randn(1, 2, 6, 4, dtype=torch.float64, requires_grad=True)
    f = torch.rand(4, 4, dtype=torch.float64)
    up = ops.upfirdn2d(x, f, up=2, padding=[2, 1, 2, 1], flip_filter=flip, gain=4 * 0.7)
    torch.testing.assert_close(ops.upsample2d(x, f, flip_filter=flip, gain=0.7), up)
    down = ops.upfirdn2d(x, f, down=2, padding=1, flip_filter=flip, gain=0.7)
    torch.testing.assert_close(ops.downsample2d(x, f, flip_filter=flip, gain=0.7), down)
    for function in (ops.upsample2d, ops.downsample2d):
        assert gradcheck(lambda x, run=function: run(x, f, flip_filter=flip), (x,))
        assert gradgradcheck(lambda x, run=function: run(x, f, flip_filter=flip), (x,))


@pytest.mark.parametrize("shape", [(3, 1), (1, 0), (3, 2)])
def test_convolution_has_right_first_and_second_derivatives(shape):
    kernel, padding = shape
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 3, kernel, kernel, dtype=torch.float64, requires_grad=True)

    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return ops.conv2d(x, weight, bias, padding=padding)

    expected = torch.nn.functional.conv2d(x, weight, bias, padding=padding)
    torch.testing.assert_close(run(x, weight, bias), expected)
    assert gradcheck(run, (x, weight, bias))
    assert gradgradcheck(run, (x, weight, bias))


@pytest.mark.parametrize("function", [ops.conv2d_up2, ops.conv2d_down2])
def test_resampling_convolutions_have_right_second_derivatives(function):
    torch.manual_seed(0)
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    f = ops.setup_filter([1, 3, 3, 1]).double()
    assert gradgradcheck(lambda x, weight: function(x, weight, f), (x, weight))


def test_scaled_bias_act_has_right_second_derivatives():
    torch.manual_seed(0)
    tensors = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 3, 4, 4), (2, 3), (2, 1, 4, 4), (3,))
    ]

    def run(y: Tensor, scale: Tensor, noise: Tensor, bias: Tensor) -> Tensor:
        return ops.scaled_bias_act(y, scale, noise, bias, act="lrelu")

    assert gradcheck(run, tensors)
    assert gradgradcheck(run, tensors)


def test_second_derivative_in_bfloat16_stays_near_float32():
    torch.manual_seed(0)
    x, weight = torch.randn(2, 8, 8, 8), torch.randn(8, 8, 3, 3) / 9

    def penalty_gradient(dtype: torch.dtype) -> Tensor:
        leaf = weight.clone().requires_grad_()
        image = x.clone().requires_grad_()
        y = ops.conv2d(image.to(dtype), leaf.to(dtype), padding=1).square().float().sum()
        (gradient,) = torch.autograd.grad(y, image, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), leaf)[0]

    exact, half = penalty_gradient(torch.float32), penalty_gradient(torch.bfloat16)
    assert (exact - half).abs().max() < 0.03 * exact.abs().max()

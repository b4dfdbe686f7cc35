"""Convolutions that stay cheap when differentiated twice.

R1 and path length regularization (Karras et al. 2020, "Analyzing and Improving the Image Quality of
StyleGAN", section 3.2) take the gradient of a gradient. The backward passes of the functions here consist of
convolutions again, so that the second derivative costs as much as the first; the second derivative of torch's
convolution is ten times slower on processors without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor


class _Conv(torch.autograd.Function):
    """Convolution whose gradients are convolutions, too."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride=stride, padding=padding)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _adjoint(grad, weight, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            grad_weight = _conv_weight_grad(grad, x, weight.shape[2], ctx.stride, ctx.padding)
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum(dim=[0, 2, 3])
        return grad_x, grad_weight, grad_bias, None, None


class _TransposedConv(torch.autograd.Function):
    """Adjoint of `_Conv` with stride 2 and no padding, on the same weight (O, I, k, k)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv_transpose2d(x, weight, stride=2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        grad_x = _conv(grad, weight, None, 2, 0) if ctx.needs_input_grad[0] else None
        # What came out takes the place of what goes in, and the other way round.
        grad_weight = _conv_weight_grad(x, grad, weight.shape[2], 2, 0) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight


class _ConvWeightGrad(torch.autograd.Function):
    """Gradient of a convolution with respect to its weight, itself bilinear in (grad, x)."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(grad, x)
        ctx.stride, ctx.padding = stride, padding
        weight = x.new_empty((grad.shape[1], x.shape[1], kernel, kernel))
        layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else None
        if layout is not None:
            weight = weight.contiguous(memory_format=layout)
            grad = grad.contiguous(memory_format=layout)
        s, p = [stride, stride], [padding, padding]
        out = torch.ops.aten.convolution_backward(
            grad, x, weight, None, s, p, [1, 1], False, [0, 0], 1, [False, True, False]
        )
        return cast(Tensor, out[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad_weight,) = grads
        grad, x = ctx.saved_tensors
        to_grad = to_x = None
        if ctx.needs_input_grad[0]:
            to_grad = _conv(x, grad_weight, None, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            to_x = _adjoint(grad, grad_weight, ctx.stride, ctx.padding)
        return to_grad, to_x, None, None, None


_conv = cast(Callable[..., Tensor], _Conv.apply)
_transposed_conv = cast(Callable[..., Tensor], _TransposedConv.apply)
_conv_weight_grad = cast(Callable[..., Tensor], _ConvWeightGrad.apply)


def _adjoint(grad: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Return the adjoint of a convolution in its input; that of stride 2 has no padding."""
    if stride == 2:
        return transposed_conv2d(grad, weight)
    return conv2d(grad, weight.flip([2, 3]).transpose(0, 1), padding=weight.shape[2] - 1 - padding)


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, padding: int = 0) -> Tensor:
    """Cross-correlate with stride 1, fast in the first and in higher derivatives.

    Parameters
    ----------
    x
        (N, I, H, W), best in channels-last order.
    weight
        (O, I, k, k) with the dtype of `x`.
    bias
        (O,) with the dtype of `x`.
    padding
        Zeros on every side, at most k - 1.
    """
    return _conv(x, weight, bias, 1, padding)


def transposed_conv2d(x: Tensor, weight: Tensor) -> Tensor:
    """Apply the adjoint of `strided_conv2d`, on the same weight: (N, O, H, ...) to (N, I, 2H + 1, ...)."""
    return _transposed_conv(x, weight)


def strided_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Cross-correlate with stride 2 and no padding: (N, I, 2H + 1, ...) by (O, I, 3, 3) to (N, O, H, ...)."""
    return _conv(x, weight, bias, 2, 0)


class _LowPass(torch.autograd.Function):
    """Correlate every channel with (4, 4) taps at the same resolution; the taps get no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: Tensor, padding: int) -> Tensor:
        ctx.f, ctx.padding = f, padding
        c = x.shape[1]
        return F.conv2d(x, f.to(x.dtype).expand(c, 1, 4, 4), padding=padding, groups=c)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _low_pass(grads[0], ctx.f.flip([0, 1]), 3 - ctx.padding), None, None


_low_pass = cast(Callable[..., Tensor], _LowPass.apply)


def low_pass(x: Tensor, f: Tensor, padding: int) -> Tensor:
    """Correlate every channel of x (N, C, H, W), best in channels-last order, with taps f (4, 4).

    Parameters
    ----------
    x, f
        Picture and taps; the taps get no gradient.
    padding
        Zeros on every side, at most 3; the result has H + 2 padding - 3 rows.
    """
    return _low_pass(x, f, padding)

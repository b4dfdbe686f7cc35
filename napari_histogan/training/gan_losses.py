"""Losses and regularization of StyleGAN2 (Karras et al. 2020, section 3.2 and appendix B)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATH_LENGTH_DECAY = 0.01


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Return the non-saturating logistic loss of the generator, a scalar (Goodfellow et al. 2014)."""
    return F.softplus(-fake_logits).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return the logistic loss of the discriminator, a scalar."""
    return F.softplus(fake_logits).mean() + F.softplus(-real_logits).mean()


def r1_penalty(real_logits: Tensor, images: Tensor) -> Tensor:
    """Return the squared norm of the gradient of each logit in its real image (Mescheder et al. 2018, eq. 9).

    Parameters
    ----------
    real_logits
        (N, 1), computed from `images` (augmented or not) with gradients recorded.
    images
        (N, C, H, W) leaf that requires a gradient, before augmentation.

    Returns
    -------
    Tensor
        (N,), differentiable in the weights of the discriminator.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), images, create_graph=True)
    return gradient.square().sum(dim=[1, 2, 3])


def path_lengths(images: Tensor, ws: Tensor, noise: Tensor) -> Tensor:
    """Return how far an image moves with a step in w, for each sample (Karras et al. 2020, eq. 4).

    Parameters
    ----------
    images
        (N, C, H, W) synthesized from `ws`.
    ws
        (N, num_ws, w_dim).
    noise
        (N, C, H, W), unit-normal.

    Returns
    -------
    Tensor
        (N,), differentiable in the weights of the generator.
    """
    direction = noise / math.sqrt(images.shape[2] * images.shape[3])
    (gradient,) = torch.autograd.grad((images * direction).sum(), ws, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()


def path_length_penalty(
    lengths: Tensor, running_mean: Tensor, batch_mean: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Compare path lengths with their running mean.

    Parameters
    ----------
    lengths
        (N,) from `path_lengths`.
    running_mean
        Scalar kept from the call before, 0 at the start.
    batch_mean
        Mean length of the whole batch, a scalar without gradient, where `lengths` are a share of it. The
        gradients of all shares then average to that of the batch, which flows through the mean, too.

    Returns
    -------
    tuple[Tensor, Tensor]
        Penalties (N,), and the new running mean, detached.
    """
    if batch_mean is None:
        mean = running_mean.lerp(lengths.mean(), PATH_LENGTH_DECAY)
        return (lengths - mean).square(), mean.detach()
    mean = running_mean.lerp(batch_mean, PATH_LENGTH_DECAY)
    through_mean = 2 * PATH_LENGTH_DECAY * (batch_mean - mean) * (lengths - lengths.detach())
    return (lengths - mean).square() - through_mean, mean


def lazy_adam(network: nn.Module, learning_rate: float, regularized_every: int | None) -> torch.optim.Adam:
    """Make an Adam optimizer for a network that is regularized every so many steps only.

    Regularization steps share the optimizer, so step size and decay are scaled to keep their effect per step
    of training the same (Karras et al. 2020, appendix B, "Lazy regularization").

    Parameters
    ----------
    network
        Whose parameters to train.
    learning_rate
        Before the correction.
    regularized_every
        Steps between regularization, None without.
    """
    ratio = 1.0 if regularized_every is None else regularized_every / (regularized_every + 1)
    betas = (0.0, 0.99**ratio)
    return torch.optim.Adam(network.parameters(), lr=learning_rate * ratio, betas=betas, eps=1e-8, fused=True)


def complete_gradients(network: nn.Module) -> list[Tensor]:
    """Give parameters without a gradient one of zero, so that Adam counts the same steps for all.

    Regularization does not reach every parameter, the last bias for example. Returns all gradients.
    """
    gradients = []
    for parameter in network.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    return gradients


def ema_decay(batch: int, images: int, ema_kimg: float, rampup: float) -> float:
    """Return the share of the old average that one step keeps.

    Parameters
    ----------
    batch
        Images in the step.
    images
        Images before the step.
    ema_kimg
        Half-life in thousands of images.
    rampup
        The half-life is at most this share of `images`; 0 for no bound.
    """
    half_life = ema_kimg * 1000
    if rampup > 0:
        half_life = min(half_life, images * rampup)
    return float(0.5 ** (batch / max(half_life, 1e-8)))


@torch.no_grad()
def update_ema(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move averaged parameters toward those of the network; buffers are copied."""
    for mean, value in zip(average.parameters(), network.parameters(), strict=True):
        mean.copy_(value.lerp(mean, decay))
    for copied, buffer in zip(average.buffers(), network.buffers(), strict=True):
        copied.copy_(buffer)

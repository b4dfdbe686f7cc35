"""Bring a map of probabilities into agreement with the coarse labels of the same slide's blocks.

A net that learned from blocks answers from pixels alone, and does not know what the slide's own blocks say.
Each block's label tells the share eta of each class in it; so the log odds of its pixels are shifted, by one
number a class and block, until the block's mean probability is eta.  The order of pixels within a block stays
the net's.  Shifts are interpolated between the middles of blocks, so that no edges of blocks show; therefore
means agree with eta nearly, not exactly.

Reference: the shares eta are those of paper 003; the shift is the exponential tilting that changes a
distribution least (in the sense of Kullback and Leibler) for given means.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_histogan.errors import LabelError, Stopped
from napari_histogan.geometry import Region, Size, grid
from napari_histogan.labels.block_labels import BlockLabels
from napari_histogan.progress import Reporter
from napari_histogan.slides.zarr_pyramid import PyramidReader, PyramidWriter, open_pyramid

Floats = NDArray[np.float64]

LEAST_SHARE = 0.01
"""Shares of 0 and 1 are taken as this far from them; no finite shift reaches them."""

_LEAST_PROBABILITY = 0.0025
_STEPS = 30
_MOST_SIDE = 64
"""A block's shift is found from a grid of at most so many pixels a side."""

_PART_PX = 1024
_LONGEST_STEP = 2.0
_CLOSE = 1e-4


def matching_offsets(probabilities: Floats, shares: Floats) -> Floats:
    """Return the shifts of the log probabilities with which blocks have given means.

    Found by Newton steps of the convex ``mean_i log sum_k p_k(i) exp(b_k) - sum_k share_k b_k``, each no
    longer than 2 in any class.

    Parameters
    ----------
    probabilities
        ``(B, K, N)``, 0..1: N pixels of each of B blocks, over K classes.
    shares
        ``(B, K)``, 0..1, rows summing to 1.

    Returns
    -------
    numpy.ndarray
        ``(B, K)``, rows summing to 0.

    Raises
    ------
    LabelError
        If shapes do not fit.
    """
    count, classes = probabilities.shape[:2]
    if shares.shape != (count, classes):
        raise LabelError(
            f"{probabilities.shape} probabilities, and shares {shares.shape}", "(B, K, N), (B, K)"
        )
    logs, aims = _logs(probabilities, 1), np.clip(shares, LEAST_SHARE, None)
    aims = aims / aims.sum(axis=1, keepdims=True)
    offsets = np.zeros((count, classes))
    left = np.arange(count)
    flat = np.ones((classes, classes)) / classes
    for _ in range(_STEPS):
        p = _softmax(logs[left] + offsets[left, :, None], 1)
        wrong = aims[left] - p.mean(axis=2)
        far = np.abs(wrong).max(axis=1) > _CLOSE
        if not far.any():
            break
        left, p, wrong = left[far], p[far], wrong[far]
        slope = np.einsum("bk,kl->bkl", p.mean(axis=2), np.eye(classes))
        slope -= np.einsum("bkn,bln->bkl", p, p) / p.shape[2]
        step = np.linalg.solve(slope + flat + 1e-6 * np.eye(classes), wrong[..., None])[..., 0]
        longest = np.abs(step).max(axis=1, keepdims=True)
        offsets[left] += step * np.minimum(1.0, _LONGEST_STEP / np.maximum(longest, 1e-12))
    centered: Floats = offsets - offsets.mean(axis=1, keepdims=True)
    return centered


def spread(offsets: Floats, ys: Floats, xs: Floats) -> Floats:
    """Interpolate shifts linearly between the middles of blocks; beyond the outer middles they stay.

    Parameters
    ----------
    offsets
        ``(R, C, K)``.
    ys, xs
        ``(H,)`` and ``(W,)``: places in blocks, 0.5 being the middle of the first.

    Returns
    -------
    numpy.ndarray
        ``(K, H, W)``.
    """
    (y0, y1, wy), (x0, x1, wx) = (_between(at, n) for at, n in zip((ys, xs), offsets.shape[:2], strict=True))
    rows = offsets[y0] * (1 - wy)[:, None, None] + offsets[y1] * wy[:, None, None]
    found: Floats = rows[:, x0] * (1 - wx)[:, None] + rows[:, x1] * wx[:, None]
    return found.transpose(2, 0, 1)


def shifted(probabilities: Floats, offsets: Floats) -> Floats:
    """Return probabilities ``(K, H, W)`` with shifted logarithms; 0 stands for a quarter of a percent."""
    return _softmax(_logs(probabilities, 0) + offsets, 0)


def matched(probabilities: Floats, grid: NDArray[np.int16], eta: Floats, block_px: int) -> Floats:
    """Return a picture's probabilities brought into agreement with its blocks.

    Parameters
    ----------
    probabilities
        ``(K, H, W)``, 0..1.
    grid
        ``(R, C)``: the label of each block, a row of ``eta``; below 0 where there is none, and nothing is
        shifted.  Blocks at the right and bottom edge may be cut.
    eta
        ``(Z, K)``: shares by label.
    block_px
        Side of a block.
    """
    height, width = probabilities.shape[1:]
    offsets = np.zeros((*grid.shape, len(probabilities)))
    for row, column in np.argwhere(grid >= 0).tolist():
        rows, columns = (slice(k * block_px, (k + 1) * block_px) for k in (row, column))
        block = probabilities[:, rows, columns].reshape(1, len(probabilities), -1)
        if block.shape[2]:
            offsets[row, column] = matching_offsets(block, eta[None, grid[row, column]])[0]
    ys, xs = ((np.arange(side) + 0.5) / block_px for side in (height, width))
    return shifted(probabilities, spread(offsets, ys, xs))


def write_matched(source: Path, out: Path, labels: BlockLabels, eta: Floats, reporter: Reporter) -> int:
    """Write a heatmap that agrees with its slide's blocks, part by part.

    Places where the heatmap holds nothing (0 for all classes) stay so, and count in no block.

    Parameters
    ----------
    source
        A whole heatmap: uint8 percent, one channel a class.
    out
        The pyramid to write; what is there is completed.
    labels
        Of the same slide.
    eta
        ``(Z, K)``: shares of the heatmap's classes by the values of ``labels``.
    reporter
        Told of parts, and asked whether to stop.

    Returns
    -------
    int
        Blocks that were matched.

    Raises
    ------
    Stopped
        If the reporter asked for it; parts that are done stay.
    StorageError
        If the map cannot be written.
    """
    heatmap = open_pyramid(source)
    block_px = labels.block_um / heatmap.mpp
    offsets = np.zeros((*labels.grid.shape, len(heatmap.channels)))
    places = np.argwhere(labels.grid >= 0).tolist()
    for done, (row, column) in enumerate(places):
        if done % 100 == 0:
            _check(reporter, done, len(places), "blocks", "Comparing with the blocks")
        pixels = _block_pixels(heatmap, row, column, block_px)
        if pixels.shape[1]:
            offsets[row, column] = matching_offsets(pixels[None], eta[None, labels.grid[row, column]])[0]
    writer = PyramidWriter(out, heatmap.size, heatmap.channels, np.uint8, mpp=heatmap.mpp)
    try:
        parts = list(grid(heatmap.size, Size(_PART_PX, _PART_PX)))
        for done, part in enumerate(parts):
            _check(reporter, done, len(parts), "parts", "Matching the map to the blocks")
            if not writer.done(part):
                writer.write(part, _matched_part(_percent(heatmap, part), part, offsets, block_px))
    finally:
        writer.close()
    return len(places)


def _matched_part(
    percent: NDArray[np.uint8], part: Region, offsets: Floats, block_px: float
) -> NDArray[np.uint8]:
    """Return a part's percent ``(K, h, w)``, shifted."""
    ys = (part.y + np.arange(part.height, dtype=np.float64) + 0.5) / block_px
    xs = (part.x + np.arange(part.width, dtype=np.float64) + 0.5) / block_px
    tied = shifted(percent / 100, spread(offsets, ys, xs))
    made: NDArray[np.uint8] = np.rint(100 * np.where(percent.any(axis=0), tied, 0)).astype(np.uint8)
    return made


def _block_pixels(heatmap: PyramidReader, row: int, column: int, block_px: float) -> Floats:
    """Return the probabilities ``(K, n)`` of a block's pixels, as far as there are any."""
    (y, y_end), (x, x_end) = (
        (min(round(k * block_px), limit), min(round((k + 1) * block_px), limit))
        for k, limit in zip((row, column), heatmap.size.shape, strict=True)
    )
    percent = _percent(heatmap, Region(y, x, y_end - y, x_end - x))
    ys, xs = (
        np.unique(np.linspace(0, n - 1, min(n, _MOST_SIDE)).astype(int)) if n > 0 else np.zeros(0, int)
        for n in percent.shape[1:]
    )
    found = percent[:, ys][:, :, xs].reshape(len(percent), -1)
    known: Floats = found[:, found.any(axis=0)] / 100
    return known


def _percent(heatmap: PyramidReader, region: Region) -> NDArray[np.uint8]:
    """Return a region of all channels."""
    level = heatmap.levels[0]
    return np.asarray(level[:, region.slices[0], region.slices[1]], np.uint8)


def _check(reporter: Reporter, done: int, total: int, unit: str, message: str) -> None:
    """Tell how far the work is, and end it if that is asked for."""
    reporter.progress(done, total, unit, message)
    if reporter.should_stop():
        raise Stopped(f"stopped after {done} of {total} {unit}")


def _logs(probabilities: Floats, axis: int) -> Floats:
    """Return logarithms of probabilities, none of them less than a quarter of a percent."""
    held = np.maximum(probabilities, _LEAST_PROBABILITY)
    logs: Floats = np.log(held / held.sum(axis=axis, keepdims=True))
    return logs


def _softmax(logs: Floats, axis: int) -> Floats:
    raised = np.exp(logs - logs.max(axis=axis, keepdims=True))
    out: Floats = raised / raised.sum(axis=axis, keepdims=True)
    return out


def _between(at: Floats, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Return the blocks on both sides of places, and the weight of the second."""
    place = np.clip(at - 0.5, 0, count - 1)
    first = np.minimum(place.astype(np.int64), max(count - 2, 0))
    return first, np.minimum(first + 1, count - 1), place - first

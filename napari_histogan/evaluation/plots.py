"""Curves with intervals for reports: effort against accuracy, ROC, calibration; drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's colors, which people with any color vision tell apart."""

_DPI = 150


@dataclass(frozen=True)
class Curve:
    """One line or set of points of a plot.

    Parameters
    ----------
    name
        What the legend says.
    x, y
        Points, in the order in which they are joined.
    low, high
        Ends of each point's interval; empty leaves them out.
    marker
        Draw the points themselves.
    line
        ``-`` solid, ``--`` dashed, or empty for points alone.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    marker: bool = False
    line: str = "-"


@dataclass(frozen=True)
class Axes:
    """What the two axes are called, and how they run.

    Parameters
    ----------
    x_label, y_label
        With their units.
    x_log
        Logarithmic in x.
    x_range, y_range
        Ends of the axes; None lets the points decide.
    diagonal
        Draw the line of chance of a ROC plot.
    """

    x_label: str
    y_label: str
    x_log: bool = False
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    diagonal: bool = False


def line_plot(curves: Sequence[Curve], axes: Axes, size_in: tuple[float, float] = (6.0, 4.0)) -> Image.Image:
    """Draw curves on one pair of axes.

    Parameters
    ----------
    curves
        At most as many as :data:`COLORS`; each has its own color, and a marker of its own if asked for.
    axes
        Labels and ranges.
    size_in
        Width and height in inches, at 150 pixels an inch.

    Returns
    -------
    PIL.Image.Image
        RGB.
    """
    figure = Figure(figsize=size_in, dpi=_DPI, layout="constrained")
    plot = figure.add_subplot()
    if axes.diagonal:
        plot.plot([0, 1], [0, 1], color="#999999", linestyle=":", linewidth=1)
    for curve, color, marker in zip(curves, COLORS, "osD^vPX", strict=False):
        plot.plot(
            curve.x,
            curve.y,
            color=color,
            linestyle=curve.line or "none",
            marker=marker if curve.marker else None,
            label=curve.name,
        )
        if len(curve.low):
            y = np.asarray(curve.y, float)
            below, above = y - np.asarray(curve.low, float), np.asarray(curve.high, float) - y
            spread = np.clip(np.nan_to_num([below, above]), 0, None)
            plot.errorbar(curve.x, y, spread, color=color, linestyle="none", capsize=3, linewidth=1)
    plot.set(xlabel=axes.x_label, ylabel=axes.y_label)
    if axes.x_log:
        plot.set_xscale("log")
    if axes.x_range:
        plot.set_xlim(*axes.x_range)
    if axes.y_range:
        plot.set_ylim(*axes.y_range)
    plot.grid(color="#dddddd", linewidth=0.6)
    plot.spines[["top", "right"]].set_visible(False)
    if len(curves) > 1:
        plot.legend(frameon=False)
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    return Image.open(drawn).convert("RGB")

"""How much annotation buys how much accuracy: Table 1 of Lutnick et al. (datasetGAN on renal tissue).

Each arm is one way to spend annotation: painted synthetic images (Synthetic), hand-annotated
real patches (Control, Control+), or the first and then the second (Transfer).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_histogan.evaluation.plots import Axes, Curve, line_plot
from napari_histogan.evaluation.report import Figure, Section, Table, interval
from napari_histogan.evaluation.significance import Interval
from napari_histogan.metrics import dice, multiclass_mcc

Counts = NDArray[np.int64]

_LEVEL = 0.95


@dataclass(frozen=True)
class Effort:
    """What an arm's annotation cost.

    Parameters
    ----------
    images
        Pictures that were annotated.
    area_mm2
        Tissue area that was annotated.
    strokes
        Saved strokes of the painted masks; None where nobody counted.
    """

    images: int
    area_mm2: float
    strokes: int | None = None


@dataclass(frozen=True)
class Arm:
    """One way to spend annotation, trained with several seeds and tested on the same cases.

    Parameters
    ----------
    name
        Such as ``Synthetic``.
    effort
        What it cost.
    counts
        ``(seeds, cases, K, K)`` confusion matrices, rows true, of each test case.
    """

    name: str
    effort: Effort
    counts: Counts


@dataclass(frozen=True)
class ArmSummary:
    """What an arm reached.

    Parameters
    ----------
    arm
        The arm.
    mcc
        Matthews correlation over all test pixels: mean over seeds, interval over seeds and cases.
    by_seed
        MCC of each seed.
    mean_dice
        Mean Dice over the classes that the test cases hold, mean over seeds.
    ahead_of
        For each other arm by name: difference of MCC (this minus that), same cases drawn for both.
    """

    arm: Arm
    mcc: Interval
    by_seed: tuple[float, ...]
    mean_dice: float
    ahead_of: dict[str, Interval]


def summarize(arms: Sequence[Arm], resamples: int = 2000, seed: int = 0) -> list[ArmSummary]:
    """Return each arm's MCC and its lead over the others.

    Intervals are percentile bootstraps at 95 % that draw test cases and, within each arm,
    training seeds: a figure of few seeds is as unsure as it should be.

    Parameters
    ----------
    arms
        With the same test cases in the same order; numbers of seeds may differ.
    resamples
        Draws.
    seed
        Of the draws.

    Raises
    ------
    ValueError
        If the arms were not tested on the same number of cases, or there is no arm.
    """
    cases = {arm.counts.shape[1] for arm in arms}
    if len(cases) != 1:
        raise ValueError(f"the arms were tested on {sorted(cases)} cases, not on the same ones")
    rng = np.random.default_rng(seed)
    n = cases.pop()
    weights = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
    drawn = [_resampled_mcc(arm.counts, weights, rng) for arm in arms]
    mccs = [multiclass_mcc(arm.counts.sum(axis=1)) for arm in arms]
    found = []
    for i, arm in enumerate(arms):
        ahead = {
            other.name: _interval(float(mccs[i].mean() - mccs[j].mean()), drawn[i] - drawn[j])
            for j, other in enumerate(arms)
            if j != i
        }
        found.append(
            ArmSummary(
                arm,
                _interval(float(mccs[i].mean()), drawn[i]),
                tuple(float(value) for value in mccs[i]),
                float(np.nanmean(dice(arm.counts.sum(axis=1)))),
                ahead,
            )
        )
    return found


def efficiency_table(summaries: Sequence[ArmSummary]) -> Table:
    """Return the table of MCC over annotation effort, one arm a row."""
    last = summaries[-1].arm.name
    header = (
        "",
        "images",
        "area (mm2)",
        "strokes",
        "MCC (95 % interval)",
        "each seed",
        "mean Dice",
        f"{last} ahead by",
    )
    rows = []
    for summary in summaries:
        effort, mcc = summary.arm.effort, summary.mcc
        lead = summaries[-1].ahead_of.get(summary.arm.name)
        rows.append(
            (
                summary.arm.name,
                effort.images,
                round(effort.area_mm2, 3),
                effort.strokes,
                interval(mcc.value, mcc.low, mcc.high),
                ", ".join(f"{value:.3f}" for value in summary.by_seed),
                summary.mean_dice,
                interval(lead.value, lead.low, lead.high) if lead else None,
            )
        )
    return Table(header, rows, "MCC over all pixels of the test cases; intervals over cases and seeds.")


def efficiency_plot(summaries: Sequence[ArmSummary], by: str = "images") -> Figure:
    """Return MCC over effort as a figure; ``by`` is ``images``, ``area_mm2``, or ``strokes``.

    Arms whose effort is not known that way are left out.
    """
    labels = {"images": "annotated images", "area_mm2": "annotated area (mm2)", "strokes": "strokes"}
    curves = []
    for summary in summaries:
        effort = getattr(summary.arm.effort, by)
        if effort is not None:
            mcc = summary.mcc
            curves.append(Curve(summary.arm.name, [effort], [mcc.value], [mcc.low], [mcc.high], True, ""))
    picture = line_plot(curves, Axes(labels[by], "MCC on the test cases"))
    return Figure(f"mcc-over-{by.replace('_', '-')}", picture, f"Accuracy over {labels[by]}, 95 % intervals.")


def efficiency_sections(summaries: Sequence[ArmSummary]) -> list[Section]:
    """Return the report: the table, and a plot for every kind of effort that is known."""
    plots = [efficiency_plot(summaries, "images"), efficiency_plot(summaries, "area_mm2")]
    if any(summary.arm.effort.strokes is not None for summary in summaries):
        plots.append(efficiency_plot(summaries, "strokes"))
    return [
        Section("What the annotation bought", [efficiency_table(summaries)]),
        Section("Accuracy over effort", plots),
    ]


def _resampled_mcc(
    counts: Counts, weights: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the mean MCC of each draw of cases (weights ``(R, cases)``) and of the arm's seeds, ``(R,)``."""
    seeds, cases = counts.shape[:2]
    flat = counts.reshape(seeds, cases, -1).astype(np.float64)
    summed = np.einsum("rc,sck->rsk", weights, flat).reshape(len(weights), seeds, *counts.shape[2:])
    picked = rng.integers(0, seeds, (len(weights), seeds))
    mcc = np.take_along_axis(multiclass_mcc(summed), picked, axis=1)
    means: NDArray[np.float64] = mcc.mean(axis=1)
    return means


def _interval(value: float, drawn: NDArray[np.float64]) -> Interval:
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(drawn, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Interval(value, float(low), float(high))

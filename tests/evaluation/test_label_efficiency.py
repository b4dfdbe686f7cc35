"""The table of accuracy over annotation effort: figures, intervals, and what a reader sees."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histogan.evaluation.label_efficiency import (
    Arm,
    Effort,
    efficiency_plot,
    efficiency_sections,
    efficiency_table,
    summarize,
)
from napari_histogan.evaluation.report import write_report


def _counts(errors: list[float], cases: int = 12, seed: int = 0) -> np.ndarray:
    """Confusion matrices (seeds, cases, 3, 3) of two classes, with a share of errors for each seed."""
    rng = np.random.default_rng(seed)
    out = np.zeros((len(errors), cases, 3, 3), np.int64)
    for s, share in enumerate(errors):
        for c in range(cases):
            wrong = rng.binomial(1000, share, 2)
            out[s, c, 1:, 1:] = [[1000 - wrong[0], wrong[0]], [wrong[1], 1000 - wrong[1]]]
    return out


def _arms() -> list[Arm]:
    return [
        Arm("Synthetic", Effort(24, 0.4, 310), _counts([0.10, 0.12, 0.11])),
        Arm("Control", Effort(72, 1.2), _counts([0.20, 0.22, 0.19], seed=1)),
        Arm("Transfer", Effort(96, 1.6), _counts([0.05, 0.06, 0.05], seed=2)),
    ]


def test_mcc_of_balanced_errors_is_one_minus_twice_the_share():
    # 100 of 1000 wrong on either side: MCC = (900^2 - 100^2) / 1000^2 = 0.8.
    counts = np.zeros((1, 4, 3, 3), np.int64)
    counts[..., 1:, 1:] = [[900, 100], [100, 900]]
    summary = summarize([Arm("A", Effort(1, 1.0), counts)])[0]
    assert summary.mcc.value == pytest.approx(0.8)
    assert summary.mcc.low == pytest.approx(0.8) == summary.mcc.high  # all cases and seeds are alike
    assert summary.mean_dice == pytest.approx(0.9)


def test_a_clear_lead_excludes_zero_and_is_the_same_from_both_sides():
    synthetic, control, transfer = summarize(_arms(), resamples=500)
    lead = synthetic.ahead_of["Control"]
    assert 0 < lead.low < lead.value < lead.high
    back = control.ahead_of["Synthetic"]
    assert (back.value, back.low, back.high) == pytest.approx((-lead.value, -lead.high, -lead.low))
    assert transfer.mcc.value > synthetic.mcc.value > control.mcc.value


def test_seeds_that_disagree_widen_the_interval():
    alike = summarize([Arm("A", Effort(1, 1.0), _counts([0.1, 0.1, 0.1]))])[0].mcc
    apart = summarize([Arm("A", Effort(1, 1.0), _counts([0.02, 0.1, 0.18]))])[0].mcc
    assert apart.high - apart.low > 3 * (alike.high - alike.low)


def test_arms_tested_on_different_cases_are_refused():
    with pytest.raises(ValueError, match=r"tested on \[5, 12\] cases"):
        summarize([_arms()[0], Arm("B", Effort(1, 1.0), _counts([0.1], cases=5))])


def test_the_table_says_effort_interval_and_every_seed():
    table = efficiency_table(summarize(_arms(), resamples=200))
    synthetic = dict(zip(table.header, table.rows[0], strict=True))
    assert (synthetic["images"], synthetic["strokes"]) == (24, 310)
    assert len(str(synthetic["each seed"]).split(", ")) == 3
    assert "to" in str(synthetic["Transfer ahead by"])
    assert table.rows[-1][-1] is None  # not ahead of itself


def test_arms_without_strokes_are_left_out_of_that_plot_and_the_report_is_written(tmp_path):
    summaries = summarize(_arms(), resamples=100)
    by_images, by_strokes = efficiency_plot(summaries), efficiency_plot(summaries, "strokes")
    assert by_images.image.size == by_strokes.image.size
    assert np.asarray(by_images.image).std() > np.asarray(by_strokes.image).std()  # three points, one point
    page = write_report(tmp_path / "report.html", "Label efficiency", efficiency_sections(summaries))
    assert "Synthetic" in page.read_text(encoding="utf-8")
    names = {path.name for path in tmp_path.rglob("*.png")}
    assert {"mcc-over-images.png", "mcc-over-area-mm2.png", "mcc-over-strokes.png"} <= names

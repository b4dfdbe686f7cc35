"""Every stage and all human work survive kills, stops, and a full disk; the long form is ``make faults``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from workshop import HUMAN_WORK, stage_cases

from napari_histogan.pipeline import STAGE_FUNCTIONS

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the campaign forks")

SLOW = {"label_efficiency"}
"""Left to the long form: one run takes longer than all others together."""

QUICK = ("predict_heatmap", "save masks")
"""What the rarer faults are tried on here."""


def campaign(*arguments: str) -> list[dict[str, object]]:
    command = [sys.executable, str(Path(__file__).parent / "campaign.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (done.stderr[-2000:], [one["failures"] for one in told if one["failures"]])
    return told


def test_every_stage_is_tried():
    assert set(stage_cases(Path())) == set(STAGE_FUNCTIONS)


@pytest.mark.timeout(600)
def test_killed_everything_ends_as_if_undisturbed():
    names = [name for name in (*STAGE_FUNCTIONS, *HUMAN_WORK) if name not in SLOW]
    told = campaign(*names, "--count", "1", "--most", "1", "--seed", "3")
    assert [(one["name"], one["count"], one["survived"]) for one in told] == [(name, 1, 1) for name in names]


@pytest.mark.timeout(600)
def test_other_faults_are_survived_too():
    told = campaign(*QUICK, "--fault", "stop", "full", "clock", "--count", "1", "--most", "1", "--seed", "3")
    expected = [("predict_heatmap", fault) for fault in ("stop", "full", "clock")]
    expected += [("save masks", fault) for fault in ("stop", "full")]  # the clock concerns jobs
    assert [(one["name"], one["fault"]) for one in told] == expected
    assert [one["survived"] for one in told] == [1] * len(expected)

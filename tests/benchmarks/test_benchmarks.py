"""Each benchmark's smallest run: it works, its two ways agree, and its last line says what was measured."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
PAGE = FOLDER.parent / "docs" / "benchmarks.md"


@pytest.mark.parametrize(
    "name", ["generator_speed", "gan_training_speed", "patch_stream", "slide_inference", "synthesis_rate"]
)
def test_the_smallest_run_ends_with_its_figures(name):
    command = [sys.executable, str(FOLDER / f"{name}.py"), "--smoke"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280, check=False)
    assert run.returncode == 0, run.stderr
    first, *_, last = run.stdout.splitlines()
    assert "torch" in first  # the machine and the date
    result = json.loads(last)
    assert set(result) == {"benchmark", "figures", "goals", "met"}
    assert result["benchmark"] == name
    assert isinstance(result["met"], bool)
    assert result["goals"]
    assert result["figures"]
    assert all(math.isfinite(value) and value >= 0 for value in result["figures"].values())


def test_the_page_has_a_section_with_a_command_for_each():
    text = PAGE.read_text(encoding="utf-8")
    speeds = "generator_speed", "gan_training_speed", "patch_stream", "hypercolumns", "synthesis_rate"
    for name in (*speeds, "slide_inference", "scaling"):
        assert f"## {name}" in text
        assert f"python benchmarks/{name}.py" in text

"""Children that compute get a calm environment, and the user's own wishes."""

from __future__ import annotations

import subprocess
import sys

from napari_histogan.jobs.environment import child_environment


def test_a_child_sees_the_defaults(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    code = "import os; print(os.environ['OMP_WAIT_POLICY'], os.environ['PYTHONUNBUFFERED'])"
    found = subprocess.run(
        [sys.executable, "-c", code], env=child_environment(), capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["passive", "1"]


def test_what_the_user_set_wins(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.setenv("HISTOGAN_TEST", "here")
    assert child_environment()["OMP_WAIT_POLICY"] == "active"
    assert child_environment()["HISTOGAN_TEST"] == "here"

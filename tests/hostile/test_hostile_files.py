"""Damaged files are read correctly or refused by name; the long form is ``make hostile``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from napari_histogan.errors import DAMAGE, HistoganError

HERE = Path(__file__).parent
READERS = ["tiff", "picture", "ome-zarr", "geojson", "aperio-xml", "png-mask", "csv", "block-labels"]
READERS += ["picture-folder", "settings", "project", "human-work", "backup"]
READERS += ["generator", "nets", "stores", "checkpoint", "foreign-checkpoint"]
COUNT = int(os.environ.get("HISTOGAN_HOSTILE_COUNT", "120"))


def test_every_reader_is_tried(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    import readers

    assert sorted(READERS) == sorted(readers.READERS)


@pytest.mark.parametrize("reader", READERS)
def test_every_damaged_file_is_read_or_refused(reader):
    command = [sys.executable, str(HERE / "campaign.py"), reader, "--count", str(COUNT), "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, f"the process ended with {done.returncode}: {done.stderr[-500:]}"
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["failures"] == []
    assert outcome["tried"] == COUNT == outcome["read"] + outcome["refused"]
    assert outcome["refused"] > COUNT // 10  # the damage is real


def test_the_campaign_sees_a_reader_that_misbehaves(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    import campaign

    judge = campaign.Judge(tmp_path)
    outside = tmp_path.parent / "outside.txt"
    cases = {
        "ZeroDivisionError": lambda path: 1 / 0,
        "wrote": lambda path: outside.write_text("escaped"),
        "subprocess.Popen": lambda path: subprocess.run(["true"], check=True),
    }
    for expected, read in cases.items():
        assert expected in campaign._judge(campaign.Reader(list, read), tmp_path / "a", judge)
    assert campaign._judge(campaign.Reader(list, lambda path: None), tmp_path / "a", judge) == "read"
    outside.unlink()


def test_damage_names_no_error_of_ours():
    ours = HistoganError("found", "expected", "todo")
    assert isinstance(ours, Exception)
    assert not isinstance(ours, DAMAGE)

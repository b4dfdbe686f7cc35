"""Two processes train one segmenter together, and one of them writes it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_histogan.config import TrainSegmenterConfig
from napari_histogan.models.segmenter import load_segmenter
from napari_histogan.progress import QuietReporter
from napari_histogan.training.datasets import ZarrPairs, write_pairs
from napari_histogan.training.train_segmenter import train_segmenter

pytest.importorskip("lightning_fabric")

VALUES = {
    "steps": 4,
    "batch": 4,
    "width": 4,
    "depth": 1,
    "augment": False,
    "revisit_hard": 0.5,
    "loss": "cross_entropy",
    "optimizer": "sgd",
    "validation_share": 0.0,
    "device": "cpu",
    "threads": 1,
    "precision": "float32",
}

RANK = """
import json, sys
from pathlib import Path
from napari_histogan.config import TrainSegmenterConfig
from napari_histogan.progress import QuietReporter
from napari_histogan.training.datasets import ZarrPairs
from napari_histogan.training.train_segmenter import train_segmenter

reporter = QuietReporter(Path(sys.argv[2]))
train_segmenter([ZarrPairs(Path(sys.argv[1]))], 2, TrainSegmenterConfig(**json.loads(sys.argv[3])), reporter)
print(len(reporter.events))
"""


def test_two_processes_learn_together(tmp_path: Path) -> None:
    # All pairs are alike, so that halves of a batch have the batch's statistics: the steps must be equal.
    mask = np.kron([[1, 2], [2, 1]], np.ones((8, 8))).astype(np.uint8)
    images = np.repeat((mask * 90)[None, ..., None], 3, axis=-1).repeat(8, axis=0)
    write_pairs(tmp_path / "pairs.zarr", images, mask[None].repeat(8, axis=0), 1.0)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RANK, str(tmp_path / "pairs.zarr"), str(tmp_path / "two")]
    ranks = [
        subprocess.Popen(
            [*command, json.dumps(VALUES | {"devices": 2})],
            env=os.environ | shared | {"LOCAL_RANK": str(rank), "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    assert int(said[0]) > 0
    assert int(said[1]) == 0
    alone = QuietReporter(tmp_path / "one")
    one = train_segmenter([ZarrPairs(tmp_path / "pairs.zarr")], 2, TrainSegmenterConfig(**VALUES), alone)
    first = load_segmenter(one)[0].state_dict()
    second = load_segmenter(tmp_path / "two" / "segmenter")[0].state_dict()
    for name, value in first.items():
        assert torch.allclose(value.float(), second[name].float(), rtol=1e-3, atol=1e-5), name

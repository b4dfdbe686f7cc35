"""Data sets made by workers on this machine, over loopback; each test starts a cluster of its own."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from napari_histogan.config import SynthesizeDatasetConfig
from napari_histogan.errors import JobError, LabelError, Stopped
from napari_histogan.inference.synthetic_dataset import synthesize_dataset
from napari_histogan.inference.workers import connect
from napari_histogan.labels.classes import ClassTable
from napari_histogan.models.hypercolumns import layout_of
from napari_histogan.models.pixel_classifier import PixelClassifier, PixelClassifierSpec
from napari_histogan.models.stylegan2 import Generator, GeneratorSpec
from napari_histogan.progress import QuietReporter

distributed = pytest.importorskip("distributed", reason="distributed is in the extra [scale]")


@pytest.fixture(scope="module")
def models() -> tuple[Generator, PixelClassifier]:
    torch.manual_seed(0)
    generator = Generator(GeneratorSpec(16, 0, 16, 16, channel_base=256, channel_max=16)).eval()
    with torch.no_grad():
        maps = generator.synthesis.features(generator.mapping(torch.randn(2, 16)))[1]
    classes = tuple(ClassTable.from_names(["dermis", "keratin"]).to_dicts())
    spec = PixelClassifierSpec(layout_of(maps, 16), classes, "", 4, (16, 8))
    return generator, PixelClassifier(spec, seed=1).eval()


def config(**fields: Any) -> SynthesizeDatasetConfig:
    known = {"count": 90, "shard": 16, "batch": 8, "threads": 1, "precision": "float32"}
    return SynthesizeDatasetConfig(**{**known, **fields})


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_workers_make_the_same_store_even_if_one_is_lost(
    cluster: Any, models: tuple[Generator, PixelClassifier], tmp_path: Path
) -> None:
    here, _ = synthesize_dataset(*models, config(), QuietReporter(tmp_path / "here"))
    victim = next(iter(cluster.workers.values())).pid

    class Killer(QuietReporter):
        """Kills a worker as soon as the first shard is there."""

        def metric(self, step: int, **values: float) -> None:
            if not any(e["kind"] == "metric" for e in self.events):
                os.kill(victim, signal.SIGKILL)
            super().metric(step, **values)

    reporter = Killer(tmp_path / "there")
    there, summary = synthesize_dataset(*models, config(scheduler=cluster.scheduler_address), reporter)
    assert summary["pairs"] == 90
    assert sum(e["kind"] == "metric" for e in reporter.events) == 7  # each shard was told once
    assert files(there) == files(here)
    assert not list(tmp_path.glob("there/*-models"))


def test_a_task_that_fails_says_its_own_error_and_a_stop_ends_the_wait(cluster: Any, tmp_path: Path) -> None:
    ended: list[int] = []
    with connect(cluster.scheduler_address) as workers:
        workers.check(tmp_path)
        assert not list(tmp_path.iterdir())
        with pytest.raises(LabelError, match="three is not liked"):
            workers.map(_dislike_three, [3], ended.append, lambda: False)
        with pytest.raises(Stopped):
            workers.map(time.sleep, [30, 31, 32], ended.append, lambda: True)
    assert ended == []


def _dislike_three(number: int) -> None:
    if number == 3:
        raise LabelError("three is not liked", "another number")


def test_a_scheduler_that_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="no scheduler answers at tcp") as found:  # noqa: SIM117
        with connect("tcp://127.0.0.1:9", timeout_s=1):
            pass
    assert "dask scheduler" in str(found.value)


def test_a_scheduler_without_workers(tmp_path: Path) -> None:
    with (
        distributed.LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=None) as empty,
        connect(empty.scheduler_address, lonely_s=1) as workers,
        pytest.raises(JobError, match="had no worker for 1 s"),
    ):
        workers.check(tmp_path)

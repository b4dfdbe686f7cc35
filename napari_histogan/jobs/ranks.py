"""The further processes of a training on several devices: ``python -m napari_histogan.jobs.ranks RUN_DIR``.

The worker of a job is the first process; it reports and writes. On one machine it starts the others itself.
On a cluster torchrun or SLURM starts them all, each as ``histogan train-gan PROJECT ... --foreground`` (or
``train-segmenter``); the first then finds or makes the run folder and tells the others.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from napari_histogan.config import StageConfig, TrainGanConfig, TrainSegmenterConfig
from napari_histogan.errors import Stopped
from napari_histogan.jobs.environment import child_environment
from napari_histogan.progress import Reporter
from napari_histogan.project.runs import read_run_config
from napari_histogan.project.store import Project

logger = logging.getLogger("napari_histogan.jobs")

GRACE_S = 30.0

SharedConfig = TrainGanConfig | TrainSegmenterConfig
"""Of the trainings that several devices can share."""


def from_outside() -> bool:
    """Whether torchrun or SLURM started several processes."""
    from napari_histogan.training.team import processes_started

    return processes_started(os.environ) > 1


@contextmanager
def companions(run_dir: Path, config: StageConfig) -> Iterator[None]:
    """Run the other processes of a training on several devices while the block works.

    Does nothing for one device, for other stages, and where torchrun or SLURM started the processes.
    """
    count = config.devices if isinstance(config, SharedConfig) else 1
    if count == 1 or from_outside():
        yield
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    before = dict(os.environ)
    # -P keeps files that lie in the present folder from being imported by mistake.
    command = [sys.executable, "-P", "-m", "napari_histogan.jobs.ranks", str(run_dir)]
    started = [
        subprocess.Popen(
            command,
            env=child_environment() | shared | {"LOCAL_RANK": str(rank), "RANK": str(rank)},
            stdin=subprocess.DEVNULL,
        )
        for rank in range(1, count)
    ]
    os.environ.update(shared | {"LOCAL_RANK": "0", "RANK": "0"})
    try:
        yield
        _end(started, GRACE_S)
    finally:
        _end(started, 0.0)
        for name in (*shared, "LOCAL_RANK", "RANK"):
            if name in before:
                os.environ[name] = before[name]
            else:
                os.environ.pop(name, None)


def work_together(config: SharedConfig, allocate: Callable[[], Path], lead: Callable[[Path], int]) -> int:
    """Do a training whose processes torchrun or SLURM started; every process calls this.

    Parameters
    ----------
    config
        The training's config, the same in all processes.
    allocate
        Returns the run folder; called by the first process.
    lead
        Does the job of a run folder and returns the exit code; called by the first process.
    """
    from napari_histogan.models.device import resolve
    from napari_histogan.training.team import Team

    team = Team.start(config.devices, resolve(config))
    run_dir = Path(team.tell(str(allocate()) if team.leads else ""))
    return lead(run_dir) if team.leads else accompany(run_dir)


def accompany(run_dir: Path) -> int:
    """Train as one of the further processes of a run; returns the exit code."""
    from napari_histogan.training.team import SilentReporter

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the first process is asked to stop, and tells the others
    config, reporter = read_run_config(run_dir), SilentReporter(run_dir)
    project = Project.open(run_dir.parent.parent)
    with suppress(Stopped):
        if isinstance(config, TrainGanConfig):
            _share_gan(project, config, reporter)
        elif isinstance(config, TrainSegmenterConfig):
            _share_segmenter(project, config, reporter)
        else:
            raise TypeError(f"{run_dir} is a run of {config.stage}")
    return 0


def _share_gan(project: Project, config: TrainGanConfig, reporter: Reporter) -> None:
    """Do this process's share of a generator's training."""
    from napari_histogan.stage_inputs import gan_inputs
    from napari_histogan.training.train_gan import train_gan

    with gan_inputs(project, config, reporter) as inputs:
        train_gan(inputs.patches, config, reporter, inputs.init, inputs.init_discriminator)


def _share_segmenter(project: Project, config: TrainSegmenterConfig, reporter: Reporter) -> None:
    """Do this process's share of a segmenter's training."""
    from napari_histogan.training.train_segmenter import train_segmenter
    from napari_histogan.training_inputs import segmenter_inputs

    with segmenter_inputs(project, config, reporter) as inputs:
        classes = project.classes
        train_segmenter(inputs.sources, classes.num_classes, config, reporter, inputs.init, classes)


def main(arguments: list[str] | None = None) -> int:
    """Accompany the job whose run folder is named; returns the exit code."""
    (run_dir,) = sys.argv[1:] if arguments is None else arguments
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    return accompany(Path(run_dir))


def _end_with(parent: int) -> None:
    """End this process when the one that started it has gone."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _end(processes: list[subprocess.Popen[bytes]], patience_s: float) -> None:
    """Wait for processes, then end those that are still there."""
    for process in processes:
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())

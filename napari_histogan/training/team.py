"""Processes that train one network together, by Lightning Fabric; one process alone needs none of it.

Every process holds the same weights, draws the same random numbers for the whole batch, computes its own
share of it, and averages gradients with the others before each step. So N processes take the steps that one
would take with the same batch, to rounding.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_histogan.errors import ConfigError
from napari_histogan.models.device import Compute


class Team:
    """The processes of a training, seen from one of them.

    Parameters
    ----------
    compute
        What this process computes with.
    fabric
        Connects the processes; None for one alone.

    Attributes
    ----------
    rank, size
        Number of this process from 0, and how many there are.
    """

    def __init__(self, compute: Compute, fabric: Any = None) -> None:
        self.compute, self._fabric = compute, fabric
        self.rank: int = fabric.global_rank if fabric else 0
        self.size: int = fabric.world_size if fabric else 1

    @classmethod
    def start(cls, devices: int, compute: Compute) -> Team:
        """Meet the other processes, which torchrun, SLURM, or a job started.

        Parameters
        ----------
        devices
            Processes over all machines, one for each GPU; 1 needs no Fabric.
        compute
            Device and threads; each process takes the GPU of its number, and its share of the CPU.

        Raises
        ------
        ConfigError
            If Fabric is not installed, or another number of processes was started.
        """
        started = processes_started(os.environ)
        if devices == 1 and os.environ.get("WORLD_SIZE", "1") == "1":
            return cls(compute)
        if started != devices:
            raise ConfigError(
                f"devices is {devices}, but {max(started, 1)} processes were started",
                "as many processes as devices",
                f"run the stage as a job, or start {devices} processes with torchrun or srun",
            )
        try:
            from lightning_fabric import Fabric
            from lightning_fabric.plugins.environments.lightning import LightningEnvironment
        except ImportError as error:
            raise ConfigError(
                f"devices is {devices}, but Lightning Fabric is not installed",
                "the package lightning-fabric",
                'pip install "napari-histogan[scale]", or set devices to 1',
            ) from error
        nodes = machines(os.environ, devices)
        kind = compute.device.type
        if kind == "cuda" and torch.cuda.device_count() < devices // nodes:
            raise ConfigError(
                f"devices is {devices} on {nodes} machines; this one has {torch.cuda.device_count()} GPUs",
                "a GPU for each process",
                "lower devices, or set device to cpu",
            )
        # Processes of a job are told their numbers as Lightning's own are, inside of a SLURM job, too.
        plain = "WORLD_SIZE" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ
        fabric = Fabric(
            accelerator=kind,
            strategy="ddp",
            devices=devices // nodes,
            num_nodes=nodes,
            plugins=LightningEnvironment() if plain else None,
        )
        fabric.launch()
        threads = compute.threads
        if kind == "cpu":
            threads = max(1, threads // (devices // nodes))
            torch.set_num_threads(threads)
        return cls(replace(compute, device=fabric.device, threads=threads), fabric)

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of the processes' values; every process must call it."""
        if self._fabric is None:
            return values
        mean: Tensor = self._fabric.all_reduce(values.clone(), reduce_op="mean")
        return mean

    def average(self, gradients: Sequence[Tensor]) -> None:
        """Replace gradients by their means over the processes, in place and in one message."""
        if self._fabric is None:
            return
        flat = self.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        means = torch.split_with_sizes(flat, [gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))

    def agree(self, *said: bool) -> list[bool]:
        """Return what the leading process said; every process must call it."""
        if self._fabric is None:
            return list(said)
        mine = torch.tensor([float(value and self.leads) for value in said], device=self.compute.device)
        return [value > 0 for value in self.mean(mine).tolist()]

    def tell(self, text: str) -> str:
        """Return the text of the leading process; every process must call it."""
        return text if self._fabric is None else str(self._fabric.broadcast(text))

    def wait(self) -> None:
        """Wait until every process is here."""
        if self._fabric is not None:
            self._fabric.barrier()


class SilentReporter:
    """The reporter of processes that do not lead: it knows the run folder and says nothing."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    def progress(self, done: float, total: float, unit: str = "", message: str = "") -> None:
        """Say nothing."""

    def metric(self, step: int, **values: float) -> None:
        """Say nothing."""

    def preview(self, name: str, path: Path) -> None:
        """Say nothing."""

    def event(self, kind: str, **data: Any) -> None:
        """Say nothing."""

    def warn(self, message: str) -> None:
        """Say nothing."""

    def should_stop(self) -> bool:
        """Return False: the leading process decides."""
        return False


def processes_started(environment: Mapping[str, str]) -> int:
    """Return how many processes torchrun, srun, or a job says that it started; 0 if none says so.

    A plain command inside a SLURM job is one process, whatever the job has been given.
    """
    for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        if environment.get(name, "").isdigit():
            return int(environment[name])
    return 0


def machines(environment: Mapping[str, str], devices: int) -> int:
    """Return over how many machines the processes are spread."""
    if environment.get("SLURM_STEP_NUM_NODES", "").isdigit() and "WORLD_SIZE" not in environment:
        return int(environment["SLURM_STEP_NUM_NODES"])
    here = environment.get("LOCAL_WORLD_SIZE", "")
    return max(1, devices // int(here)) if here.isdigit() and int(here) else 1

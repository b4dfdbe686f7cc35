"""What the compute process knows: generators, and for the samples at hand a classifier that is kept warm.

The live classifier (:mod:`~napari_histogan.jobs.live_classifier`) is smaller and trained for less long than
the stage's, on the same painted pixels.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histogan.config import MixSamplesConfig, StageConfig, make_config
from napari_histogan.errors import ArtifactMissing
from napari_histogan.inference.mixing import mixed_styles
from napari_histogan.inference.sampling import draw_latents, load_samples, rebuild, styles
from napari_histogan.jobs import live_maps
from napari_histogan.jobs.engine_requests import Answer, Handler, Request
from napari_histogan.jobs.live_classifier import LiveClassifier
from napari_histogan.models.device import Compute, resolve
from napari_histogan.models.generator_file import load_generator
from napari_histogan.models.stylegan2 import Generator
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.store import Project

SAMPLE_BATCH = 4
NOT_YET = "Paint a second class to see a prediction."


@dataclass(frozen=True)
class _Loaded:
    """A project with one set of its samples, and what was learned from them.

    A request keeps the one that it began with, so that a project opened meanwhile cannot mix with it.
    """

    project: Project
    artifact: Artifact
    live: LiveClassifier


class LiveModel:
    """Answers the dock's requests.

    Parameters
    ----------
    folder
        Where the classifier waits between two rounds; whoever gave it removes it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._compute: Compute = resolve(StageConfig())
        self._generators: dict[tuple[str, str], Generator] = {}
        self._loaded: _Loaded | None = None
        self._count = 0

    def handlers(self) -> dict[str, Handler]:
        """Return what answers each kind of request."""
        return {
            "load": self.load,
            "predict": self.predict,
            "sample": self.sample,
            "mix": self.mix,
            "rank": self.rank,
            **live_maps.handlers(),
        }

    def load(self, request: Request) -> Iterator[Answer | None]:
        """Make ready for a set of samples: ``project``, ``samples``."""
        loaded = self._load(request)
        yield {"device": str(self._compute), "count": len(loaded.live.samples.w)}, {}

    def sample(self, request: Request) -> Iterator[Answer | None]:
        """Draw pictures: ``project``, ``generator``, ``truncation``, ``seed``, ``n``."""
        values = request.values
        project = Project.open(values["project"], read_only=True)
        generator = self._generator(project, project.artifact(str(values.get("generator", "")), "generator"))
        indices = range(int(values["n"]))
        z, seeds = draw_latents(int(values["seed"]), indices, generator.spec.z_dim)
        w = styles(generator, z, float(values["truncation"]), self._compute.device).cpu().numpy()
        yield from _pictures(generator, w, seeds)

    def mix(self, request: Request) -> Iterator[Answer | None]:
        """Show what ``mix_samples`` would make: ``project``, ``samples``, and ``config``, its fields."""
        values = request.values
        project = Project.open(values["project"], read_only=True)
        artifact = project.artifact(str(values.get("samples", "")), "samples")
        parents = [p.id for p in artifact.parents if p.id.startswith("generators/")]
        generator = self._generator(project, project.artifact(parents[0], "generator"))
        yield None
        config = make_config(MixSamplesConfig, values["config"])
        yield from _pictures(generator, *mixed_styles(generator, load_samples(artifact.path), config))

    def predict(self, request: Request) -> Iterator[Answer | None]:
        """Learn from all painted masks, then label one sample: ``project``, ``samples``, ``index``."""
        started = time.perf_counter()
        loaded = self._load(request)
        index = int(request.values["index"])
        painted = _painted(loaded)
        yield None
        if not _has_two_classes(painted):
            loaded.live.forget()
            yield {"index": index, "message": NOT_YET}, {}
            return
        for _ in loaded.live.learn(painted, loaded.project.classes, index):
            yield None
        if not loaded.live.ready:  # a newer request found the paint erased
            yield {"index": index, "message": NOT_YET}, {}
            return
        labels, uncertainty = loaded.live.predict(index)
        answer: dict[str, Any] = {"index": index, "message": _words(painted)}
        yield (
            {**answer, "seconds": time.perf_counter() - started},
            {"labels": labels, "uncertainty": uncertainty},
        )

    def rank(self, request: Request) -> Iterator[Answer | None]:
        """Say which samples would tell most if painted: ``project``, ``samples``, ``pool``.

        The answer's ``pool`` is in the order in which to paint; ``scores`` falls from 1, for the first, to
        nearly 0, and ``uncertainty`` is how much the ensemble disagrees, 0 to 1.
        """
        loaded = self._load(request)
        live, painted = loaded.live, _painted(loaded)
        pool = [int(i) for i in request.values["pool"] if 0 <= int(i) < len(live.samples.w)]
        if not _has_two_classes(painted) or not pool:
            yield {"message": NOT_YET}, {}
            return
        for _ in live.learn(painted, loaded.project.classes, -1):
            yield None
        for _ in live.look_at([*painted, *pool]):
            yield None
        if not live.ready:  # its paint was erased meanwhile
            yield {"message": NOT_YET}, {}
            return
        order, uncertainty = live.rank(pool, list(painted))
        arrays: dict[str, NDArray[Any]] = {
            "pool": np.array(order, np.int64),
            "scores": (1 - np.arange(len(order)) / len(order)).astype(np.float32),
            "uncertainty": uncertainty.astype(np.float32),
        }
        yield {}, arrays

    # Parts

    def _load(self, request: Request) -> _Loaded:
        """Open project, samples, and the generator that made them, unless they are open."""
        root, reference = str(request.values["project"]), str(request.values.get("samples", ""))
        now = self._loaded
        if now is not None and str(now.project.root) == root and now.artifact.id == reference:
            now.project.reload()
            return now
        project = Project.open(root, read_only=True)
        artifact = project.artifact(reference, "samples")
        parents = [p.id for p in artifact.parents if p.id.startswith("generators/")]
        if not parents:
            raise ArtifactMissing(f"{artifact.id} names no generator", "its parent", "draw new samples")
        generator = self._generator(project, project.artifact(parents[0], "generator"))
        self._count += 1
        folder = self._folder / f"live-{self._count}"
        live = LiveClassifier(generator, load_samples(artifact.path), self._compute, folder)
        self._loaded = _Loaded(project, artifact, live)
        return self._loaded

    def _generator(self, project: Project, artifact: Artifact) -> Generator:
        """Return a generator on the device; two are kept."""
        key = (str(project.root), artifact.id)
        if key not in self._generators:
            if len(self._generators) > 1:
                del self._generators[next(iter(self._generators))]
            generator = load_generator(artifact.path).to(self._compute.device)
            self._generators[key] = generator.eval().requires_grad_(False)
        return self._generators[key]


def _pictures(
    generator: Generator, w: NDArray[np.float32], seeds: NDArray[np.int64]
) -> Iterator[Answer | None]:
    """Paint styles a few at a time."""
    pictures = []
    for first in range(0, len(w), SAMPLE_BATCH):
        yield None
        part = slice(first, first + SAMPLE_BATCH)
        pictures.append(rebuild(generator, w[part], seeds[part]))
    yield {}, {"images": np.concatenate(pictures)}


def _painted(loaded: _Loaded) -> dict[int, NDArray[np.uint8]]:
    """Return the masks that have paint, by sample."""
    project, artifact = loaded.project, loaded.artifact
    masks = {i: project.load_mask(artifact, i) for i in project.painted(artifact)}
    return {i: m for i, m in masks.items() if m is not None and m.any()}


def _has_two_classes(painted: dict[int, NDArray[np.uint8]]) -> bool:
    return len({int(v) for m in painted.values() for v in np.unique(m) if v}) > 1


def _words(painted: dict[int, NDArray[np.uint8]]) -> str:
    pixels = sum(int(np.count_nonzero(m)) for m in painted.values())
    masks = f"{len(painted)} mask{'s' if len(painted) != 1 else ''}"
    return f"Prediction learned from {pixels:,} pixels in {masks}."

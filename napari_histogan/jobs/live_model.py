"""What the compute process knows: a generator, its samples, and a pixel classifier that is kept warm.

The live classifier is smaller and trained for less long than the stage's, on the same
painted pixels and the same features.  Features of a mask that did not change are kept.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_histogan.config import StageConfig, TrainPixelClassifierConfig
from napari_histogan.errors import ArtifactMissing
from napari_histogan.inference.sampling import (
    Samples,
    draw_latents,
    load_samples,
    noise_maps,
    rebuild,
    styles,
)
from napari_histogan.jobs.engine_requests import Answer, Handler, Request
from napari_histogan.models.device import Compute, resolve
from napari_histogan.models.generator_file import load_generator
from napari_histogan.models.pixel_classifier import PixelPredictor, save_pixel_classifier
from napari_histogan.models.stylegan2 import FeatureMap, Generator
from napari_histogan.models.uncertainty import image_uncertainty
from napari_histogan.progress import QuietReporter
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.store import Project
from napari_histogan.training.labelled_pixels import LabelledPixels, PaintedSamples, collect_pixels
from napari_histogan.training.train_pixel_classifier import fit_pixel_classifier

FIRST_EPOCHS, WARM_EPOCHS = 8, 3
"""Passes of at least ten steps: the first prediction, and one after another stroke."""
MEMBERS = 5
BATCH = 512
PIXELS_PER_IMAGE = 2048
PIXELS = 4096
"""Pixels that one fit sees; a pass over them takes ten steps."""
RANK_BATCH = 8
SAMPLE_BATCH = 4


@dataclass(frozen=True)
class _Loaded:
    """A generator with one set of its samples."""

    project: Project
    artifact: Artifact
    generator_id: str
    generator: Generator
    samples: Samples


class LiveModel:
    """Answers the dock's requests."""

    def __init__(self) -> None:
        self._compute: Compute = resolve(StageConfig())
        self._generators: dict[tuple[str, str], Generator] = {}
        self._loaded: _Loaded | None = None
        self._pixels: dict[int, tuple[str, LabelledPixels]] = {}
        self._fitted: tuple[str, int] = ("", 0)
        self._predictor: PixelPredictor | None = None
        self._warm = Path(tempfile.mkdtemp(prefix="histogan-live-"))
        self._quiet = QuietReporter(self._warm)

    def handlers(self) -> dict[str, Handler]:
        """Return what answers each kind of request."""
        return {"load": self.load, "predict": self.predict, "sample": self.sample, "rank": self.rank}

    def load(self, request: Request) -> Iterator[Answer | None]:
        """Make ready for a set of samples: ``project``, ``samples``."""
        loaded = self._load(request)
        yield {"device": str(self._compute), "count": len(loaded.samples.w)}, {}

    def sample(self, request: Request) -> Iterator[Answer | None]:
        """Draw pictures: ``project``, ``generator``, ``truncation``, ``seed``, ``n``."""
        values = request.values
        project = Project.open(values["project"], read_only=True)
        generator = self._generator(project, project.artifact(str(values.get("generator", "")), "generator"))
        indices = range(int(values["n"]))
        z, seeds = draw_latents(int(values["seed"]), indices, generator.spec.z_dim)
        w = styles(generator, z, float(values["truncation"]), self._compute.device).cpu().numpy()
        pictures = []
        for first in range(0, len(w), SAMPLE_BATCH):
            yield None
            part = slice(first, first + SAMPLE_BATCH)
            pictures.append(rebuild(generator, w[part], seeds[part]))
        yield {}, {"images": np.concatenate(pictures)}

    def predict(self, request: Request) -> Iterator[Answer | None]:
        """Learn from all painted masks, then label one sample: ``project``, ``samples``, ``index``."""
        started = time.perf_counter()
        loaded = self._load(request)
        index = int(request.values["index"])
        answer: dict[str, Any] = {"index": index}
        yield None
        message = ""
        for words in self._learn(loaded):
            message = words
            yield None
        if self._predictor is None:
            yield {**answer, "message": message}, {}
            return
        prediction = self._predictor(self._features(loaded, [index]), probabilities=False)
        labels, uncertainty = prediction.labels[0], prediction.uncertainty[0]
        largest = float(np.log(max(2, self._predictor.spec.num_classes)))
        yield (
            {**answer, "message": message, "seconds": time.perf_counter() - started},
            {"labels": labels.cpu().numpy(), "uncertainty": (uncertainty / largest).cpu().numpy()},
        )

    def rank(self, request: Request) -> Iterator[Answer | None]:
        """Say how uncertain samples are, 0 to 1: ``project``, ``samples``, ``pool``."""
        loaded = self._load(request)
        pool = [int(i) for i in request.values["pool"] if 0 <= int(i) < len(loaded.samples.w)]
        for _ in self._learn(loaded):
            yield None
        if self._predictor is None or not pool:
            yield {"message": "paint two classes first"}, {}
            return
        largest = float(np.log(max(2, self._predictor.spec.num_classes)))
        scores: list[NDArray[np.float32]] = []
        for first in range(0, len(pool), RANK_BATCH):
            yield None
            maps = self._features(loaded, pool[first : first + RANK_BATCH])
            prediction = self._predictor(maps, probabilities=False)
            scores.append((image_uncertainty(prediction.uncertainty) / largest).cpu().numpy())
        yield {}, {"pool": np.array(pool, np.int64), "scores": np.concatenate(scores)}

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
        source = project.artifact(parents[0], "generator")
        generator = self._generator(project, source)
        self._pixels.clear()
        self._fitted, self._predictor = ("", 0), None
        self._loaded = _Loaded(project, artifact, source.id, generator, load_samples(artifact.path))
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

    @torch.inference_mode()
    def _features(self, loaded: _Loaded, indices: list[int]) -> list[FeatureMap]:
        """Return the generator's feature maps of samples."""
        device = self._compute.device
        w = torch.from_numpy(loaded.samples.w[indices]).to(device)
        noise = noise_maps(
            loaded.generator.spec, [int(s) for s in loaded.samples.noise_seed[indices]], device
        )
        return loaded.generator.synthesis.features(w, noise=noise)[1]

    def _learn(self, loaded: _Loaded) -> Iterator[str]:
        """Bring the classifier up to the masks on disk; yields messages between the steps."""
        project, artifact = loaded.project, loaded.artifact
        masks = {i: project.load_mask(artifact, i) for i in project.painted(artifact)}
        painted = {i: m for i, m in masks.items() if m is not None and m.any()}
        state = hashlib.sha256(str(sorted(project.classes.to_dicts(), key=str)).encode())
        for index in sorted(painted):
            state.update(index.to_bytes(4, "little") + painted[index].tobytes())
        if state.hexdigest() == self._fitted[0]:
            yield self._words(painted)
            return
        seen = {int(v) for m in painted.values() for v in np.unique(m) if v}
        if len(seen) < 2:
            self._fitted, self._predictor = ("", 0), None
            yield "Paint a second class to see a prediction."
            return
        for index in [i for i in self._pixels if i not in painted]:
            del self._pixels[index]
        for index, mask in painted.items():
            self._collect(loaded, index, mask)
            yield ""
        self._fit(project, [self._pixels[i][1] for i in sorted(painted)], len(painted))
        self._fitted = (state.hexdigest(), project.classes.num_classes)
        yield self._words(painted)

    def _collect(self, loaded: _Loaded, index: int, mask: NDArray[np.uint8]) -> None:
        """Read the features of a mask's painted pixels, unless they are known."""
        digest = hashlib.sha256(mask.tobytes()).hexdigest()
        if index in self._pixels and self._pixels[index][0] == digest:
            return
        samples = loaded.samples
        one = PaintedSamples(samples.w[[index]], samples.noise_seed[[index]], mask[None])
        pixels = collect_pixels(
            loaded.generator, one, self._compute, self._quiet, pixels_per_image=PIXELS_PER_IMAGE
        )
        self._quiet.events.clear()
        self._pixels[index] = digest, pixels

    def _fit(self, project: Project, parts: list[LabelledPixels], images: int) -> None:
        """Train the ensemble on all painted pixels, from where it was if the classes are the same."""
        same = self._fitted[1] == project.classes.num_classes and self._predictor is not None
        config = TrainPixelClassifierConfig(
            members=MEMBERS,
            epochs=WARM_EPOCHS if same else FIRST_EPOCHS,
            batch=BATCH,
            learning_rate=3e-3,
            validation_share=0.0,
            patience=FIRST_EPOCHS + 1,
        )
        fitted = fit_pixel_classifier(
            _joined([_thinned(part, max(64, PIXELS // images)) for part in parts]),
            np.ones((MEMBERS, images), np.bool_),
            project.classes,
            config,
            self._quiet,
            self._compute,
            init=self._warm if same else None,
        )
        self._quiet.events.clear()
        save_pixel_classifier(self._warm, fitted.classifier)
        self._predictor = PixelPredictor(fitted.classifier.to(self._compute.device), self._compute.dtype)

    def _words(self, painted: dict[int, NDArray[np.uint8]]) -> str:
        pixels = sum(int(np.count_nonzero(m)) for m in painted.values())
        masks = f"{len(painted)} mask{'s' if len(painted) != 1 else ''}"
        return f"Prediction learned from {pixels:,} pixels in {masks}." if self._predictor else ""


def _thinned(part: LabelledPixels, most: int) -> LabelledPixels:
    """Keep at most so many pixels of a sample, chosen at random but always the same."""
    if len(part.label) <= most:
        return part
    order = torch.randperm(len(part.label), generator=torch.Generator().manual_seed(0))[:most]
    order = order.to(part.label.device)
    return replace(part, x=part.x[order], label=part.label[order], image=part.image[order])


def _joined(parts: list[LabelledPixels]) -> LabelledPixels:
    """Put the pixels of several samples together; mean and deviation are those of all native pixels."""
    means = torch.stack([part.mean for part in parts])
    squares = torch.stack([part.std**2 + part.mean**2 for part in parts])
    mean = means.mean(dim=0)
    std = (squares.mean(dim=0) - mean**2).clamp_(min=1e-12).sqrt()
    numbers = [torch.full_like(part.image, k) for k, part in enumerate(parts)]
    return LabelledPixels(
        torch.cat([part.x for part in parts]),
        torch.cat([part.label for part in parts]),
        torch.cat(numbers),
        parts[0].layout,
        mean,
        std,
    )

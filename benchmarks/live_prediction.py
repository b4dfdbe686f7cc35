"""How long after a brush stroke is the new mask in hand?  Through the interactive compute process.

Random weights (but for 64 px, the demo's generator), the widths that StyleGAN2-ADA takes for the size, all
blocks, 20 painted samples of 4 classes.  Three figures: `open`, a sample that was not open before; `stroke`,
another stroke in it, from the request to the mask in hand, training included; and `cpu`, the seconds that the
process computed for that, on however many cores.  The plain way in the same run trains and asks ten nets of
128 and 32 units one after the other on features that were upsampled and concatenated, in which the painted
pixels of the other samples are known already; above 256 px the features do not fit, and it is left out.

    python benchmarks/live_prediction.py [--quick] [--sizes 64 256 1024]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from measuring import finish, machine

from napari_histogan import config as c
from napari_histogan.demo import CLASSES, GENERATOR
from napari_histogan.inference.sampling import draw_latents, load_samples
from napari_histogan.jobs.engine_client import EngineClient
from napari_histogan.models.generator_file import load_generator, save_generator
from napari_histogan.models.hypercolumns import upsample_and_concatenate
from napari_histogan.models.noise import noise_maps
from napari_histogan.models.stylegan2 import Generator, GeneratorSpec
from napari_histogan.pipeline import STAGE_FUNCTIONS
from napari_histogan.progress import QuietReporter
from napari_histogan.project.store import Project

STROKES = 3
GOALS = {64: 1.0, 256: 1.0, 1024: 3.0}
PLAIN_STEPS, PLAIN_NETS, PLAIN_BATCH = 40, 10, 512


def make_project(root: Path, size: int, painted: int) -> tuple[Project, Path]:
    """Make a project with a generator, samples, and strokes on all but one of them."""
    source = GENERATOR
    if size != 64:
        torch.manual_seed(0)
        base = 16384 if size <= 256 else 32768
        source = root.with_name("generator")
        source.mkdir()
        spec = GeneratorSpec(512, 0, 512, size, mapping_layers=2, channel_base=base)
        save_generator(source / "generator.safetensors", Generator(spec).eval(), {"mpp": 1.0})
    project = Project.create(root, "Live", CLASSES)
    for config in (c.ImportGanConfig(path=source), c.SampleImagesConfig(count=painted + 1)):
        STAGE_FUNCTIONS[config.stage](project, config, QuietReporter())
    for index in range(painted):
        project.save_mask(project.artifacts("samples")[-1], index, strokes(size, index))
    return project, source


def strokes(size: int, seed: int) -> np.ndarray:
    """Return a mask with eight round strokes of a brush, two of each class."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((size, size), np.uint8)
    y, x = np.mgrid[:size, :size]
    for k in range(8):
        at = rng.integers(size, size=2)
        mask[(y - at[0]) ** 2 + (x - at[1]) ** 2 < (size / 16) ** 2] = 1 + k % 4
    return mask


def live(project: Project, size: int, painted: int) -> dict[str, float]:
    """Measure through the process that the dock talks to."""
    samples = project.artifacts("samples")[-1]
    where = {"project": str(project.root), "samples": samples.id}
    found: dict[str, list[float]] = {"stroke": [], "cpu": []}
    client = EngineClient()
    try:
        client.wait(client.request("load", **where), 600)
        start = time.perf_counter()
        client.wait(client.request("predict", index=0, **where), 3000)
        first = time.perf_counter() - start
        project.save_mask(samples, painted, strokes(size, 100))
        start = time.perf_counter()
        client.wait(client.request("predict", index=painted, **where), 3000)
        opened = time.perf_counter() - start
        process = psutil.Process(client.pid)
        for turn in range(STROKES):
            project.save_mask(samples, painted, strokes(size, 101 + turn))
            before, start = process.cpu_times(), time.perf_counter()
            reply = client.wait(client.request("predict", index=painted, **where), 3000)
            found["stroke"].append(time.perf_counter() - start)
            after = process.cpu_times()
            found["cpu"].append(after.user + after.system - before.user - before.system)
            if reply.arrays["labels"].shape != (size, size):
                raise SystemExit(f"no mask came: {reply.data}")
    finally:
        client.close()
    return {"first": first, "open": opened, "stroke": min(found["stroke"]), "cpu": min(found["cpu"])}


def plain(source: Path, project: Project, size: int) -> float:
    """Time one stroke the plain way: this sample's features, ten nets trained in a loop, ten asked."""
    generator = load_generator(source).eval().requires_grad_(False)
    stored = load_samples(project.artifacts("samples")[-1].path)
    spec = generator.spec
    z, seeds = draw_latents(0, [0], spec.z_dim)
    del z
    cores = psutil.cpu_count() or 2
    torch.set_num_threads(max(1, cores - 1))
    mask = torch.from_numpy(strokes(size, 100)).flatten().long()
    at = mask.nonzero()[:, 0]
    start = time.perf_counter()
    with torch.no_grad():
        noise = noise_maps(spec, [int(s) for s in seeds])
        maps = generator.synthesis.features(torch.from_numpy(stored.w[:1]), noise=noise)[1]
        columns = upsample_and_concatenate(maps, size)[0].flatten(1).t()
    painted, labels, votes = columns[at], mask[at] - 1, torch.zeros(size * size, len(CLASSES))
    for _ in range(PLAIN_NETS):
        net = torch.nn.Sequential(
            torch.nn.Linear(columns.shape[1], 128), torch.nn.ReLU(), torch.nn.Linear(128, 32),
            torch.nn.ReLU(), torch.nn.Linear(32, len(CLASSES)),
        )  # fmt: skip
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        for _ in range(PLAIN_STEPS):
            batch = torch.randint(len(at), (PLAIN_BATCH,))
            loss = torch.nn.functional.cross_entropy(net(painted[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            votes += net(columns).softmax(dim=1)
    votes.argmax(dim=1).numpy()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="64 and 256 px only")
    parser.add_argument("--sizes", type=int, nargs="*", help="sides in pixels")
    parser.add_argument(
        "--painted", type=int, default=20, help="painted samples; a busy machine may take fewer"
    )
    options = parser.parse_args()
    print(machine(), flush=True)
    figures: dict[str, float] = {}
    sizes = options.sizes or ((64, 256) if options.quick else (64, 256, 1024))
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            project, source = make_project(Path(folder) / "project", size, options.painted)
            found = live(project, size, options.painted)
            if size <= 256:
                found["plain"] = plain(source, project, size)
                found["times faster"] = found["plain"] / found["stroke"]
        print(f"{size} px: {json.dumps({k: round(v, 3) for k, v in found.items()})}", flush=True)
        figures |= {f"{size}px {name}": value for name, value in found.items()}
    met = all(figures[f"{size}px stroke"] <= GOALS.get(size, 3.0) for size in sizes)
    finish("live_prediction", figures, {f"{k}px stroke": v for k, v in GOALS.items()}, met)


if __name__ == "__main__":
    main()

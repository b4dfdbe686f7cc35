"""Random 256 px patches per second from ten slides, beside a plain DataLoader over OpenSlide.

The slides are copies of the one that ships (JPEG tiles of 240 px).  They are small enough for the tile caches
of both ways, which slides of gigabytes are not, so the caches are off and every patch decodes its tiles.
Both read the same places, with one thread or worker that reads ahead.  The limit is decoding the tiles that
these patches need, one after the other, without making patches of them.

    python benchmarks/patch_stream.py [--quick]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import openslide
import tifffile
import torch
from measuring import finish, machine
from torch.utils.data import DataLoader, Dataset

from napari_histogan.geometry import Region
from napari_histogan.models.stylegan2 import Discriminator, DiscriminatorSpec, Generator, GeneratorSpec
from napari_histogan.slides import tiff
from napari_histogan.slides.patches import PatchPlan, PatchStream, plan_patches
from napari_histogan.slides.reader import open_slide
from napari_histogan.training.gan_losses import discriminator_loss

PATCH_PX, MPP, BATCH = 256, 0.499, 16
GOAL_FASTER, GOAL_WAITING = 2.0, 0.05
Places = list[tuple[Path, Region]]


class SlidePlaces(Dataset[np.ndarray]):
    """Patches at given places by OpenSlide; slides are opened once in every worker."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.slides: dict[Path, openslide.OpenSlide] = {}

    def __len__(self) -> int:
        """Return how many places there are."""
        return len(self.places)

    def __getitem__(self, index: int) -> np.ndarray:
        """Read a patch, (256, 256, 3) uint8."""
        path, region = self.places[index]
        if path not in self.slides:
            self.slides[path] = openslide.OpenSlide(path)
            self.slides[path].set_cache(openslide.OpenSlideCache(0))
        patch = self.slides[path].read_region((region.x, region.y), 0, (region.width, region.height))
        return np.array(patch.convert("RGB"))


def plan(folder: Path, slides: int) -> PatchPlan:
    source = Path(str(files("napari_histogan") / "demo_data" / "CMU-1-Small-Region.svs"))
    paths = [Path(shutil.copy(source, folder / f"slide-{i}.svs")) for i in range(slides)]
    readers = [open_slide(path) for path in paths]
    try:
        return plan_patches(readers, PATCH_PX, MPP, folder)
    finally:
        for reader in readers:
            reader.close()


def places_of(plan: PatchPlan, count: int) -> Places:
    """Return the places of the stream's first patches."""
    stream = PatchStream(plan, 0, threads=0, memory_bytes=0)
    found = []
    for k in range(count):
        rng = np.random.Generator(np.random.Philox(key=0, counter=[0, 0, 0, k]))
        rng.integers(8)
        slide, region = stream.place(rng)
        found.append((Path(plan.slides[slide].path), region))
    stream.close()
    return found


def ours(plan: PatchPlan, count: int) -> float:
    stream = PatchStream(plan, 0, dihedral=False, threads=1, memory_bytes=0)
    return timed(lambda: [stream.next_batch(BATCH) for _ in range(count // BATCH)], stream.close)


def plainly(places: Places) -> float:
    batches = iter(DataLoader(SlidePlaces(places), BATCH, num_workers=1))
    first = len(next(batches))  # the worker has started
    return timed(lambda: list(batches)) * len(places) / (len(places) - first)


def limit(places: Places) -> float:
    """Return the seconds of decoding the tiles of all places."""
    slides: dict[Path, Any] = {path: tifffile.TiffFile(path) for path, _ in places}
    jobs = []
    for path, region in places:
        page = slides[path].pages[0]
        h, w = page.chunks[:2]
        across = -(-page.imagewidth // w)
        for ty in range(region.y // h, -(-region.y_end // h)):
            for tx in range(region.x // w, -(-region.x_end // w)):
                index = ty * across + tx
                page.parent.filehandle.seek(page.dataoffsets[index])
                jobs.append((page, page.parent.filehandle.read(page.databytecounts[index]), index))
    tables = {path: slide.pages[0].jpegtables for path, slide in slides.items()}
    table = next(iter(tables.values()))
    seconds = timed(lambda: [page.decode(data, i, jpegtables=table) for page, data, i in jobs])
    for slide in slides.values():
        slide.close()
    return seconds


def timed(work: Callable[[], object], after: Callable[[], None] = lambda: None) -> float:
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    after()
    return seconds


def waiting(plan: PatchPlan, steps: int) -> float:
    """Return the share of time that a training waits, which does only the discriminator's half of a step."""
    stream = PatchStream(plan, 0, threads=1, memory_bytes=0)
    torch.manual_seed(0)
    sizes = {"channel_base": 1024, "channel_max": 32}
    generator = Generator(GeneratorSpec(64, 0, 64, PATCH_PX, mapping_layers=2, **sizes)).requires_grad_(False)
    discriminator = Discriminator(DiscriminatorSpec(img_resolution=PATCH_PX, mbstd_group_size=4, **sizes))
    waited, start = 0.0, time.perf_counter()
    for step in range(steps + 1):
        if step == 1:  # the first batch was not read ahead, and everything warms up
            waited, start = 0.0, time.perf_counter()
        before = time.perf_counter()
        patches = stream.next_batch(4)
        waited += time.perf_counter() - before
        real = torch.from_numpy(patches).permute(0, 3, 1, 2).float() / 127.5 - 1
        fakes = generator(torch.randn(4, 64), noise_mode="random")
        discriminator_loss(discriminator(real), discriminator(fakes)).backward()
    share = waited / (time.perf_counter() - start)
    stream.close()
    return share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer patches and rounds")
    parser.add_argument("--smoke", action="store_true", help="the smallest run that says anything")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(machine(), flush=True)
    slides, count, rounds = (2, 32, 1) if options.smoke else (10, 320, 3) if options.quick else (10, 1600, 5)
    tiff._CACHE_BYTES = 0
    with tempfile.TemporaryDirectory() as folder:
        patches = plan(Path(folder), slides)
        places = places_of(patches, count)
        stream = PatchStream(patches, 0, dihedral=False, threads=0, memory_bytes=0)
        same = np.array_equal(stream.patch(0), SlidePlaces(places)[0])
        difference = np.abs(stream.patch(0).astype(int) - SlidePlaces(places)[0]).mean()
        stream.close()
        if difference > 2:
            raise SystemExit(f"patches of both ways differ by {difference:.1f} gray levels")
        seen = [(ours(patches, count), plainly(places), limit(places)) for _ in range(rounds)]
        share = waiting(patches, 2 if options.smoke else 8)
    figures = {
        "patches/s": count / min(s[0] for s in seen),
        "DataLoader over OpenSlide patches/s": count / min(s[1] for s in seen),
        "decoding alone patches/s": count / min(s[2] for s in seen),
        "times faster": median(s[1] / s[0] for s in seen),
        "share of the decoder's limit": median(s[2] / s[0] for s in seen),
        "share of a step spent waiting": share,
        "patches are equal to OpenSlide's": float(same),
    }
    for name, value in figures.items():
        print(f"{name}: {value:.3g}")
    goals = {"times faster": GOAL_FASTER, "share of a step spent waiting, at most": GOAL_WAITING}
    finish("patch_stream", figures, goals, figures["times faster"] >= GOAL_FASTER and share <= GOAL_WAITING)


if __name__ == "__main__":
    main()

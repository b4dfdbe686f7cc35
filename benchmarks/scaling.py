"""Two workers of a dask scheduler on this machine beside one process: two slides, the same maps either way.

The net is the default U-Net with random weights; one thread in the process, and one in each worker. Workers
are warm (they have loaded torch). Ideal is half the time of one process. The maps are compared byte by byte.

    python benchmarks/scaling.py [--quick] [--side PX]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from distributed import LocalCluster
from large_slides import MPP, large_slide
from measuring import finish, machine

from napari_histogan.config import PredictHeatmapConfig
from napari_histogan.inference.heatmap import predict_heatmap
from napari_histogan.models.segmenter import save_segmenter
from napari_histogan.models.unet import UNet
from napari_histogan.progress import QuietReporter
from napari_histogan.slides.reader import open_slide

GOAL = 0.9


def predict(slides: list[Path], net: Path, folder: Path, config: PredictHeatmapConfig) -> float:
    """Make a map of each slide; returns the seconds of all."""
    started = time.perf_counter()
    for slide in slides:
        run_dir = folder / slide.stem
        run_dir.mkdir(parents=True)
        with open_slide(slide) as reader:
            predict_heatmap(reader, net, config, QuietReporter(run_dir), run_dir / "map.zarr")
    return time.perf_counter() - started


def content(folder: Path) -> dict[str, bytes | list[bytes]]:
    """Return all files of the maps below a folder; blocks may have been noted in any order."""
    found: dict[str, bytes | list[bytes]] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            found[str(path.relative_to(folder))] = sorted(data.split()) if path.suffix == ".jsonl" else data
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller slides, one round")
    parser.add_argument("--smoke", action="store_true", help="the smallest run that says anything")
    parser.add_argument("--side", type=int, default=0, help="of the slides; a multiple of 512", metavar="PX")
    options = parser.parse_args()
    side = options.side or (1024 if options.smoke else 4096 if options.quick else 8192)
    print(f"{machine()}; two slides of {side} px", flush=True)
    slides = [large_slide(side), large_slide(side, 777)]
    here = PredictHeatmapConfig(device="cpu", threads=1)
    ratios: list[float] = []
    figures: dict[str, float] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
        ) as cluster,
    ):
        root = Path(folder)
        torch.manual_seed(0)
        save_segmenter(root / "net", UNet(3), ("a", "b", "c"), mpp=MPP)
        there = here.model_copy(update={"scheduler": cluster.scheduler_address})
        predict([large_slide(1024)], root / "net", root / "warm-up", there)
        for turn in range(1 if options.quick or options.smoke else 3):
            one = predict(slides, root / "net", root / f"one-{turn}", here)
            two = predict(slides, root / "net", root / f"two-{turn}", there)
            if content(root / f"one-{turn}") != content(root / f"two-{turn}"):
                raise SystemExit("the workers' maps are not those of one process")
            ratios.append(one / two / 2)
            figures |= {"one process, s": one, "two workers, s": two}
            print(f"one process {one:.1f} s, two workers {two:.1f} s: {ratios[-1]:.1%} of ideal", flush=True)
    figures["share of the ideal"] = median(ratios)
    finish("scaling", figures, {"share of the ideal": GOAL}, figures["share of the ideal"] >= GOAL)


if __name__ == "__main__":
    main()

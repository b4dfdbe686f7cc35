"""Learn from labels of patients on breast patches, and judge patch by patch what training never saw.

Each patient of `idc_breast` is a slide: its patches of 50 px (about 4 um/px) in one mosaic.  A patient with a
tumor patch is malign, and nothing else is told.  In each seed a third of the patients of each kind is kept
back; the AUC is that of the mean malign probability of their patches.

* naive: cross-entropy (beta_1 = 0), uniform places (alpha = 0), mean of all pixels (eta = 100), no
  pre-training
* ours: the stage's defaults, pre-trained as an auto-encoder
* paper: beta_1 = 1, alpha = 2 of the probability, and eta = 50, from the first step; pre-trained
* without_beta, without_alpha, without_eta, without_pretraining: ours with that one ingredient as in naive
* without_rank, without_even: ours with alpha of the probability; with alpha and eta from the first step
* supervised: the same net on the label of every patch, the ceiling

Maps are made anew between steps, eight times in a training (``--map-rounds``), so that a run can be repeated.

    python benchmarks/weak_supervision.py --idc FOLDER [--quick] [--seeds 3] [--steps 600] [--ways naive,ours]
    python benchmarks/weak_supervision.py --idc FOLDER --ablation   (without each ingredient)
    python benchmarks/weak_supervision.py --idc FOLDER --composed   (by malign fraction)
    python benchmarks/weak_supervision.py --throughput   (trainer and mapper side by side)

Citation: Cruz-Roa et al., SPIE Medical Imaging 2014, doi 10.1117/12.2043872.
"""

from __future__ import annotations

import argparse
import csv
import io
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import weak_composed
import weak_throughput
from measuring import finish, machine
from numpy.typing import NDArray
from PIL import Image

from napari_histogan.config.weak_labels import TrainWeaklyConfig
from napari_histogan.evaluation.detection import roc_auc
from napari_histogan.models.device import resolve
from napari_histogan.models.segmenter import load_segmenter, pixels_to_input
from napari_histogan.models.weak_unet import WeakUNet
from napari_histogan.progress import QuietReporter
from napari_histogan.slide_label_inputs import slide_mapper
from napari_histogan.slides.reader import open_slide
from napari_histogan.slides.tissue import TissueMask
from napari_histogan.training.train_weakly import train_weakly
from napari_histogan.training.weak_fit import new_fit
from napari_histogan.training.weak_losses import slide_label_losses
from napari_histogan.training.weak_maps import WeakSlide
from napari_histogan.training.weak_patches import WeakBatch, changed

SIDE, MPP = 50, 4.0
NAIVE = {"beta_1": 0.0, "alpha": 0.0, "eta": 100.0, "pretrain_steps": 0}
PAPER = {
    "beta_1": 1.0,
    "beta_rise": 0.0,
    "alpha": 2.0,
    "places": "probability",
    "eta": 50.0,
    "even_share": 0.0,
}
LEFT_OUT: dict[str, dict[str, Any]] = {
    "beta": {"beta_1": 0.0},
    "alpha": {"alpha": 0.0},
    "eta": {"eta": 100.0},
    "pretraining": {"pretrain_steps": 0},
    "rank": {"places": "probability", "alpha": 2.0},
    "even": {"even_share": 0.0},
    "rise": {"beta_rise": 0.0},
}
WAYS = (
    "naive",
    "ours",
    "paper",
    "without_beta",
    "without_alpha",
    "without_eta",
    "without_pretraining",
    "without_rank",
    "without_even",
    "without_rise",
    "supervised",
)


@dataclass(frozen=True)
class Patient:
    """Patches ``(n, 50, 50, 3) uint8`` and their labels ``(n,) bool``."""

    name: str
    patches: NDArray[np.uint8]
    malign: NDArray[np.bool_]

    @property
    def rows(self) -> int:
        """Patches along a side of the mosaic."""
        return int(np.ceil(np.sqrt(len(self.patches))))

    def mosaic(self) -> NDArray[np.uint8]:
        """Return all patches in one picture; places left over are white."""
        out = np.full((self.rows, self.rows, SIDE, SIDE, 3), 255, np.uint8)
        out.reshape(-1, SIDE, SIDE, 3)[: len(self.patches)] = self.patches
        return out.transpose(0, 2, 1, 3, 4).reshape(self.rows * SIDE, self.rows * SIDE, 3)

    def tissue(self) -> TissueMask:
        """Return where there are patches."""
        held = np.arange(self.rows**2).reshape(self.rows, self.rows) < len(self.patches)
        return TissueMask(held, SIDE * MPP)


def read_patients(folder: Path) -> list[Patient]:
    """Read all patients."""
    found: dict[str, list[tuple[NDArray[np.uint8], bool]]] = {}
    with zipfile.ZipFile(folder / "patches.zip") as bundle, (folder / "patches.csv").open() as table:
        for row in csv.DictReader(table):
            with Image.open(io.BytesIO(bundle.read(row["file"]))) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            if pixels.shape[:2] == (SIDE, SIDE):
                found.setdefault(row["patient"], []).append((pixels, row["idc"] == "1"))
    return [
        Patient(name, np.stack([p for p, _ in each]), np.array([m for _, m in each]))
        for name, each in sorted(found.items())
    ]


def split(patients: list[Patient], seed: int) -> tuple[list[Patient], list[Patient]]:
    """Return patients to learn from, and a third of each kind to judge by."""
    rng, test = np.random.default_rng(seed), set()
    for kind in (False, True):
        names = [p.name for p in patients if p.malign.any() == kind]
        test |= set(rng.permutation(names)[: round(len(names) / 3)].tolist())
    return [p for p in patients if p.name not in test], [p for p in patients if p.name in test]


def settings(way: str, options: argparse.Namespace, seed: int) -> TrainWeaklyConfig:
    """Return a way's config."""
    ours: dict[str, Any] = {"pretrain_steps": options.steps // 4}
    if way in ("naive", "supervised"):
        ours = dict(NAIVE)
    elif way == "paper":
        ours |= PAPER
    elif way.startswith("without_"):
        ours |= LEFT_OUT[way.removeprefix("without_")]
    ours["map_every"] = max(1, options.steps // options.map_rounds)
    if ours.get("alpha") == 0:
        ours["map_every"] = options.steps + 1
    sizes = {"width": options.width, "depth": 3, "patch_px": 48, "batch": 16, "buffer": 96}
    return TrainWeaklyConfig(
        steps=options.steps,
        mpp=MPP,
        map_tile_px=256,
        seed=seed,
        threads=1,
        elastic_px=2.0,
        learning_rate=options.rate,
        ema=0.95,
        **sizes,
        **ours,
    )


def learn(way: str, train: list[Patient], config: TrainWeaklyConfig, folder: Path) -> WeakUNet:
    """Train in one of the ways."""
    if way == "supervised":
        return supervised(train, config)
    slides = []
    for patient in train:
        path = folder / f"{patient.name}.png"
        Image.fromarray(patient.mosaic()).save(path)
        slides.append(
            WeakSlide(patient.name, open_slide(path, MPP), bool(patient.malign.any()), patient.tissue())
        )
    result = train_weakly(slides, config, QuietReporter(folder / "run"), slide_mapper(config))
    net = WeakUNet(2, config.width, config.depth)
    net.load_state_dict(load_segmenter(result)[0].state_dict())
    return net


def supervised(train: list[Patient], config: TrainWeaklyConfig) -> WeakUNet:
    """Train the same net on every patch's own label, both kinds equally often."""
    labels = np.concatenate([p.malign for p in train])
    patches = np.concatenate([p.patches for p in train])
    return supervised_on(patches[~labels], patches[labels], config)


def supervised_on(
    benign: NDArray[np.uint8], malign: NDArray[np.uint8], config: TrainWeaklyConfig
) -> WeakUNet:
    """Train on benign and malign patches ``(n, 50, 50, 3)``, both equally often."""
    fit = new_fit(WeakUNet(2, config.width, config.depth), config, resolve(config), config.steps)
    pixels = torch.from_numpy(np.concatenate([benign, malign])).permute(0, 3, 1, 2)
    labels = np.arange(len(pixels)) >= len(benign)
    rng, generator = np.random.default_rng(config.seed), torch.Generator().manual_seed(config.seed)
    for _ in range(config.steps):
        half = config.batch // 2
        chosen = np.concatenate([rng.choice(np.flatnonzero(labels == kind), half) for kind in (False, True)])
        raw = pixels[chosen][..., : config.patch_px, : config.patch_px].float()
        batch = WeakBatch(raw, torch.ones(len(raw), *raw.shape[2:], dtype=torch.bool), [])
        batch = changed(batch, config.elastic_px, generator)
        truth = torch.from_numpy(labels[chosen].astype(np.int64))

        def losses(x, logits, batch=batch, truth=truth):
            return slide_label_losses(logits, batch.valid, truth, (0.0, 0.0), 100.0)

        fit.take_step(batch.pixels, losses, str)
    return fit.averaged


@torch.inference_mode()
def patch_auc(net: WeakUNet, test: list[Patient]) -> float:
    """Return the AUC over the patches of patients kept back."""
    scores, labels = [], []
    for patient in test:
        pixels = torch.from_numpy(patient.patches).permute(0, 3, 1, 2)
        malign = net.eval()(pixels_to_input(pixels)).softmax(dim=1)[:, 1]
        scores.append(malign.mean(dim=(1, 2)).numpy())
        labels.append(patient.malign)
    return roc_auc(np.concatenate(labels), np.concatenate(scores))


def interval(values: list[float]) -> float:
    """Return half the width of the 95 % interval of a mean over seeds (Student's t)."""
    from scipy import stats

    if len(values) < 2:
        return 0.0
    return float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))


def main() -> None:
    """Run all ways and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--idc", type=Path)
    parser.add_argument(
        "--ablation", action="store_true", help="naive, ours, and ours without each ingredient"
    )
    parser.add_argument("--composed", action="store_true", help="slides whose malign fraction is known")
    parser.add_argument("--cells", type=int, default=32, help="of --composed: patches along a slide's side")
    parser.add_argument("--slides", type=int, default=6, help="of --composed: slides of each kind")
    parser.add_argument("--rate", type=float, default=2e-3, help="largest learning rate")
    parser.add_argument("--fractions", type=float, nargs="*", default=[], help="of --composed")
    parser.add_argument(
        "--throughput", action="store_true", help="how trainer and mapper slow each other down"
    )
    parser.add_argument("--map-rounds", type=int, default=8, help="how often all maps are made anew")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3, help="of --throughput")
    parser.add_argument("--quick", action="store_true", help="150 steps of a net of width 4")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--ways", default=",".join(WAYS), help="which of them; not with --throughput")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.width = 150, 4
    if options.throughput:
        weak_throughput.measure(options)
        return
    if options.idc is None:
        parser.error("give the folder of idc_breast by --idc")
    patients = read_patients(options.idc)
    if options.composed:
        weak_composed.measure(options, patients, supervised_on)
        return
    if options.ablation:
        options.ways = ",".join(way for way in WAYS if way != "supervised")
    print(machine())
    ways = [way for way in WAYS if way in options.ways.split(",")]
    found: dict[str, list[float]] = {way: [] for way in ways}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        train, test = split(patients, seed)
        for way in ways:
            with tempfile.TemporaryDirectory() as folder:
                net = learn(way, train, settings(way, options, seed), Path(folder))
            found[way].append(patch_auc(net, test))
            print(f"seed {seed}, {way}: patch AUC {found[way][-1]:.3f}", flush=True)
    figures = {}
    for way, values in found.items():
        figures |= {way: float(np.mean(values)), f"{way}_ci": interval(values)}
        print(f"{way:20s} {figures[way]:.3f} +- {figures[f'{way}_ci']:.3f} over {len(values)} seeds")
    for way in ways:
        if way.startswith("without_") and "ours" in found:
            lost = [b - a for a, b in zip(found[way], found["ours"], strict=True)]
            figures |= {f"gain_{way[8:]}": float(np.mean(lost)), f"gain_{way[8:]}_ci": interval(lost)}
            print(f"{way[8:]} brings {np.mean(lost):+.3f} +- {interval(lost):.3f}")
    gains = [b - a for a, b in zip(found.get("naive", []), found.get("ours", []), strict=False)]
    gain = float(np.mean(gains)) if gains else 0.0
    spread = interval(gains)
    figures |= {"ours_over_naive": gain, "ours_over_naive_ci": spread}
    # Only a gain whose interval lies above 0 counts; one seed has no interval.
    finish("weak_supervision", figures, {"ours_over_naive": 0.0}, len(gains) > 1 and gain > spread)


if __name__ == "__main__":
    main()

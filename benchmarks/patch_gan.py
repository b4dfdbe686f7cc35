"""Patch classifiers: with and without a generator, at several sizes; maps against the plain loop; few labels.

* `--chase FOLDER`: AUC inside the field of view of GAN-CNN and CNN on children kept back, over seeds; p by
  Welch's t-test; further `--ways`, single ingredients, at the smallest size only
* maps: every patch of a picture against a loop that cuts and classifies one after the other, same output
* training: patches per second of whole steps, and of a step in float32 that cuts patch by patch
* both at 64 px and width 32
* `--nuclei FOLDER`: MoNuSeg, 200 labeled pixels of each class: GAN-CNN, CNN, and a random forest on
  scikit-image's features, as other programs have it (needs scikit-learn, in the extra `dev`)

    python benchmarks/patch_gan.py --chase FOLDER --nuclei FOLDER [--quick | --half] [--seeds 5] [--sizes A,B]

`--quick`: patches of 32 px, narrow nets, 180 steps, 600 and 2,400 patches, left eyes at half resolution.
`--half`: patches of 32 px, 1,000 steps of nets of width 16, 200 and 2,400 labeled patches, half resolution;
a single core needs half an hour for it.  The whole of it takes hours.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from measuring import finish, in_turns, machine
from numpy.typing import NDArray
from PIL import Image

from napari_histogan.config.patch_gan import TrainPatchGanConfig
from napari_histogan.evaluation.pixel_roc import ROC_AXES, PixelAuc, ScoredPicture, pixel_auc, pooled_curve
from napari_histogan.evaluation.plots import line_plot
from napari_histogan.evaluation.significance import welch
from napari_histogan.inference.patch_map import PatchMapper
from napari_histogan.labels.centers import balanced, free_places, object_mask, pixel_places, skeleton_places
from napari_histogan.models.device import Compute, resolve
from napari_histogan.models.patch_gan import PatchClassifier, PatchNetShape
from napari_histogan.models.patch_gan_file import load_patch_classifier
from napari_histogan.models.segmenter import pixels_to_input
from napari_histogan.patch_inputs import PreparedPicture
from napari_histogan.progress import QuietReporter
from napari_histogan.slides.channels import Preparation
from napari_histogan.slides.patch_views import PatchViews
from napari_histogan.training.patch_gan_losses import class_loss
from napari_histogan.training.patch_gan_state import new_state
from napari_histogan.training.patch_sources import read_labelled
from napari_histogan.training.train_patch_gan import PatchLabels, train_patch_gan

WAYS: dict[str, dict[str, object]] = {
    "cnn": {"adversarial": False},
    "gan": {},
    "gan_full_weight": {"adversarial_weight": 1.0},
    "gan_unlabelled": {"unlabelled": 20_000},
    "gan_conditional": {"conditional": True},
    "cnn_instance": {"adversarial": False, "normalization": "instance"},
    "gan_instance": {"normalization": "instance"},
}
NAMES = ("object", "background")
SIDE, WIDTH = 64, 32
"""Of the patches and nets with which speed is measured."""
FASTER = 5.0


@dataclass(frozen=True)
class Task:
    """Pictures to learn from, and pictures to judge by."""

    learn: list[PreparedPicture]
    test: list[PreparedPicture]
    preparation: Preparation


def chase(folder: Path, half: bool, left_alone: bool) -> Task:
    """Children 1 to 7 to learn from, 8 to 10 to judge by; at half size, and left eyes alone, if asked for."""
    preparation = Preparation("green", clahe=True)
    learn: list[PreparedPicture] = []
    test: list[PreparedPicture] = []
    for p in read_labelled(folder, "chase"):
        if left_alone and p.name.endswith("R"):
            continue
        mask = object_mask(p.mask, p.name)
        pixels, inside = p.pixels, p.inside
        if half:
            pixels = np.asarray(Image.fromarray(pixels).reduce(2))
            mask, inside = mask[::2, ::2], inside[::2, ::2]
        classes = np.where(mask, 1, 2).astype(np.uint8)
        into = test if p.group >= "08" else learn
        into.append(PreparedPicture(p.name, preparation(pixels), classes, inside))
    return Task(learn, test, preparation)


def nuclei(folder: Path, half: bool) -> Task:
    """Two slides to learn from, one to judge by, in the stain of hematoxylin."""
    preparation = Preparation("hematoxylin", clahe=False)
    found = []
    for path in sorted(folder.glob("TCGA*.tif")):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        mask = np.asarray(Image.open(path.with_name(f"{path.stem}_mask.png"))) > 0
        if half:
            pixels, mask = np.asarray(Image.fromarray(pixels).reduce(2)), mask[::2, ::2]
        classes = np.where(mask, 1, 2).astype(np.uint8)
        found.append(PreparedPicture(path.stem, preparation(pixels), classes, np.ones(mask.shape, bool)))
    return Task(found[:-1], found[-1:], preparation)


def config_of(options: argparse.Namespace, way: str, count: int, seed: int) -> TrainPatchGanConfig:
    """Return a way's settings; steps and step sizes do not depend on the number of patches."""
    epochs = max(1, options.steps * 64 // count)
    values: dict[str, object] = {
        "patches": count,
        "epochs": epochs,
        "decay_epochs": max(1, epochs // 8),
        "seed": seed,
    }
    values |= {"width": options.width, "patch_px": options.patch_px, "preview_every": 10**9}
    return TrainPatchGanConfig(mpp=1.0, threads=options.threads, **{**values, **WAYS[way]})


def labels_of(task: Task, config: TrainPatchGanConfig, thin: bool) -> PatchLabels:
    """Draw the labeled patches of a seed."""
    masks, inside = [p.mask for p in task.learn], [p.inside for p in task.learn]
    if thin:
        places = skeleton_places([m == 1 for m in masks], inside, config.dilation_px)
    else:
        places = pixel_places(masks, inside, 2)
    centers = balanced(places, NAMES, config.patches, config.seed)
    views = PatchViews([p.pixels for p in task.learn], config.patch_px)
    return PatchLabels(views, centers, NAMES, free_places(inside, config.unlabelled, config.seed))


def learned(task: Task, labels: PatchLabels, config: TrainPatchGanConfig) -> PatchClassifier:
    """Train."""
    with tempfile.TemporaryDirectory() as folder:
        made = train_patch_gan(
            labels, config, QuietReporter(Path(folder)), mpp=1.0, preparation=task.preparation
        )
        return load_patch_classifier(made)[0]


def maps_of(net: PatchClassifier, task: Task, compute: Compute, stride: int) -> list[ScoredPicture]:
    """Map the pictures to judge by."""
    stride = max(stride, 8) if net.shape.normalization == "instance" else stride  # patch by patch: slow
    mapper = PatchMapper(net, compute, min(stride, net.shape.strides[-1]))
    scored = []
    for p in task.test:
        probability = mapper.of_picture(p.pixels.transpose(2, 0, 1))[0]
        scored.append(ScoredPicture(p.name, probability[p.inside], p.mask[p.inside] == 1))
    return scored


def compare(task: Task, thin: bool, counts: Sequence[int], options: argparse.Namespace) -> dict[str, float]:
    """Print and return mean AUCs of all ways, and Welch's p against the CNN."""
    figures: dict[str, float] = {}
    name = "chase" if thin else "nuclei"
    curves = []
    for count in counts:
        ways = [way for way in options.ways if way in ("cnn", "gan") or count == min(counts)]
        found: dict[str, list[float]] = {way: [] for way in ways}
        for seed in range(options.seeds):
            for way in ways:
                if seed >= options.more_seeds and way not in ("cnn", "gan"):
                    continue
                config = config_of(options, way, count, seed)
                net = learned(task, labels_of(task, config, thin), config)
                pictures = maps_of(net, task, resolve(config), options.stride)
                auc: PixelAuc = pixel_auc(pictures)
                found[way].append(auc.pooled)
                if seed == 0:
                    curves.append(pooled_curve(f"{way}, {count:,} patches", pictures))
                told = f"AUC {auc.pooled:.4f} (pictures {auc.mean:.4f}), {time.process_time():.0f} CPU s"
                print(f"{name} {count} seed {seed} {way}: {told}", flush=True)
        for way, values in found.items():
            figures[f"{name}_{count}_{way}"] = float(np.mean(values))
            line = f"{name}, {count} patches, {way}: {np.mean(values):.4f} +- {np.std(values, ddof=1):.4f}"
            if way != "cnn" and "cnn" in found:
                test = welch(values, found["cnn"])
                figures[f"{name}_{count}_{way}_gain"] = test.difference
                figures[f"{name}_{count}_{way}_p"] = test.p
                line += (
                    f"; over cnn {test.difference:+.4f} ({test.low:+.4f} to {test.high:+.4f}), p {test.p:.2g}"
                )
            print(line, flush=True)
    if options.plot:
        line_plot(curves[:7], ROC_AXES).save(options.plot / f"roc-{name}.png")
    return figures


def forest(task: Task, options: argparse.Namespace, count: int) -> list[float]:
    """Return AUCs of a random forest on scikit-image's features of the same labeled pixels."""
    from skimage.feature import multiscale_basic_features
    from sklearn.ensemble import RandomForestClassifier

    def features(p: PreparedPicture) -> NDArray[np.float32]:
        return np.asarray(multiscale_basic_features(p.pixels[..., 0], sigma_max=16))

    learn, test = [features(p) for p in task.learn], [features(p) for p in task.test]
    aucs = []
    for seed in range(options.seeds):
        centers = labels_of(task, config_of(options, "cnn", count, seed), thin=False).centers
        rows = np.stack([learn[n][y, x] for n, y, x in centers.places.tolist()])
        trees = RandomForestClassifier(100, random_state=seed, n_jobs=1).fit(rows, centers.classes)
        scored = [
            ScoredPicture(p.name, trees.predict_proba(f[p.inside])[:, 0], p.mask[p.inside] == 1)
            for p, f in zip(task.test, test, strict=True)
        ]
        aucs.append(pixel_auc(scored).pooled)
    return aucs


def inference_speed(task: Task, options: argparse.Namespace) -> dict[str, float]:
    """Return how many times faster maps are than the plain loop, which does a part of the picture."""
    picture = task.test[0].pixels.transpose(2, 0, 1)
    rows = picture[:, 100:132, 60:92]
    figures = {}
    for normalization in ("channel", "instance"):
        shape = PatchNetShape(SIDE, 1, 2, True, WIDTH, normalization)
        torch.manual_seed(0)
        net = PatchClassifier(shape).eval()
        config = TrainPatchGanConfig(mpp=1.0, threads=options.threads, precision="float32")
        exact = PatchMapper(net, resolve(config))
        net.to(memory_format=torch.channels_last)
        agree = float(np.abs(exact.of_picture(rows) - plain_map(net, rows)).max())
        if agree > 1e-4:
            raise SystemExit(f"the maps differ by {agree}")
        part = picture if normalization == "channel" else rows
        took = in_turns(
            {"ours": lambda m=exact, p=part: m.of_picture(p), "plain": lambda n=net: plain_map(n, rows)}, 2
        )
        ours, plain = took["ours"].cpu / part[0].size, took["plain"].cpu / rows[0].size
        figures[f"map_{normalization}_times_faster"] = plain / ours
        figures[f"map_{normalization}_patches_per_cpu_s"] = 1 / ours
        print(
            f"maps, {normalization}: {1 / ours:,.0f} patches per CPU s against {1 / plain:,.0f} one by one, "
            f"{plain / ours:.1f} times faster, differing by {agree:.1e} at most",
            flush=True,
        )
    return figures


@torch.inference_mode()
def plain_map(net: PatchClassifier, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Cut and classify one patch after the other."""
    side = net.shape.patch_px
    half = side // 2
    padded = np.pad(picture, ((0, 0), (half, half), (half, half)), mode="edge")
    out = np.empty((2, *picture.shape[1:]), np.float32)
    for y in range(picture.shape[1]):
        for x in range(picture.shape[2]):
            patch = torch.from_numpy(padded[None, :, y : y + side, x : x + side].copy())
            out[:, y, x] = net(pixels_to_input(patch))[0, :2].softmax(dim=0).numpy()
    return out


def training_speed(task: Task, options: argparse.Namespace) -> dict[str, float]:
    """Return patches per CPU second of whole steps at the paper's size, and of the CNN's plain step."""
    full = argparse.Namespace(**{**vars(options), "patch_px": SIDE, "width": WIDTH})
    config = config_of(full, "cnn", 512, 0)
    labels = labels_of(task, config, thin=True)
    state = new_state(PatchNetShape(SIDE, 1, 2, False, WIDTH), config, resolve(config))
    gan = config_of(full, "gan", 512, 0)
    both = new_state(PatchNetShape(SIDE, 1, 2, True, WIDTH), gan, resolve(gan))
    plain = PatchClassifier(state.net.shape)
    adam = torch.optim.Adam(plain.parameters())
    places, classes = labels.centers.places[::8], torch.from_numpy(labels.centers.classes[::8])

    def batch() -> torch.Tensor:
        x = pixels_to_input(torch.from_numpy(labels.views.gather(places)))
        return x.contiguous(memory_format=torch.channels_last)

    def plain_step() -> None:
        copies = [torch.from_numpy(labels.views.gather(places[k : k + 1])) for k in range(len(places))]
        loss = class_loss(plain(pixels_to_input(torch.cat(copies))), classes, 2)
        adam.zero_grad()
        loss.backward()
        adam.step()

    took = in_turns(
        {
            "cnn": lambda: state.take_step(batch(), classes, None, 1e-4),
            "gan": lambda: both.take_step(batch(), classes, None, 1e-4),
            "plain_cnn": plain_step,
        },
        3,
    )
    figures = {f"train_{name}_patches_per_cpu_s": len(places) / cost.cpu for name, cost in took.items()}
    print("training, patches per CPU s:", {k: round(v) for k, v in figures.items()}, flush=True)
    return figures


def strided(task: Task, options: argparse.Namespace) -> dict[str, float]:
    """Return AUC and time of exact and strided maps by one net."""
    config = config_of(options, "cnn", min(options.sizes), 0)
    net = learned(task, labels_of(task, config, thin=True), config)
    one, figures = Task(task.learn, task.test[:1], task.preparation), {}
    for stride in net.shape.strides:
        started = time.process_time()
        auc = pixel_auc(maps_of(net, one, resolve(config), stride)).pooled
        seconds = time.process_time() - started
        figures |= {f"stride_{stride}_auc": auc, f"stride_{stride}_cpu_s": seconds}
        print(f"stride {stride}: AUC {auc:.4f} in {seconds:.2f} CPU s", flush=True)
    return figures


def main() -> None:
    """Run what there is data for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--chase", type=Path, required=True)
    parser.add_argument("--nuclei", type=Path, help="folder of MoNuSeg's pictures and masks")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--quick", action="store_true")
    form.add_argument("--half", action="store_true")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--more-seeds", type=int, default=5, help="for other ways than cnn and gan")
    parser.add_argument("--sizes", help="labeled patches; default 15000,30000")
    parser.add_argument("--steps", type=int, default=0, help="of training, whatever the size; 0: 1,500")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--plot", type=Path, help="folder for ROC plots")
    options = parser.parse_args()
    options.patch_px, options.stride = 64, 4
    if options.quick:
        options.patch_px, options.width, options.steps, options.threads = 32, 8, options.steps or 180, 1
        options.sizes = options.sizes or "600,2400"
        options.ways = "cnn,gan" if options.ways == ",".join(WAYS) else options.ways
    if options.half:
        options.patch_px, options.stride, options.steps = 32, 2, options.steps or 1000
        options.sizes = options.sizes or "200,2400"
    options.steps = options.steps or 1500
    options.sizes = [int(size) for size in (options.sizes or "15000,30000").split(",")]
    options.ways = options.ways.split(",")
    print(machine(), flush=True)
    smaller = options.quick or options.half
    task = chase(options.chase, smaller, options.quick)
    figures = inference_speed(task, options) | training_speed(task, options) | strided(task, options)
    figures |= compare(task, True, options.sizes, options)
    if options.nuclei:
        cells = nuclei(options.nuclei, smaller)
        few = argparse.Namespace(**{**vars(options), "ways": ["cnn", "gan"]})
        figures |= compare(cells, False, [400], few)
        aucs = forest(cells, options, 400)
        figures["nuclei_400_forest"] = float(np.mean(aucs))
        print(f"nuclei, 400 labeled pixels, random forest: {np.mean(aucs):.4f}")
    # The paper's finding: the generator helps, the more the fewer labels there are.
    few, many = min(options.sizes), max(options.sizes)
    goals = {"map_channel_times_faster": FASTER, f"chase_{few}_gan_gain": 0.0}
    met = all(figures.get(name, np.nan) > least for name, least in goals.items())
    if met:  # both ways were run
        met = figures[f"chase_{few}_gan_p"] < 0.05
        met = met and figures[f"chase_{few}_gan_gain"] >= figures[f"chase_{many}_gan_gain"]
    finish("patch_gan", figures, goals, met)


if __name__ == "__main__":
    main()

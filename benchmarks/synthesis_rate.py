"""Pairs of image and mask per second, as a share of the images per second that the generator makes alone.

Ten nets (C-128-32-4) on the feature maps of all blocks.  The plain way does what the published codes do: it
upsamples and concatenates one image's maps and runs the nets one after the other, in float32.  At 64 px with
the generator that ships, at 256 px with one of the usual widths and random weights; the nets' weights are
random: time and agreement are measured.  Their first layers share 96 directions, as the stage leaves them,
and labels are compared with the plain way's by the same nets; nets that share none stand beside.  With one
thread CPU seconds decide, which other work on the machine changes less than the clock; with several, the
clock.

    python benchmarks/synthesis_rate.py [--quick] [--threads N]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from hypercolumn_training import random_generator
from measuring import Cost, finish, in_turns, machine

import napari_histogan
from napari_histogan.config import SynthesizeDatasetConfig, TrainPixelClassifierConfig
from napari_histogan.inference.pair_labels import PairLabeler
from napari_histogan.inference.pair_store import Batch
from napari_histogan.inference.sampling import draw_latents, styles, to_uint8
from napari_histogan.inference.shard_work import LATENT_DOMAIN, make_pairs
from napari_histogan.models.device import Compute, has_native_bfloat16
from napari_histogan.models.generator_file import load_generator
from napari_histogan.models.hypercolumns import FeatureStatistics, layout_of, upsample_and_concatenate
from napari_histogan.models.noise import noise_maps
from napari_histogan.models.pixel_classifier import PixelClassifier, PixelClassifierSpec
from napari_histogan.models.stylegan2 import Generator
from napari_histogan.models.uncertainty import ensemble_statistics
from napari_histogan.training.feature_subspace import share_directions

GOAL, AGREEMENT = 0.5, 0.98
DEMO = Path(napari_histogan.__file__).parent / "demo_data" / "generator"
CLASSES = tuple({"index": i, "name": f"class {i}"} for i in range(1, 5))


@torch.no_grad()
def build(size: int) -> tuple[Generator, PixelClassifier, PixelClassifier]:
    """Return a generator, nets as training leaves them, and nets whose first layers share nothing."""
    generator = load_generator(DEMO) if size == 64 else random_generator(size)
    generator.eval()
    torch.manual_seed(0)
    maps = generator.synthesis.features(generator.mapping(torch.randn(2, generator.spec.z_dim)))[1]
    statistics = FeatureStatistics(layout_of(maps, size))
    statistics.update(maps)
    both = []
    for count in (TrainPixelClassifierConfig().shared_directions, statistics.layout.channels):
        net = PixelClassifier(PixelClassifierSpec(statistics.layout, CLASSES)).eval()
        net.mean.copy_(statistics.mean())
        net.std.copy_(statistics.std())
        rows = upsample_and_concatenate(maps, size).permute(0, 2, 3, 1).flatten(0, 2)
        share_directions(net, net.standardize(rows[:: max(len(rows) // 4096, 1)]), count)
        both.append(net)
    return generator, both[0], both[1]


def images_alone(
    generator: Generator, config: SynthesizeDatasetConfig, pairs: range, dtype: torch.dtype
) -> np.ndarray:
    """Draw the images of these pairs, and nothing else."""
    z, seeds = draw_latents(config.seed, pairs, generator.spec.z_dim, LATENT_DOMAIN)
    noise = noise_maps(generator.spec, seeds.tolist())
    w = styles(generator, z, config.truncation, torch.device("cpu"))
    return to_uint8(generator.synthesis(w, noise=noise, dtype=dtype))


def plain_pair(generator: Generator, net: PixelClassifier, config: SynthesizeDatasetConfig) -> np.ndarray:
    """Return the mask of pair 0, made as the published codes do."""
    z, seeds = draw_latents(config.seed, range(1), generator.spec.z_dim, LATENT_DOMAIN)
    w = styles(generator, z, config.truncation, torch.device("cpu"))
    maps = generator.synthesis.features(w, noise=noise_maps(generator.spec, seeds.tolist()))[1]
    size = generator.spec.img_resolution
    columns = upsample_and_concatenate(maps, size)[0].flatten(1).t()
    columns = net.standardize(columns)
    logits = []
    for m in range(net.spec.members):
        h = columns
        for i, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
            h = torch.addmm(bias[m], h, weight[m])
            h = F.relu_(h) if i + 1 < len(net.weights) else h
        logits.append(h.t())
    mean, _ = ensemble_statistics(torch.stack(logits))
    return (mean.argmax(0) + 1).view(size, size).numpy()


@torch.inference_mode()
def compare(size: int, rounds: int) -> tuple[dict[str, Cost], dict[str, float]]:
    """Return the cost of one image or pair by each way, and the share of labels equal to the plain way's."""
    generator, net, apart = build(size)
    batch = 16 if size == 64 else 2
    config = SynthesizeDatasetConfig(batch=batch)
    pairs = range(batch)
    runs: dict[str, Callable[[], object]] = {}
    agreement: dict[str, float] = {}
    expected = plain_pair(generator, net, config)
    for name in ("float32", "bfloat16") if has_native_bfloat16() else ("float32",):
        dtype = getattr(torch, name)
        compute = Compute(torch.device("cpu"), dtype, torch.get_num_threads())
        ours: Callable[[], Batch] = partial(
            make_pairs, generator, PairLabeler(net, [], compute), config, pairs
        )
        runs[f"{name} images"] = partial(images_alone, generator, config, pairs, dtype)
        runs[f"{name} pairs"] = ours
        agreement[name] = float((ours()["masks"][0] == expected).mean())
        runs[f"{name} pairs, nothing shared"] = partial(
            make_pairs, generator, PairLabeler(apart, [], compute), config, pairs
        )
    found = {way: Cost(c.wall / batch, c.cpu / batch) for way, c in in_turns(runs, rounds).items()}
    plain = partial(plain_pair, generator, net, config)
    return found | in_turns({"plain pairs": plain}, 1, warm_up=False), agreement


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--smoke", action="store_true", help="the smallest run that says anything")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256], metavar="PX")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{machine()}; {options.threads} threads", flush=True)
    rounds = 1 if options.smoke else 2 if options.quick else 5
    decisive = "cpu" if options.threads == 1 else "wall"
    figures: dict[str, float] = {}
    shares: dict[int, float] = {}
    for size in [64] if options.smoke else options.sizes:
        cost, agreement = compare(size, rounds)
        seconds = {way: getattr(c, decisive) for way, c in cost.items()}
        # All shares are of the same: the images of the quickest way.
        image = min(s for way, s in seconds.items() if way.endswith("images"))
        for way, spent in seconds.items():
            figures[f"{size}px {way}/s"] = 1 / spent
            if "pairs" in way:
                figures[f"{size}px {way}, share of images/s"] = image / spent
        for name, share in agreement.items():
            figures[f"{size}px {name} labels as the plain way's"] = share
            if share < AGREEMENT:
                raise SystemExit(
                    f"{size}px: only {share:.2%} of the {name} labels are those of the plain way"
                )
        shares[size] = image / min(seconds[f"{name} pairs"] for name in agreement)
        text = ", ".join(f"{way} {1 / s:.3g}/s" for way, s in seconds.items())
        print(f"{size}px: {text}; share {shares[size]:.1%}", flush=True)
    met = 256 in shares and shares[256] >= GOAL
    finish("synthesis_rate", figures, {"256px share of images/s": GOAL}, met)


if __name__ == "__main__":
    main()

"""Images per second of the generator, beside a plain implementation of the same network.

The plain one makes a kernel for every sample and convolves in groups, and filters at full size
(`plain_stylegan2.py`).  Widths are the papers' for each resolution, weights random: only time and agreement
are measured.  Both draw one image after the other, and batches; they take turns.  With one thread, CPU
seconds decide, which other work on the machine hardly changes; with several, the clock.

    python benchmarks/generator_speed.py [--quick] [--threads N]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import plain_stylegan2
import torch
from measuring import Cost, finish, in_turns, machine
from torch import Tensor

from napari_histogan.models.device import has_native_bfloat16
from napari_histogan.models.noise import noise_maps
from napari_histogan.models.stylegan2 import Generator, GeneratorSpec

GOAL_FLOAT32, AGREEMENT = 1.0, 1e-4
WAYS = "plain", "float32", "bfloat16"


def build(resolution: int, channel_max: int) -> Generator:
    torch.manual_seed(0)
    base = 32768 if resolution >= 512 else 16384
    spec = GeneratorSpec(
        z_dim=512, c_dim=0, w_dim=512, img_resolution=resolution, mapping_layers=2, channel_base=base
    )
    spec = GeneratorSpec(**{**spec.to_dict(), "channel_max": min(spec.channel_max, channel_max)})
    generator = Generator(spec).eval().requires_grad_(False)
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.1)
    return generator


def draw(generator: Generator, ws: Tensor, noise: list[Tensor], way: str) -> Tensor:
    if way == "plain":
        return plain_stylegan2.synthesize(generator, ws, noise, grouped=True)
    return generator.synthesis(ws, noise=noise, dtype=getattr(torch, way))


def compare(
    resolution: int, batch: int, rounds: int, channel_max: int
) -> tuple[dict[str, Cost], dict[str, float]]:
    """Return the cost of an image by each way, and how far each way's pictures are from the plain ones."""
    generator = build(resolution, channel_max)
    ws = generator.mapping(torch.randn(batch, 512))
    noise = noise_maps(generator.spec, range(batch))
    ways = [way for way in WAYS if way != "bfloat16" or has_native_bfloat16()]
    pictures = {way: draw(generator, ws, noise, way) for way in ways}
    scale = pictures["plain"].std()
    differences = {way: float((pictures[way] - pictures["plain"]).abs().max() / scale) for way in ways[1:]}
    runs: dict[str, Callable[[], object]] = {way: partial(draw, generator, ws, noise, way) for way in ways}
    found = in_turns(runs, rounds)
    return {way: Cost(c.wall / batch, c.cpu / batch) for way, c in found.items()}, differences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="64 and 256 px, fewer rounds")
    parser.add_argument("--smoke", action="store_true", help="the smallest run that says anything")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", type=int, nargs="+", metavar="PX", help="64 to 1,024")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{machine()}; {options.threads} threads", flush=True)
    usual = [32] if options.smoke else [64, 256] if options.quick else [64, 128, 256, 512, 1024]
    sizes = options.sizes or usual
    rounds = 1 if options.smoke else 2 if options.quick else 7
    figures: dict[str, float] = {}
    met = True
    for resolution in sizes:
        for batch in (1, 2 if resolution > 256 else 4):
            with torch.inference_mode():
                seconds, differences = compare(
                    resolution, batch, rounds * (2 if resolution <= 128 else 1), 32 if options.smoke else 512
                )
            kind = f"{resolution}px batch {batch}"
            if differences["float32"] > AGREEMENT:
                raise SystemExit(
                    f"{kind}: float32 differs from the plain way by {differences['float32']:.1e}"
                )
            decisive = "cpu" if options.threads == 1 else "wall"
            faster = {
                way: getattr(seconds["plain"], decisive) / getattr(c, decisive) for way, c in seconds.items()
            }
            for way, spent in seconds.items():
                figures[f"{kind} {way} images/s"] = 1 / spent.wall
                figures[f"{kind} {way} cpu s/image"] = spent.cpu
                if way != "plain":
                    figures[f"{kind} {way} times faster"] = faster[way]
                    figures[f"{kind} {way} difference"] = differences[way]
            met = met and figures[f"{kind} float32 times faster"] >= GOAL_FLOAT32
            text = ", ".join(f"{way} {1 / c.wall:.3g}/s (x{faster[way]:.2f})" for way, c in seconds.items())
            print(f"{kind}: {text}", flush=True)
    finish("generator_speed", figures, {"float32 times faster, everywhere": GOAL_FLOAT32}, met)


if __name__ == "__main__":
    main()

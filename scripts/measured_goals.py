"""What the goals of benchmarks mean, and which figures stand side by side, for docs/measured.md."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Judged:
    """How a goal of a benchmark is read.

    Parameters
    ----------
    goal
        Its key among the benchmark's goals.
    words
        What it is about, for readers.
    value
        Takes the benchmark's figures to the one that is judged; KeyError or ValueError without it.
    at_least
        The goal is a lower bound; else an upper one.
    above
        The value has to be above or below the goal, not equal to it.
    """

    goal: str
    words: str
    value: Callable[[Figures], float]
    at_least: bool = True
    above: bool = False

    def reached(self, value: float, goal: float) -> bool:
        """Whether a value reaches a goal."""
        if value == goal:
            return not self.above
        return (value > goal) == self.at_least


@dataclass(frozen=True)
class Beside:
    """A figure and that of the plain way or peer, measured in turns in the same run.

    Parameters
    ----------
    words
        What is compared, with its unit.
    ours, peer
        Patterns of the figures' names; the best match of either counts.
    peer_words
        What the other way is.
    more
        More is better.
    """

    words: str
    ours: str
    peer: str
    peer_words: str
    more: bool = True


def one(name: str) -> Callable[[Figures], float]:
    """Return a reader of one figure."""
    return lambda figures: figures[name]


def best(pattern: str, more: bool = True) -> Callable[[Figures], float]:
    """Return a reader of the largest, or the smallest, of the figures whose whole names match."""
    return lambda figures: (max if more else min)(matching(figures, pattern))


def matching(figures: Figures, pattern: str) -> list[float]:
    """Return the figures whose whole names match."""
    return [value for name, value in figures.items() if re.fullmatch(pattern, name)]


def _slowest_shape(figures: Figures) -> float:
    """Return what the faster precision gains where that is least."""
    shapes = {name.partition(",")[0] for name in figures if name.endswith("times faster")}
    return min(max(matching(figures, rf"{shape}, (?!plain).* times faster")) for shape in shapes)


def _least_over_color(figures: Figures) -> float:
    """Return the smallest lead of painted samples over the color alone."""
    counts = [name.split()[0] for name in figures if name.endswith(" painted")]
    return min(figures[f"{k} painted"] - figures[f"{k} by color"] for k in counts)


JUDGED: Mapping[str, tuple[Judged, ...]] = {
    "patch_stream": (
        Judged("times faster", "random patches, times faster than a DataLoader", one("times faster")),
        Judged(
            "share of a step spent waiting, at most",
            "share of a training step spent waiting",
            one("share of a step spent waiting"),
            at_least=False,
        ),
    ),
    "generator_speed": (
        Judged(
            "float32 times faster, everywhere",
            "generator in float32, times faster, worst size",
            best(r".* float32 times faster", more=False),
        ),
    ),
    "gan_training_speed": (
        Judged("times faster than plain", "a step of training, times faster, worst shape", _slowest_shape),
        Judged(
            "s/kimg with AMX",
            "s per 1,000 images (the goal is for processors with AMX)",
            best(r"with path length, (?!plain).* s/kimg", more=False),
            at_least=False,
        ),
    ),
    "synthesis_rate": (
        Judged(
            "256px share of images/s",
            "256 px pairs, share of the rate of images alone",
            best(r"256px .*pairs, share of images/s"),
        ),
    ),
    "many_slides": (
        Judged("open_5000_s", "seconds to open and list 5,000 slides", one("open_5000_s"), False, True),
        Judged(
            "steepest", "steepest growth with the number of slides, exponent", one("steepest"), False, True
        ),
    ),
    "slide_inference": (
        Judged("ours, share of bare", "a slide, share of the bare net's rate", one("ours, share of bare")),
        Judged("ours, peak GB below", "a slide, peak of memory, GB", one("ours, peak GB"), False, True),
        Judged(
            "times faster than the faster other way",
            "a slide, times faster than the faster peer",
            one("times faster than the faster other way"),
        ),
    ),
    "live_prediction": tuple(
        Judged(f"{px}px stroke", f"a stroke to the mask at {px} px, s", one(f"{px}px stroke"), at_least=False)
        for px in (64, 256, 1024)
    ),
    "hypercolumns": (
        Judged(
            "times faster", "labeling a picture, times faster, worst size", best(r"\d+px times faster", False)
        ),
        Judged(
            "times smaller",
            "labeling a picture, times smaller, worst size",
            best(r"\d+px times smaller", False),
        ),
        Judged("1024px MiB", "labeling 1,024 px, MiB", one("1024px MiB"), at_least=False),
        Judged(
            "training times faster",
            "training, times faster (the plain way extrapolated)",
            one("training times faster"),
        ),
        Judged("training peak MiB", "training of the classifier, peak MiB", one("training peak MiB"), False),
        Judged(
            "training Dice below the plain way's",
            "training of the classifier, Dice lost",
            one("training Dice below the plain way's"),
            at_least=False,
        ),
        Judged("4096px peak MiB", "4,096 px from paint to mask, peak MiB", one("peak_mib"), at_least=False),
    ),
    "studio_latency": (
        Judged(
            "worst_block_ms", "the window while jobs run, longest block, ms", one("worst_block_ms"), False
        ),
        Judged("slide_first_pixels_s", "a slide, s to its first pixels", one("slide_first_pixels_s"), False),
        Judged("three_slides_mb", "three slides open, MB of memory", one("three_slides_mb"), False),
    ),
    "scaling": (
        Judged(
            "share of the ideal", "two workers, share of twice the speed of one", one("share of the ideal")
        ),
    ),
    "pixel_classifier_curve": (
        Judged(
            "painted - by color, at every count",
            "Dice over that of color alone, worst count",
            _least_over_color,
            above=True,
        ),
    ),
    "sample_selection": (
        Judged(
            "proposed gain - gain +-",
            "Dice gained by proposed samples, lower end of the interval",
            lambda figures: figures["proposed gain"] - figures["proposed gain +-"],
            above=True,
        ),
    ),
}

BESIDE: Mapping[str, tuple[Beside, ...]] = {
    "patch_stream": (
        Beside(
            "random patches a second",
            "patches/s",
            "DataLoader over OpenSlide patches/s",
            "DataLoader, OpenSlide",
        ),
    ),
    "generator_speed": tuple(
        Beside(
            f"{kind}, CPU s an image",
            rf"{kind} (float32|bfloat16) cpu s/image",
            f"{kind} plain cpu s/image",
            "the plain generator",
            more=False,
        )
        for kind in ("64px batch 4", "256px batch 4")
    ),
    "gan_training_speed": (
        Beside(
            "training, s per 1,000 images",
            r"with path length, (?!plain).* s/kimg",
            r"with path length, plain .* s/kimg",
            "the plain step in float32",
            more=False,
        ),
    ),
    "synthesis_rate": tuple(
        Beside(
            f"{px} px pairs a second",
            rf"{px}px (float32|bfloat16) pairs/s",
            f"{px}px plain pairs/s",
            "the published way",
        )
        for px in (64, 256)
    ),
    "slide_inference": (
        Beside(
            "megapixels of a slide a second",
            "ours, megapixels/s",
            r"OpenSlide loop(, .*)?, megapixels/s",
            "a loop over OpenSlide",
        ),
        Beside(
            "megapixels of a slide a second", "ours, megapixels/s", r"MONAI(, .*)?, megapixels/s", "MONAI"
        ),
    ),
    "live_prediction": (
        Beside(
            "a stroke to the mask at 256 px, s", "256px stroke", "256px plain", "the plain way", more=False
        ),
    ),
    "hypercolumns": tuple(
        Beside(
            f"labeling at {px} px, {words}",
            rf"{px}px projected, \w+ {key}",
            f"{px}px naive {key}",
            "building hypercolumns",
            more=False,
        )
        for px in (256, 512)
        for words, key in (("CPU s", "cpu_s"), ("MiB", "peak_mib"))
    ),
    "scaling": (Beside("two slides, s", "two workers, s", "one process, s", "one process", more=False),),
    "pixel_classifier_curve": (
        Beside("Dice with 8 painted samples", "8 painted", "8 by color", "a classifier of colors"),
    ),
    "sample_selection": (Beside("Dice with 8 painted samples", "proposed 8", "random 8", "random choice"),),
}

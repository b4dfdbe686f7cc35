"""How many painted samples does the pixel classifier need?  Held-out Dice for 1, 2, 4, 8, 16, and 32.

Samples are chosen at random, an oracle paints them (painting_study.py says which), the live classifier of the
dock learns anew, and mean Dice of all classes is taken over held-out samples; the mean over seeds, with its
95 % interval.  The plain way beside it, on the same painted samples: the class with the nearest mean color.

    python benchmarks/pixel_classifier_curve.py [--quick] [--generator FOLDER --glas FOLDER]
"""

from __future__ import annotations

import numpy as np
from measuring import finish, machine
from painting_study import Study, mean_interval, open_study, options

from napari_histogan.jobs.live_classifier import probe_positions
from napari_histogan.metrics import confusion_matrix, dice

COUNTS = (1, 2, 4, 8, 16, 32)
GOAL = 0.0


def by_color(study: Study, painted: list[int], pixels: np.ndarray) -> float:
    """Return mean Dice of giving each pixel the class whose mean painted color is nearest."""
    where = probe_positions(study.masks.shape[1])
    truth = study.masks.reshape(len(study.masks), -1)[:, where]
    color, label = pixels[painted].reshape(-1, 3), truth[painted].ravel()
    seen = np.unique(label)
    centers = np.stack([color[label == k].mean(axis=0) for k in seen])
    distance = ((pixels[study.held_out][:, :, None] - centers) ** 2).sum(axis=-1)
    found = seen[distance.argmin(axis=-1)]
    matrix = confusion_matrix(truth[study.held_out], found, study.classes.num_classes)
    return float(np.nanmean(dice(matrix)))


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, default=0, help="5 with --quick, else 10")
    given = parser.parse_args()
    seeds = given.seeds or (5 if given.quick else 10)
    print(machine(), flush=True)
    study = open_study(given)
    print(
        f"{study.words}; {len(study.pool)} samples to paint from, {len(study.held_out)} held out", flush=True
    )
    where = probe_positions(study.masks.shape[1])
    pictures = np.asarray(study.live.samples.image[:])
    pixels = pictures.reshape(len(pictures), -1, 3)[:, where].astype(np.float32)
    seconds: list[float] = []
    figures: dict[str, float] = {}
    for count in COUNTS:
        ours, plain = [], []
        for seed in range(seeds):
            order = np.random.default_rng(seed).permutation(study.pool)
            painted = [int(i) for i in order[:count]]
            ours.append(study.paint(painted, seconds))
            plain.append(by_color(study, painted, pixels))
        mean, half = mean_interval(ours)
        figures |= {
            f"{count} painted": mean,
            f"{count} painted +-": half,
            f"{count} by color": mean_interval(plain)[0],
        }
        print(
            f"{count:2d} painted: Dice {mean:.3f} +- {half:.3f}; by color {figures[f'{count} by color']:.3f}",
            flush=True,
        )
    figures["seconds to learn"] = float(np.median(seconds))
    met = all(figures[f"{k} painted"] > figures[f"{k} by color"] for k in COUNTS)
    finish("pixel_classifier_curve", figures, {"painted - by color, at every count": GOAL}, met)


if __name__ == "__main__":
    main()

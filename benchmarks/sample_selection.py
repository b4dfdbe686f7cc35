"""Compare painting the samples that the program proposes with painting samples at random.

Every seed begins with a random sample, the same for all strategies, and goes on to 2, 4, 8, and 16 painted
ones.  An oracle paints (painting_study.py), the live classifier of the dock learns anew from the painted
samples, and is judged by its mean Dice on held-out samples.  Differences are paired by seed.

* proposed: what the dock and `histogan rank` propose: the most uncertain ones, but no twins
* uncertain: the most uncertain ones, however alike
* unlike: no twins of what is painted or chosen, certain or not

    python benchmarks/sample_selection.py [--quick] [--generator FOLDER --glas FOLDER]
"""

from __future__ import annotations

import numpy as np
from measuring import finish, machine
from painting_study import Study, mean_interval, open_study, options

from napari_histogan.inference.informative import rank_informative

ROUNDS = (1, 2, 4, 8, 16)
STRATEGIES = ("random", "proposed", "uncertain", "unlike")


def chosen_next(study: Study, strategy: str, painted: list[int], count: int, seed: int) -> list[int]:
    """Choose samples to paint; the study's classifier has learned from the painted ones."""
    free = [i for i in study.pool if i not in painted]
    if strategy == "random":
        picked = np.random.default_rng((seed, len(painted))).choice(free, count, replace=False)
        return [int(i) for i in picked]
    if strategy == "proposed":
        return study.live.rank(free, painted)[0][:count]
    if strategy == "uncertain":
        order = np.argsort(-study.live.judge(free)[1])[:count]
    else:
        order = rank_informative(np.ones(len(free)), study.live.looks(free), count, study.live.looks(painted))
    return [free[int(k)] for k in order]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, default=0, help="5 with --quick, else 10")
    parser.add_argument("--from-seed", type=int, default=0, help="the first of the seeds")
    given = parser.parse_args()
    seeds = given.seeds or (5 if given.quick else 10)
    print(machine(), flush=True)
    study = open_study(given)
    print(
        f"{study.words}; {len(study.pool)} samples to choose from, {len(study.held_out)} held out", flush=True
    )
    scores = np.zeros((len(STRATEGIES), seeds, len(ROUNDS)))
    seconds: list[float] = []
    for number in range(seeds):
        seed = given.from_seed + number
        first = int(np.random.default_rng(seed).choice(study.pool))
        for s, strategy in enumerate(STRATEGIES):
            painted = [first]
            for r, count in enumerate(ROUNDS):
                painted += chosen_next(study, strategy, painted, count - len(painted), seed) if r else []
                scores[s, number, r] = study.paint(painted, seconds)
        print(
            f"seed {seed}: " + "; ".join(f"{n} {scores[s, number, -1]:.3f}" for s, n in enumerate(STRATEGIES))
        )
    figures: dict[str, float] = {"seconds to learn": float(np.median(seconds))}
    for s, strategy in enumerate(STRATEGIES):
        for r, count in enumerate(ROUNDS):
            figures[f"{strategy} {count}"] = float(scores[s, :, r].mean())
            if s and r:
                gain, half = mean_interval(scores[s, :, r] - scores[0, :, r])
                figures[f"{strategy} {count} gain"], figures[f"{strategy} {count} gain +-"] = gain, half
        if s:  # the whole curve at once: the mean over the rounds after the first
            gain, half = mean_interval((scores[s] - scores[0])[:, 1:].mean(axis=1))
            figures[f"{strategy} gain"], figures[f"{strategy} gain +-"] = gain, half
            print(
                f"{strategy}: {gain:+.4f} +- {half:.4f} mean Dice over random, 95 % interval, {seeds} seeds"
            )
    met = figures["proposed gain"] - figures["proposed gain +-"] > 0
    finish("sample_selection", figures, {"proposed gain - gain +-": 0.0}, met)


if __name__ == "__main__":
    main()

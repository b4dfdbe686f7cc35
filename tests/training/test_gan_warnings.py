"""When training warns: each concern once, as long as it lasts."""

import pytest

from napari_histogan.config import TrainGanConfig
from napari_histogan.progress import QuietReporter
from napari_histogan.training.gan_warnings import GanWatch, concerns
from napari_histogan.training.train_gan import train_gan


def report(spread=0.8, ada_p=0.1, sign_real=0.6):
    return {"spread": spread, "ada_p": ada_p, "sign_real": sign_real}


CALM = [report()] * 5


@pytest.mark.parametrize(
    ("last", "kinds"),
    [
        ([], set()),
        ([report(spread=0.41)], set()),
        ([report(spread=0.39)], {"collapse"}),
        ([report(ada_p=0.8)], set()),
        ([report(ada_p=0.81)], {"augmentation"}),
        ([report(sign_real=0.9)] * 2, set()),
        ([report(sign_real=0.9)] * 3, {"overfitting"}),
        ([report(sign_real=0.95), report(sign_real=0.9), report(sign_real=0.85)], set()),
        ([report(ada_p=0.9, sign_real=0.95)] * 3, {"augmentation", "overfitting"}),
    ],
)
def test_what_worries(last, kinds):
    assert set(concerns([*CALM, *last], 0.6)) == kinds
    assert concerns([], 0.6) == {}


def test_without_augmentation_overfitting_is_told_even_while_it_falls():
    history = [report(sign_real=s, ada_p=0.0) for s in (0.95, 0.9, 0.85)]
    assert "augmentation is off" in concerns(history, 0.0)["overfitting"]
    assert concerns(history, 0.6) == {}


def test_samples_that_never_varied_have_not_collapsed():
    assert concerns([report(spread=0.2)] * 4, 0.6) == {}


def test_each_concern_is_told_once_per_occurrence():
    watch = GanWatch(0.6)
    told = [len(watch.news(report(ada_p=p))) for p in (0.5, 0.85, 0.9, 0.85, 0.7, 0.9)]
    assert told == [0, 1, 0, 0, 0, 1]


def test_numbers_found_are_said():
    message = concerns([report(spread=0.8), report(spread=0.2)], 0.6)["collapse"]
    assert "80%" in message
    assert "20%" in message


def test_a_real_run_warns_of_augmentation(tmp_path):
    from test_train_gan import Ramps

    config = TrainGanConfig(
        kimg=0.128,
        batch=8,
        z_dim=8,
        w_dim=8,
        mapping_layers=2,
        channel_base=128,
        channel_max=8,
        tick_kimg=0.032,
        ada_target=0.01,
        ada_kimg=0.03,
        seed=2,
        threads=1,
        precision="float32",
        learning_rate=0.01,
    )
    reporter = QuietReporter(tmp_path)
    train_gan(Ramps(), config, reporter)
    most = max(e["ada_p"] for e in reporter.events if e["kind"] == "metric")
    warnings = [e["message"] for e in reporter.events if e["kind"] == "warning"]
    assert most > 0.8
    assert sum("Augmentation changes" in message for message in warnings) >= 1

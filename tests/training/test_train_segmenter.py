from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from napari_histogan.config import TrainSegmenterConfig
from napari_histogan.errors import CheckpointError, LabelError, ModelError, Stopped, TrainingDiverged
from napari_histogan.labels.classes import ClassTable
from napari_histogan.models.deeplab import DeepLab
from napari_histogan.models.segmenter import load_segmenter, save_segmenter
from napari_histogan.models.unet import UNet
from napari_histogan.progress import QuietReporter
from napari_histogan.training.datasets import ArrayPairs
from napari_histogan.training.segmenter_state import one_cycle, schedule
from napari_histogan.training.train_segmenter import laid_together, train_segmenter

COLORS = np.array([[240, 240, 240], [220, 120, 170], [110, 60, 140], [160, 90, 60]])


def pairs(count: int = 48, side: int = 32, classes: int = 3, seed: int = 0, mpp: float = 1.0) -> ArrayPairs:
    """Blobs of colors on a ground; the color tells the class, with noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, (count, side // 8, side // 8))
    masks = np.kron(coarse, np.ones((1, 8, 8), int)) + 1
    images = COLORS[masks - 1] + rng.normal(0, 12, (count, side, side, 3))
    return ArrayPairs(np.clip(images, 0, 255).astype(np.uint8), masks.astype(np.uint8), mpp)


def config(**changes: object) -> TrainSegmenterConfig:
    values = {
        "steps": 12,
        "batch": 8,
        "width": 4,
        "depth": 2,
        "validate_every": 6,
        "device": "cpu",
        "threads": 1,
        "precision": "float32",
        "ema": 0.9,
        "learning_rate": 0.01,
    }
    return TrainSegmenterConfig(**{**values, **changes})  # type: ignore[arg-type]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_segmenter(folder)[0].state_dict()


def test_it_learns_what_the_colors_mean(tmp_path: Path) -> None:
    reporter = QuietReporter(tmp_path)
    classes = ClassTable.from_names(["ground", "pink", "violet"])
    settings = config(steps=100, precision="auto")
    folder = train_segmenter([pairs()], 3, settings, reporter, classes=classes)
    net, info = load_segmenter(folder)
    assert info.class_names == ("ground", "pink", "violet")
    assert (info.mpp, info.patch_px, info.absent_classes) == (1.0, 32, ())
    assert info.validation["mcc"] > 0.8
    fresh = pairs(seed=9).batch(range(8))
    pixels = torch.from_numpy(fresh[0]).permute(0, 3, 1, 2).float() / 127.5 - 1
    assert (net(pixels).argmax(1).numpy() + 1 == fresh[1]).mean() > 0.85
    losses = [e["loss"] for e in reporter.events if e["kind"] == "metric" and "loss" in e]
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_n_and_n_steps_are_2n_steps_bit_for_bit(tmp_path: Path, precision: str) -> None:
    settings = config(precision=precision)
    once = train_segmenter([pairs()], 3, settings, QuietReporter(tmp_path / "once"))
    stopping = QuietReporter(
        tmp_path / "twice", stop_when=lambda: sum(e["kind"] == "progress" for e in stopping.events) == 6
    )
    with pytest.raises(Stopped, match="after 6 of 12"):
        train_segmenter([pairs()], 3, settings, stopping)
    resumed = QuietReporter(tmp_path / "twice")
    twice = train_segmenter([pairs()], 3, settings, resumed)
    assert next(e["done"] for e in resumed.events if e["kind"] == "progress") == 7
    first, second = weights(once), weights(twice)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert load_segmenter(once)[1] == load_segmenter(twice)[1]


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    before = weights(train_segmenter([pairs()], 3, config(), QuietReporter(tmp_path)))
    again = QuietReporter(tmp_path)
    after = weights(train_segmenter([pairs()], 3, config(), again))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not [e for e in again.events if e["kind"] == "progress"]


def test_a_checkpoint_of_another_net_is_refused(tmp_path: Path) -> None:
    train_segmenter([pairs()], 3, config(steps=2), QuietReporter(tmp_path))
    with pytest.raises(CheckpointError, match="width 8"):
        train_segmenter([pairs()], 3, config(width=8), QuietReporter(tmp_path))


def test_the_best_average_is_kept_not_the_last(tmp_path: Path) -> None:
    reporter = QuietReporter(tmp_path)
    many = config(steps=24, validate_every=4, validation_share=0.5)
    folder = train_segmenter([pairs()], 3, many, reporter)
    scores = [e["val_score"] for e in reporter.events if e["kind"] == "metric" and "val_score" in e]
    assert len(scores) == 6
    assert load_segmenter(folder)[1].validation["score"] == pytest.approx(max(scores))


def test_few_held_out_pairs_do_not_choose(tmp_path: Path) -> None:
    few = config(steps=24, validate_every=4, validation_share=0.05)
    folder = train_segmenter([pairs()], 3, few, QuietReporter(tmp_path))
    assert load_segmenter(folder)[1].validation["step"] == 24


def test_previews_show_image_truth_and_prediction(tmp_path: Path) -> None:
    reporter = QuietReporter(tmp_path)
    classes = ClassTable.from_names(["a", "b", "c"])
    train_segmenter([pairs()], 3, config(), reporter, classes=classes)
    shown = [Path(e["path"]) for e in reporter.events if e["kind"] == "preview"]
    assert [path.name for path in shown] == ["segmenter-000006.png", "segmenter-000012.png"]
    picture = np.array(Image.open(shown[0]))
    assert picture.shape[0] == 3 * 32
    colors = {tuple(color) for color in picture[32:96].reshape(-1, 3).tolist()}
    assert colors <= {info.rgb for info in classes}


def test_a_loss_that_is_no_number_ends_training_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = QuietReporter(
        tmp_path, stop_when=lambda: sum(e["kind"] == "progress" for e in stopping.events) == 6
    )
    with pytest.raises(Stopped):
        train_segmenter([pairs()], 3, config(), stopping)
    kept = sorted((tmp_path / "checkpoints").glob("step-*"))
    forward = UNet.forward
    with monkeypatch.context() as patch:
        patch.setattr(UNet, "forward", lambda net, x: forward(net, x) * float("nan"))
        with pytest.raises(TrainingDiverged, match="at step 6 the loss became nan"):
            train_segmenter([pairs()], 3, config(), QuietReporter(tmp_path))
    assert sorted((tmp_path / "checkpoints").glob("step-*")) == kept
    assert train_segmenter([pairs()], 3, config(), QuietReporter(tmp_path)).is_dir()


def test_a_segmenter_can_be_trained_on(tmp_path: Path) -> None:
    first = train_segmenter([pairs()], 3, config(steps=60), QuietReporter(tmp_path / "first"))
    settings = config(steps=1, learning_rate=1e-5, validate_every=1)
    warm = train_segmenter([pairs()], 3, settings, QuietReporter(tmp_path / "warm"), init=first)
    cold = train_segmenter([pairs()], 3, settings, QuietReporter(tmp_path / "cold"))
    assert load_segmenter(warm)[1].validation["mcc"] > load_segmenter(cold)[1].validation["mcc"] + 0.2


def test_a_start_with_other_classes_keeps_all_but_the_last_layer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_segmenter(tmp_path / "other", UNet(5, 4, 2), list("abcde"), 1.0)
    reporter = QuietReporter(tmp_path / "run")
    settings = config(steps=1, learning_rate=1e-9, weight_decay=0.0, ema=0)
    folder = train_segmenter([pairs()], 3, settings, reporter, init=tmp_path / "other")
    assert any("5 classes" in e["message"] for e in reporter.events if e["kind"] == "warning")
    got, start = weights(folder), weights(tmp_path / "other")
    torch.testing.assert_close(got["encoders.0.conv1.weight"], start["encoders.0.conv1.weight"])
    assert got["head.weight"].shape[0] == 3


def test_a_start_of_another_shape_is_refused(tmp_path: Path) -> None:
    save_segmenter(tmp_path / "other", UNet(3, 8, 2), list("abc"), 1.0)
    with pytest.raises(ModelError, match="set width to 8 and depth to 2"):
        train_segmenter([pairs()], 3, config(), QuietReporter(tmp_path / "run"), init=tmp_path / "other")


def test_an_absent_class_is_warned_about_and_recorded(tmp_path: Path) -> None:
    reporter = QuietReporter(tmp_path)
    classes = ClassTable.from_names(["a", "b", "c", "fat"])
    folder = train_segmenter([pairs()], 4, config(steps=1), reporter, classes=classes)
    assert any("no mask holds fat" in e["message"] for e in reporter.events if e["kind"] == "warning")
    assert load_segmenter(folder)[1].absent_classes == (4,)


def test_fewer_than_two_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="fewer than two classes; absent: class 2, class 3"):
        train_segmenter([pairs(classes=1)], 3, config(), QuietReporter(tmp_path))


def test_a_class_beyond_the_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="class 4"):
        train_segmenter([pairs(classes=4)], 3, config(), QuietReporter(tmp_path))


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [one_cycle(step, 200) for step in range(200)]
    peak = int(np.argmax(rates))
    assert peak == 10
    assert rates[peak] == pytest.approx(1)
    assert (np.diff(rates[:peak]) > 0).all()
    assert (np.diff(rates[peak:]) < 0).all()
    assert rates[-1] < 0.001


def test_a_deeplab_learns_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    settings = config(
        net="deeplab",
        backbone="resnet18",
        optimizer="sgd",
        schedule="poly",
        layer_decay=0.7,
        steps=4,
        batch=4,
    )
    settings = settings.model_copy(update={"validate_every": 4, "revisit_hard": 0.5})
    once = train_segmenter([pairs(12)], 3, settings, QuietReporter(tmp_path / "once"))
    stopping = QuietReporter(
        tmp_path / "twice", stop_when=lambda: sum(e["kind"] == "progress" for e in stopping.events) == 2
    )
    with pytest.raises(Stopped, match="after 2 of 4"):
        train_segmenter([pairs(12)], 3, settings, stopping)
    twice = train_segmenter([pairs(12)], 3, settings, QuietReporter(tmp_path / "twice"))
    first, second = weights(once), weights(twice)
    assert all(torch.equal(first[name], second[name]) for name in first)
    info = load_segmenter(once)[1]
    assert (info.architecture, info.backbone, info.context_px, info.stride_px) == (
        "deeplab",
        "resnet18",
        32,
        16,
    )


def test_early_layers_learn_slower_if_asked_to(tmp_path: Path) -> None:
    def moved(decay: float) -> tuple[float, float]:
        settings = config(steps=1, layer_decay=decay, ema=0.0, augment=False)
        after = weights(train_segmenter([pairs()], 3, settings, QuietReporter(tmp_path / f"{decay}")))
        torch.manual_seed(settings.seed)
        before = UNet(3, 4, 2).state_dict()
        change = {name: float((after[name] - before[name]).abs().max()) for name in before}
        return change["encoders.0.conv1.weight"], change["head.weight"]

    plain, slow = moved(1.0), moved(0.5)
    assert slow[1] == pytest.approx(plain[1], rel=0.05)
    assert slow[0] == pytest.approx(plain[0] / 8, rel=0.1)


def test_the_poly_schedule_falls_from_one_to_zero() -> None:
    assert schedule("poly", 0, 10) == 1
    assert schedule("poly", 5, 10) == pytest.approx(0.5**0.9)
    assert schedule("poly", 10, 10) == 0
    assert schedule("one_cycle", 3, 10) == one_cycle(3, 10)


def test_a_unet_does_not_start_from_a_deeplab(tmp_path: Path) -> None:
    save_segmenter(tmp_path / "other", DeepLab(3, "resnet18"), list("abc"), 1.0)
    with pytest.raises(ModelError, match="DeepLab on resnet18"):
        train_segmenter([pairs()], 3, config(), QuietReporter(tmp_path), init=tmp_path / "other")


def test_four_patches_lie_together_as_written():
    patches = torch.arange(8).reshape(8, 1, 1, 1).expand(8, 3, 2, 2)
    whole = laid_together(patches)
    assert whole.shape == (2, 3, 4, 4)
    assert whole[0, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    assert laid_together(patches[:, 0])[1].tolist() == [[4, 4, 5, 5]] * 2 + [[6, 6, 7, 7]] * 2


def test_going_on_from_a_net_says_when_it_became_worse(tmp_path: Path) -> None:
    settings = config(steps=60, validation_share=0.4)
    first = train_segmenter([pairs()], 3, settings, QuietReporter(tmp_path / "first"))
    ruined, kind = QuietReporter(tmp_path / "ruined"), QuietReporter(tmp_path / "kind")
    for reporter, rate in ((ruined, 0.9), (kind, 1e-5)):
        more = settings.model_copy(update={"steps": 4, "learning_rate": rate})
        train_segmenter([pairs()], 3, more, reporter, init=first)
    assert [e["message"] for e in kind.events if e["kind"] == "warning"] == []
    (said,) = [e["message"] for e in ruined.events if e["kind"] == "warning"]
    assert "became worse" in said

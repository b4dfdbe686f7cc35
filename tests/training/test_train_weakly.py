"""Training on slide labels: it finds the spots, goes on exactly, and mapper and trainer do not wait."""

from __future__ import annotations

import itertools
import json
import threading

import numpy as np
import pytest
import torch
from weak_slides import SPOT, make_slides, mapping, picture, quick

from napari_histogan.errors import LabelError, NoTissue, SlideTooSmall, Stopped, TrainingDiverged
from napari_histogan.models.segmenter import load_segmenter
from napari_histogan.progress import QuietReporter
from napari_histogan.slides.tissue import TissueMask
from napari_histogan.training.checkpoint import CheckpointStore
from napari_histogan.training.train_weakly import train_weakly
from napari_histogan.training.weak_maps import MapStore, WeakSlide, malign_percent
from napari_histogan.training.weak_patches import WeakBatch, bend, changed
from napari_histogan.training.weak_schedule import alpha_at, beta_1_at, beta_1_of, eta_at


def kinds(reporter, kind):
    return [event for event in reporter.events if event["kind"] == kind]


def test_spots_are_found_from_labels_of_slides_alone(tmp_path):
    fast = {"width": 4, "batch": 8, "buffer": 32, "learning_rate": 0.01, "ema": 0.9}
    config = quick(steps=90, map_every=45, beta_1=0.5, **fast)
    reporter = QuietReporter(tmp_path / "run")
    slides = make_slides(tmp_path / "slides", (True, True, False, False, True, False), held_out=(4, 5))
    folder = train_weakly(slides, config, reporter, mapping(config))
    net, info = load_segmenter(folder)
    assert info.class_names == ("benign", "malign")
    pixels = torch.from_numpy(picture(True, 99)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        malign = net(pixels).softmax(dim=1)[0, 1].numpy()
    inside = np.zeros(malign.shape, bool)
    inside[SPOT.slices] = True
    assert malign[inside].mean() > malign[~inside].mean() + 0.3
    rows = {row["slide"]: row for row in json.loads((folder / "slides.json").read_text())}
    assert [rows[f"slide{k}"]["held_out"] for k in range(6)] == [False] * 4 + [True] * 2
    maps = [malign_percent(tmp_path / "run" / rows[f"slide{k}"]["map"])[0] for k in (4, 5)]
    assert maps[0][SPOT.slices].mean() > maps[1][SPOT.slices].mean() + 20
    assert rows["slide4"]["score"] == pytest.approx(maps[0].max() / 100)
    visited = {name for event in kinds(reporter, "visits") for name in event["slides"]}
    assert visited == {"slide0", "slide1", "slide2", "slide3"}


def test_maps_come_in_while_training_runs_and_tell_their_age(tmp_path):
    config = quick(steps=100_000, every_epochs=2)
    reporter = QuietReporter(tmp_path / "run", lambda: len(kinds(reporter, "map")) > 5 and told())

    def told():
        return any(event["slides"] for event in kinds(reporter, "staleness"))

    with pytest.raises(Stopped):
        train_weakly(make_slides(tmp_path / "slides"), config, reporter, mapping(config))
    made = kinds(reporter, "map")
    assert {event["slide"] for event in made} == {"slide0", "slide1", "slide2", "slide3"}
    assert all(0 <= event["made_with"] <= event["step"] for event in made)
    assert max(event["made_with"] for event in made) > 0  # with newer weights than the first
    stale = kinds(reporter, "staleness")[-1]
    assert all(0 <= steps <= stale["step"] for steps in stale["slides"].values())
    visits = [name for event in kinds(reporter, "visits") for name in event["slides"]]
    for name in stale["slides"]:
        at = [-1, *(k for k, visited in enumerate(visits) if visited == name)]
        assert max(b - a for a, b in itertools.pairwise(at)) <= 2 * 4


def test_every_map_is_made_anew_beside_the_training_and_places_follow_the_newest(tmp_path):
    """The mapper runs beside (no map_every) and visits begin before, between, and after its maps."""
    config, run = quick(steps=100_000), tmp_path / "run"

    def renewed():
        made = [event["slide"] for event in kinds(reporter, "map")]
        return len(kinds(reporter, "staleness")) > 2 and min(made.count(f"slide{k}") for k in range(4)) >= 3

    reporter = QuietReporter(run, renewed)
    with pytest.raises(Stopped):
        train_weakly(make_slides(tmp_path / "slides"), config, reporter, mapping(config))
    newest = []
    for name in (f"slide{k}" for k in range(4)):
        steps = [event["made_with"] for event in kinds(reporter, "map") if event["slide"] == name]
        assert steps == sorted(set(steps)), "a map never makes way for an older one"
        newest.append(steps[-1])
    assert max(age for event in kinds(reporter, "staleness") for age in event["slides"].values()) > 0
    shares = [event["mapper_share"] for event in kinds(reporter, "metric") if "mapper_share" in event]
    assert shares
    assert all(0 < share < 1 for share in shares)
    state = CheckpointStore(run / "checkpoints").load_latest().state
    assert all(kept >= seen for kept, seen in zip(state["maps"], newest, strict=True))
    store = MapStore(run / "maps", make_slides(tmp_path / "slides"), config.mpp)
    store.restore(state["maps"])
    for number, step in enumerate(state["maps"]):
        percent, cell_px = malign_percent(store.latest[number].path)
        assert store.latest[number].step == step
        assert store.latest[number].error == pytest.approx(np.maximum(percent, 0.25).sum() / 100 * cell_px**2)


def test_beta_1_rises_to_what_was_asked_for():
    config = quick(steps=100, beta_1=0.8, beta_rise=0.5)
    assert [beta_1_at(config, step) for step in (0, 25, 50, 99)] == pytest.approx([0, 0.4, 0.8, 0.8])
    at_once = quick(steps=100, beta_1=0.8, beta_rise=0.0)
    assert beta_1_at(at_once, 0) == 0.8


def test_a_net_chooses_what_it_learns_from_only_once_it_has_learned():
    config = quick(steps=100, alpha=4.0, eta=40.0, even_share=0.25)
    assert [alpha_at(config, step) for step in (0, 25, 50, 99)] == pytest.approx([0, 0, 4, 4])
    assert [eta_at(config, step) for step in (0, 25, 50, 99)] == pytest.approx([100, 100, 40, 40])
    assert 0 < alpha_at(config, 30) < alpha_at(config, 40) < 4
    at_once = quick(steps=100, alpha=4.0, eta=40.0, even_share=0.0)
    assert (alpha_at(at_once, 0), eta_at(at_once, 0)) == (4.0, 40.0)


@pytest.mark.parametrize("pretrain", [0, 3])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, pretrain):
    config = quick(steps=10, map_every=4, pretrain_steps=pretrain)
    whole = train_weakly(
        make_slides(tmp_path / "a"), config, QuietReporter(tmp_path / "whole"), mapping(config)
    )
    asked = iter(range(1000))
    stops = {2, 7} if pretrain else {5, 11}  # in both phases, or also while maps are made

    def stop():
        return next(asked) in stops

    run = tmp_path / "parts"
    for _ in range(3):
        try:
            parts = train_weakly(
                make_slides(tmp_path / "a"), config, QuietReporter(run, stop), mapping(config)
            )
        except Stopped:
            continue
        break
    assert next(asked) > max(stops)
    assert (parts / "segmenter.safetensors").read_bytes() == (whole / "segmenter.safetensors").read_bytes()
    for ours, theirs in zip(
        *(json.loads((f / "slides.json").read_text()) for f in (parts, whole)), strict=True
    ):
        assert ours == theirs
        percent = malign_percent(run / ours["map"])[0]
        np.testing.assert_array_equal(percent, malign_percent(tmp_path / "whole" / theirs["map"])[0])


def test_the_trainer_does_not_wait_for_a_slow_map_and_never_sees_a_part_of_it(tmp_path):
    config = quick(steps=12)
    real, hold, seen = mapping(config), threading.Event(), []
    reporter = QuietReporter(tmp_path / "run")

    def slow(net, slide, out, told):
        out.mkdir(parents=True)
        (out / "part").touch()
        seen.append(len(kinds(reporter, "progress")))
        if threading.current_thread() is not threading.main_thread():
            while not told.should_stop():
                hold.wait(0.01)
            raise Stopped
        (out / "part").unlink()
        real(net, slide, out, told)

    train_weakly(make_slides(tmp_path / "slides"), config, reporter, slow)
    steps = [e for e in kinds(reporter, "progress") if e["message"].startswith("Training")]
    assert len(steps) == config.steps  # all made while one map hung
    assert all(event["step"] == config.steps for event in kinds(reporter, "map"))


def test_what_breaks_in_the_mapper_ends_the_training_with_its_state_saved(tmp_path):
    config = quick(steps=100_000)

    def broken(net, slide, out, told):
        raise NoTissue(f"{slide.name} is gone")

    with pytest.raises(NoTissue, match="slide0 is gone"):
        train_weakly(make_slides(tmp_path / "s"), config, QuietReporter(tmp_path / "run"), broken)
    assert CheckpointStore(tmp_path / "run" / "checkpoints").steps()


def test_a_map_is_swapped_in_whole_and_old_ones_go(tmp_path):
    config, slides = quick(), make_slides(tmp_path / "slides")
    from napari_histogan.models.weak_unet import WeakUNet

    net, reporter = WeakUNet(2, 2, 2).eval(), QuietReporter(tmp_path / "run")
    store = MapStore(tmp_path / "maps", slides, 1.0)
    before = store.latest[0]
    mapping(config)(net, slides[0], store.draft(0), reporter)
    assert store.latest[0] is before
    store.publish(0, 5)
    assert store.steps() == [5, -1, -1, -1]
    for step in (7, 9):
        mapping(config)(net, slides[0], store.draft(0), reporter)
        store.publish(0, step)
    store.prune([[7, -1, -1, -1]])
    assert sorted(p.name for p in (tmp_path / "maps" / "0000").iterdir()) == [
        "000000007.zarr",
        "000000009.zarr",
    ]
    store.restore([7, -1, -1, -1])
    assert store.latest[0].path.name == "000000007.zarr"
    store.draft(1).mkdir()
    MapStore(tmp_path / "maps", slides, 1.0)
    assert not list((tmp_path / "maps").glob("*/*.part"))


def test_a_loss_that_is_no_number_names_the_slide_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    config = quick(steps=9)
    run = tmp_path / "run"
    asked = iter(range(1000))
    with pytest.raises(Stopped):
        train_weakly(
            make_slides(tmp_path / "s"),
            config,
            QuietReporter(run, lambda: next(asked) == 4),
            mapping(config),
        )
    kept = CheckpointStore(run / "checkpoints").steps()
    found = CheckpointStore(run / "checkpoints").load_latest()
    found.state["fit"]["net"]["head.bias"].fill_(float("nan"))
    CheckpointStore(run / "checkpoints").save(found.step, found.state)
    with pytest.raises(TrainingDiverged, match=r"slide\d at y=-?\d+, x=-?\d+"):
        train_weakly(make_slides(tmp_path / "s"), config, QuietReporter(run), mapping(config))
    assert CheckpointStore(run / "checkpoints").steps() == kept
    others = make_slides(tmp_path / "s", (True, False, False, True))
    with pytest.raises(LabelError, match="not those that this run began with"):
        train_weakly(others, config, QuietReporter(run), mapping(config))


def test_what_cannot_be_learned_from_is_refused_before_the_work(tmp_path):
    config, reporter = quick(), QuietReporter(tmp_path / "run")
    slides = make_slides(tmp_path / "s")
    for error, words, given, values in (
        (LabelError, "2 benign, 0 malign", slides[2:], {}),
        (SlideTooSmall, "256 x 256 pixels", slides, {"patch_px": 512}),
        (NoTissue, "slide0 shows no tissue", [_bare(slides[0]), *slides[1:]], {}),
    ):
        with pytest.raises(error, match=words):
            train_weakly(given, quick(**values), reporter, mapping(config))
    assert not (tmp_path / "run" / "maps").exists()


def _bare(slide: WeakSlide) -> WeakSlide:
    return WeakSlide(slide.name, slide.reader, slide.malign, TissueMask(np.zeros((4, 4), bool), 64.0))


def test_random_changes_move_pixels_and_what_counts_together():
    generator = torch.Generator().manual_seed(0)
    valid = torch.zeros(6, 48, 48, dtype=torch.bool)
    valid[:, 10:30, 14:40] = True
    pixels = valid[:, None].float().expand(-1, 3, -1, -1) * 200 + 20
    bent, kept = bend(pixels, valid, 3.0, generator)
    assert not torch.equal(bent, pixels)
    assert ((bent[:, 0] > 120) == kept).float().mean() > 0.98
    assert bend(pixels, valid, 0.0, generator)[0] is pixels
    out = changed(WeakBatch(pixels, valid, [(0, 0, 0)] * 6), 3.0, generator)
    assert ((out.pixels.mean(dim=1) > 120) == out.valid).float().mean() > 0.9
    again = changed(WeakBatch(pixels, valid, []), 3.0, torch.Generator().manual_seed(5))
    same = changed(WeakBatch(pixels, valid, []), 3.0, torch.Generator().manual_seed(5))
    assert torch.equal(again.pixels, same.pixels)


def test_beta_1_follows_from_gamma():
    assert beta_1_of(quick(gamma=0.33, accepted=0.05)) == pytest.approx(0.61, abs=0.005)
    assert beta_1_of(quick(beta_1=0.2)) == 0.2

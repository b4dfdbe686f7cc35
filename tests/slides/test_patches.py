"""Streams of patches: what they show, that they repeat, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from napari_histogan.errors import (
    NoTissue,
    SlideError,
    SlideNotFound,
    SlideTooSmall,
    SlideUnreadable,
    Stopped,
)
from napari_histogan.progress import QuietReporter
from napari_histogan.slides.patches import (
    FolderPatches,
    PatchPlan,
    PatchSource,
    PatchStream,
    ZarrPatches,
    plan_patches,
    turned,
)
from napari_histogan.slides.reader import open_slide
from napari_histogan.slides.tissue import TissueMask


@pytest.fixture(scope="module")
def plan(demo_path, made, tmp_path_factory) -> PatchPlan:
    """Two slides; the second counts three times."""
    folder = tmp_path_factory.mktemp("plan")
    with open_slide(demo_path) as one, open_slide(made["png"], 0.499) as two:
        return plan_patches([one, two], 64, 1.0, folder, weights=(1.0, 3.0))


@pytest.fixture
def numbered(tmp_path):
    """Forty patches of one color each, in a zarr array."""
    path = tmp_path / "patches.zarr"
    array = zarr.create_array(path, shape=(40, 16, 16, 3), chunks=(8, 16, 16, 3), dtype=np.uint8)
    array[:] = np.arange(40, dtype=np.uint8)[:, None, None, None]
    return path


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k, shape in enumerate([(40, 50, 3), (60, 40, 3), (90, 80, 3)]):
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(folder / f"{k}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


class PatchSourceTests:
    """What every source promises; subclasses make one from a seed."""

    side: int

    @pytest.fixture
    def make(self):
        raise NotImplementedError

    @pytest.fixture
    def source(self, make):
        source = make(seed=7)
        yield source
        source.close()

    def test_it_is_a_source(self, source):
        assert isinstance(source, PatchSource)
        batch = source.next_batch(5)
        assert batch.shape == (5, self.side, self.side, 3)
        assert batch.dtype == np.uint8
        assert source.patch_px == self.side

    def test_batches_of_any_size_are_cuts_of_one_sequence(self, source, make):
        whole = source.next_batch(40)
        other = make(seed=7)
        parts = [other.next_batch(n) for n in (1, 7, 0, 16, 16)]
        other.close()
        np.testing.assert_array_equal(np.concatenate(parts), whole)

    def test_the_kth_patch_is_the_kth(self, source):
        np.testing.assert_array_equal(source.patch(11), source.next_batch(12)[11])

    def test_another_seed_gives_other_patches(self, source, make):
        other = make(seed=8)
        assert (source.next_batch(20) != other.next_batch(20)).any()
        other.close()

    def test_it_goes_on_where_it_was(self, source, make):
        source.next_batch(19)
        state = json.loads(json.dumps(source.state_dict()))
        expected = source.next_batch(30)
        other = make(seed=99)
        other.next_batch(3)
        other.load_state_dict(state)
        np.testing.assert_array_equal(other.next_batch(30), expected)
        other.close()

    @pytest.mark.parametrize("threads", [0, 3])
    def test_threads_do_not_change_the_order(self, source, make, threads):
        other = make(seed=7, threads=threads)
        for _ in range(4):
            np.testing.assert_array_equal(other.next_batch(13), source.next_batch(13))
        other.close()

    def test_without_turning_it_shows_the_same_places_upright(self, source, make):
        upright = make(seed=7, dihedral=False)
        pairs = zip(source.next_batch(12), upright.next_batch(12), strict=True)
        found = [
            next((s for s in range(8) if (turned(plain, s) == shown).all()), None) for shown, plain in pairs
        ]
        upright.close()
        assert None not in found


class TestPatchStream(PatchSourceTests):
    side = 64

    @pytest.fixture
    def make(self, plan):
        return lambda **options: PatchStream(plan, **options)

    def test_patches_show_tissue(self, make):
        stream = make(seed=0, min_tissue=0.9, threads=0)
        patches = stream.next_batch(60)
        stream.close()
        chroma = patches.max(-1).astype(int) - patches.min(-1)
        assert (chroma.mean((1, 2)) > 15).mean() > 0.95

    def test_places_have_the_tissue_asked_for(self, make):
        stream = make(seed=0, min_tissue=0.8, threads=0)
        masks = [TissueMask.load(slide.tissue) for slide in map(with_path, stream.plan.slides)]
        for k in range(100):
            slide, region = stream.place(np.random.default_rng(k))
            assert masks[slide].fraction(region, 1.0) >= 0.8
        stream.close()

    def test_slides_come_by_area_of_tissue_and_weight(self, make):
        stream = make(seed=0, min_tissue=0.0, threads=0)
        masks = [TissueMask.load(slide.tissue) for slide in map(with_path, stream.plan.slides)]
        areas = np.array([mask.area_um2 for mask in masks]) * (1, 3)
        rng = np.random.default_rng(0)
        drawn = np.bincount([stream.place(rng)[0] for _ in range(2000)], minlength=2)
        stream.close()
        np.testing.assert_allclose(drawn / 2000, areas / areas.sum(), atol=0.04)

    def test_slides_in_memory_and_from_disk_show_the_same_places(self, make):
        held, read = make(seed=3), make(seed=3, memory_bytes=0)
        difference = held.next_batch(20).astype(int) - read.next_batch(20)
        held.close()
        read.close()
        # resampled in one piece or by patch: less than a pixel apart
        assert np.abs(difference.mean((1, 2))).max() < 2

    def test_regions_lie_inside_the_slide(self, make):
        stream = make(seed=0, min_tissue=0.0, threads=0)
        rng = np.random.default_rng(0)
        sizes = [open_and_close(slide).size_at(1.0) for slide in stream.plan.slides]
        for _ in range(500):
            slide, region = stream.place(rng)
            assert region.clipped(sizes[slide]) == region
        stream.close()

    def test_a_plan_survives_its_folder_being_moved(self, plan, tmp_path):
        old = with_path(plan.slides[0]).tissue.parent
        new = tmp_path / "moved"
        new.mkdir()
        for file in old.iterdir():
            (new / file.name).write_bytes(file.read_bytes())
        moved = PatchPlan.load(new)
        assert PatchPlan.load(old) == plan
        assert with_path(moved.slides[1]).tissue.parent == new
        one, two = PatchStream(plan, 1), PatchStream(moved, 1)
        np.testing.assert_array_equal(one.next_batch(4), two.next_batch(4))
        one.close()
        two.close()

    def test_a_slide_that_changed_is_refused(self, plan):
        changed = replace(plan.slides[0], fingerprint="0" * 32)
        with pytest.raises(SlideError, match="has changed"):
            PatchStream(replace(plan, slides=(changed,)), 0)

    def test_a_slide_that_is_gone_is_named(self, plan):
        gone = replace(plan.slides[0], path="/nowhere/slide.svs")
        with pytest.raises(SlideNotFound, match=r"slide\.svs"):
            PatchStream(replace(plan, slides=(gone,)), 0)

    def test_weights_of_zero_leave_nothing(self, plan):
        slides = tuple(replace(slide, weight=0.0) for slide in plan.slides)
        with pytest.raises(NoTissue):
            PatchStream(replace(plan, slides=slides), 0)


class TestPlanning:
    def test_a_patch_larger_than_the_slide(self, made, tmp_path):
        with (
            open_slide(made["png"], 0.5) as slide,
            pytest.raises(SlideTooSmall, match=r"350 x 550 pixels at 1 um/px.*512"),
        ):
            plan_patches([slide], 512, 1.0, tmp_path)

    def test_a_resolution_that_the_slide_does_not_have(self, demo_path, tmp_path):
        with open_slide(demo_path) as slide, pytest.raises(SlideError, match=r"0\.499 um/px; 0\.2 um/px"):
            plan_patches([slide], 64, 0.2, tmp_path)
        assert not any(tmp_path.iterdir())

    def test_a_slide_without_tissue(self, tmp_path):
        Image.fromarray(np.full((400, 400, 3), 245, np.uint8)).save(tmp_path / "glass.png")
        with open_slide(tmp_path / "glass.png", 1.0) as slide, pytest.raises(NoTissue, match="glass"):
            plan_patches([slide], 64, 1.0, tmp_path)

    def test_no_slides(self, tmp_path):
        with pytest.raises(NoTissue):
            plan_patches([], 64, 1.0, tmp_path)

    def test_it_tells_its_progress_and_stops_when_asked(self, made, tmp_path):
        reporter = QuietReporter(tmp_path / "run", stop_when=lambda: len(reporter.events) > 1)
        with open_slide(made["png"], 0.5) as slide, pytest.raises(Stopped, match="1 of 2"):
            plan_patches([slide, slide], 64, 1.0, tmp_path, reporter=reporter)
        assert [event["done"] for event in reporter.events] == [0, 1]

    def test_the_users_mpp_is_kept(self, plan):
        assert [slide.mpp for slide in plan.slides] == [None, 0.499]


class TestFolderPatches(PatchSourceTests):
    side = 32

    @pytest.fixture
    def make(self, pictures):
        return lambda **options: FolderPatches(pictures, 32, **options)

    def test_patches_are_crops(self, make, pictures):
        source = make(seed=0, dihedral=False)
        wholes = [np.array(Image.open(path)) for path in sorted(pictures.glob("*.png"))]
        for patch in source.next_batch(6):
            assert any(occurs(patch, whole) for whole in wholes)
        source.close()

    def test_a_small_picture_is_named(self, pictures):
        with pytest.raises(SlideTooSmall, match=r"0\.png has 40 x 50"):
            FolderPatches(pictures, 64, 0)

    def test_an_empty_folder(self, tmp_path):
        with pytest.raises(SlideNotFound, match="no pictures"):
            FolderPatches(tmp_path, 32, 0)


class TestZarrPatches(PatchSourceTests):
    side = 16

    @pytest.fixture
    def make(self, numbered):
        return lambda **options: ZarrPatches(numbered, **options)

    def test_each_comes_once_a_round_in_another_order(self, make):
        source = make(seed=0)
        rounds = [source.next_batch(40)[:, 0, 0, 0].tolist() for _ in range(2)]
        source.close()
        assert sorted(rounds[0]) == sorted(rounds[1]) == list(range(40))
        assert rounds[0] != rounds[1]

    def test_another_array_is_refused(self, tmp_path):
        zarr.create_array(tmp_path / "a.zarr", shape=(4, 16, 8, 3), dtype=np.uint8)
        with pytest.raises(SlideUnreadable, match="N, S, S, 3"):
            ZarrPatches(tmp_path / "a.zarr", 0)

    def test_no_array_is_refused(self, tmp_path):
        with pytest.raises(SlideUnreadable, match="no zarr array"):
            ZarrPatches(tmp_path / "nothing", 0)


class TestTurned:
    def test_the_eight_orientations_differ_and_lose_nothing(self):
        patch = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
        found = {turned(patch, s).tobytes() for s in range(8)}
        assert len(found) == 8
        for s in range(8):
            assert sorted(map(tuple, turned(patch, s).reshape(-1, 3))) == sorted(
                map(tuple, patch.reshape(-1, 3))
            )

    def test_zero_changes_nothing(self):
        patch = np.random.default_rng(0).integers(0, 256, (5, 5, 3), np.uint8)
        np.testing.assert_array_equal(turned(patch, 0), patch)


def with_path(slide):
    return replace(slide, tissue=Path(slide.tissue))


def open_and_close(planned):
    with open_slide(planned.path, planned.mpp) as slide:
        return slide


def occurs(patch, whole):
    h, w = patch.shape[:2]
    ys, xs = np.nonzero((whole[: 1 - h or None, : 1 - w or None] == patch[0, 0]).all(-1))
    return any((whole[y : y + h, x : x + w] == patch).all() for y, x in zip(ys, xs, strict=True))

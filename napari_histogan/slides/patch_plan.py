"""What a stream of patches is drawn from."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

from napari_histogan.errors import DAMAGE, NoTissue, SlideTooSmall, Stopped, StorageError
from napari_histogan.progress import Reporter
from napari_histogan.slides.reader import SlideReader
from napari_histogan.slides.tissue import tissue_mask

_LARGEST_PX = 1 << 16


@dataclass(frozen=True, slots=True)
class PlannedSlide:
    """A slide in a plan.

    Parameters
    ----------
    path
        Where the slide is.
    fingerprint
        See ``SlideReader.fingerprint``.
    mpp
        Resolution given by the user in um/px, or None if the file says it.
    tissue
        File with the slide's :class:`TissueMask`; relative to the plan's folder when saved.
    weight
        Patches come from the slide in proportion to weight times area of tissue.
    """

    path: str
    fingerprint: str
    mpp: float | None
    tissue: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class PatchPlan:
    """What a stream of patches is drawn from; saved as ``plan.json`` with masks beside it."""

    patch_px: int
    mpp: float
    slides: tuple[PlannedSlide, ...]

    def save(self, folder: Path) -> None:
        """Write ``plan.json``; masks in the same folder are noted by their name alone."""
        root = Path(folder).resolve()
        slides = []
        for slide in self.slides:
            tissue = Path(slide.tissue)
            inside = tissue.resolve().is_relative_to(root)
            slides.append(
                replace(slide, tissue=tissue.resolve().relative_to(root).as_posix()) if inside else slide
            )
        draft = root / f".plan.{os.getpid()}.part"
        draft.write_text(json.dumps(asdict(replace(self, slides=tuple(slides))), indent=1))
        draft.replace(root / "plan.json")

    @classmethod
    def load(cls, folder: Path) -> PatchPlan:
        """Read what :meth:`save` wrote; paths of masks come out absolute.

        Raises
        ------
        StorageError
            If there is no plan, or it is damaged.
        """
        root = Path(folder).resolve()
        try:
            data = json.loads((root / "plan.json").read_text(encoding="utf-8"))
            slides = tuple(_planned(slide, root) for slide in data["slides"])
            side, mpp = data["patch_px"], float(data["mpp"])
            if type(side) is not int or not 0 < side <= _LARGEST_PX or not 0 < mpp < inf:  # True is an int
                raise ValueError(f"patches of {side} px at {mpp} um/px")
            return cls(side, mpp, slides)
        except DAMAGE as error:
            raise StorageError(
                f"the plan of patches in {root} cannot be read ({error})",
                "plan.json as this program writes it",
                "plan the patches again",
            ) from error


def _planned(stored: dict[str, Any], root: Path) -> PlannedSlide:
    """Return one slide of a stored plan; ``root`` is the plan's folder."""
    slide = PlannedSlide(**{**stored, "tissue": str(root / stored["tissue"])})
    texts = slide.path, slide.fingerprint
    numbers = slide.weight, 1.0 if slide.mpp is None else slide.mpp
    known = all(isinstance(number, int | float) for number in numbers) and 0 < numbers[1] < inf
    if not all(isinstance(text, str) for text in texts) or not known or not 0 <= slide.weight < inf:
        raise ValueError(f"the slide {slide.path!r} at {slide.mpp} um/px with weight {slide.weight}")
    return slide


def plan_patches(
    slides: Sequence[SlideReader],
    patch_px: int,
    mpp: float,
    folder: Path,
    weights: Sequence[float] | None = None,
    reporter: Reporter | None = None,
) -> PatchPlan:
    """Find the tissue of each slide and write a plan with its masks to a folder.

    The folder may be renamed afterwards; :meth:`PatchPlan.load` finds the masks again.

    Parameters
    ----------
    slides
        Open slides.
    patch_px
        Side of a patch in pixels.
    mpp
        Resolution of a patch in um/px.
    folder
        Gets ``plan.json`` and one mask per slide; must exist.
    weights
        One per slide; equal if not given.
    reporter
        Told about each slide; asked whether to stop before each.

    Raises
    ------
    SlideError
        ``mpp`` is much finer than a slide.
    SlideTooSmall
        A slide is smaller than a patch.
    NoTissue
        A slide shows no tissue, or there are no slides.
    Stopped
        The reporter said so; masks written so far are overwritten the next time.
    """
    if not slides:
        raise NoTissue("no slides were given", "one slide or more", "add slides first")
    for reader in slides:
        check_fits(reader, patch_px, mpp)
    planned = []
    for i, reader in enumerate(slides):
        if reporter:
            reporter.progress(i, len(slides), "slides", "Finding tissue")
            if reporter.should_stop():
                raise Stopped(f"after {i} of {len(slides)} slides")
        planned.append(plan_slide(reader, i, folder, float(weights[i]) if weights else 1.0))
    if reporter:
        reporter.progress(len(slides), len(slides), "slides", "Finding tissue")
    plan = PatchPlan(patch_px, mpp, tuple(planned))
    plan.save(Path(folder))
    return plan


def plan_slide(reader: SlideReader, number: int, folder: Path, weight: float = 1.0) -> PlannedSlide:
    """Find the tissue of one slide and write its mask.

    Parameters
    ----------
    reader
        The open slide.
    number
        Its place in the plan, from 0.
    folder
        Gets the mask; see :func:`tissue_file`.
    weight
        See :class:`PlannedSlide`.

    Raises
    ------
    NoTissue
        The slide shows no tissue.
    """
    path = tissue_file(folder, number)
    tissue_mask(reader).save(path)
    return PlannedSlide(str(reader.path.resolve()), reader.fingerprint(), reader.given_mpp, str(path), weight)


def tissue_file(folder: Path, number: int) -> Path:
    """Return the file with the tissue of a plan's slide."""
    return Path(folder) / f"tissue-{number:04d}.npz"


def check_fits(reader: SlideReader, patch_px: int, mpp: float) -> None:
    """Raise an error if a slide cannot give a patch of ``patch_px`` pixels of ``mpp`` um."""
    reader.check_resolution(mpp)
    size = reader.size_at(mpp)
    if min(size.shape) < patch_px:
        raise SlideTooSmall(
            f"{reader.path.name} has {size.height} x {size.width} pixels at {mpp:g} um/px",
            f"at least {patch_px} a side",
            "choose a smaller patch_px or a finer mpp, or leave the slide out",
        )

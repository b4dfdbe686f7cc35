"""What the training of a patch classifier reads, and how its result is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from napari_histogan.config.patch_gan import TrainPatchGanConfig
from napari_histogan.errors import ConfigError, LabelError, SlideError
from napari_histogan.evaluation.pixel_roc import ROC_AXES, ScoredPicture, pixel_auc, pooled_curve
from napari_histogan.evaluation.plots import line_plot
from napari_histogan.inference.patch_map import PatchMapper
from napari_histogan.labels.centers import balanced, free_places, object_mask, pixel_places, skeleton_places
from napari_histogan.models.device import resolve
from napari_histogan.models.patch_gan import PatchClassifier
from napari_histogan.models.patch_gan_file import load_patch_classifier, write_info
from napari_histogan.progress import Reporter
from napari_histogan.slides.channels import Preparation
from napari_histogan.slides.patch_views import PatchViews
from napari_histogan.stage_inputs import check_stop
from napari_histogan.training.patch_sources import LabelledPicture, kept_back, read_labelled
from napari_histogan.training.train_patch_gan import PatchLabels, ShowMap

ROC_PLOT = "roc.png"
_SHOWN_PX = 384
_SHOWN_STRIDE = 8


@dataclass(frozen=True, eq=False)
class PreparedPicture:
    """A picture as the net sees it, with its labels.

    Attributes
    ----------
    name
        Of the picture.
    pixels
        ``(H, W, C) uint8``.
    mask
        ``(H, W) uint8``: 0 where nothing is said, 1 to K.
    inside
        ``(H, W) bool``.
    """

    name: str
    pixels: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    inside: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class PatchData:
    """What a run learns from, and what it is judged by.

    Attributes
    ----------
    labels
        For the training.
    preparation, mpp
        How the pictures were prepared, and their resolution in um/px.
    learned, held_out
        Pictures that are learned from, and those kept back.
    """

    labels: PatchLabels
    preparation: Preparation
    mpp: float
    learned: tuple[PreparedPicture, ...]
    held_out: tuple[PreparedPicture, ...]


def patch_data(names: Sequence[str], config: TrainPatchGanConfig, reporter: Reporter) -> PatchData:
    """Read and prepare the pictures of ``config.data``, and choose the labeled patches.

    Parameters
    ----------
    names
        Of the project's classes.  With ``centers`` skeleton there are two: the object, and the background.
    config, reporter
        Of the stage.

    Raises
    ------
    ConfigError
        If the resolution is not given, or the classes do not fit.
    LabelError, SlideError
        If pictures or masks cannot be used, or a class has too few places.
    """
    mpp = _require_settings(names, config)
    pictures = read_labelled(config.data, config.layout)
    preparation = Preparation(config.channel, config.clahe)
    back = kept_back(pictures, config.holdout_share, config.seed)
    learned, held_out = list[PreparedPicture](), list[PreparedPicture]()
    for done, picture in enumerate(pictures):
        check_stop(reporter)
        reporter.progress(done, len(pictures), "pictures", "Preparing the pictures")
        into = held_out if picture.group in back else learned
        into.append(_prepared(picture, preparation, config.centers))
    masks, inside = [p.mask for p in learned], [p.inside for p in learned]
    if config.centers == "skeleton":
        places = skeleton_places([mask == 1 for mask in masks], inside, config.dilation_px)
    else:
        places = pixel_places(masks, inside, len(names))
    centers = balanced(places, names, config.patches, config.seed)
    views = PatchViews([p.pixels for p in learned], config.patch_px)
    free = free_places(inside, config.unlabelled, config.seed)
    labels = PatchLabels(views, centers, tuple(names), free)
    return PatchData(labels, preparation, mpp, tuple(learned), tuple(held_out))


def map_shower(data: PatchData, config: TrainPatchGanConfig) -> ShowMap:
    """Return what draws a picture beside its map of the first class: one kept back, if there is one."""
    shown = (data.held_out or data.learned)[0]
    top, left = (max(0, (n - _SHOWN_PX) // 2) for n in shown.pixels.shape[:2])
    pixels = shown.pixels[top : top + _SHOWN_PX, left : left + _SHOWN_PX]
    compute = resolve(config)

    def show(net: PatchClassifier) -> NDArray[np.uint8]:
        stride = min(_SHOWN_STRIDE, net.shape.strides[-1])
        found = PatchMapper(net, compute, stride).of_picture(pixels.transpose(2, 0, 1))[0]
        gray = np.asarray(np.rint(255 * found), np.uint8)[..., None]
        return np.concatenate(
            [np.broadcast_to(part, (*gray.shape[:2], 3)) for part in (pixels, gray)], axis=1
        )

    return show


def judge(data: PatchData, folder: Path, config: TrainPatchGanConfig, reporter: Reporter) -> dict[str, float]:
    """Map the pictures kept back, and score how well pixels of the first class are told from the others.

    Parameters
    ----------
    data, config, reporter
        Of the training.
    folder
        The result of the training; figures are added to its JSON file, and the ROC plot beside it.

    Returns
    -------
    dict[str, float]
        ``auc`` (pooled), ``auc_mean`` (of the pictures), and ``auc_lowest``; empty if nothing was kept back.
    """
    if not data.held_out:
        return {}
    net, info = load_patch_classifier(folder)
    compute = resolve(config)
    net.to(compute.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mapper = PatchMapper(net, compute, min(config.judge_stride, net.shape.strides[-1]))
    maps = list[ScoredPicture]()
    for done, picture in enumerate(data.held_out):
        check_stop(reporter)
        reporter.progress(done, len(data.held_out), "pictures", "Judging by pictures kept back")
        found = mapper.of_picture(picture.pixels.transpose(2, 0, 1))[0]
        counts = picture.inside & (picture.mask > 0)
        maps.append(ScoredPicture(picture.name, found[counts], picture.mask[counts] == 1))
    try:
        auc = pixel_auc(maps)
    except LabelError as error:
        reporter.warn(f"there is no AUC: {error}")
        return {}
    figures = {"auc": auc.pooled, "auc_mean": auc.mean, "auc_lowest": min(auc.by_picture.values())}
    by_picture = {f"auc {name}": value for name, value in auc.by_picture.items()}
    write_info(folder, replace(info, validation={**figures, **by_picture}))
    plot = line_plot([pooled_curve(info.class_names[0], maps)], ROC_AXES)
    for path in (folder / ROC_PLOT, reporter.run_dir / "previews" / ROC_PLOT):
        path.parent.mkdir(parents=True, exist_ok=True)
        plot.save(path)
    reporter.preview("roc", path)
    return figures


def _require_settings(names: Sequence[str], config: TrainPatchGanConfig) -> float:
    """Refuse settings that do not fit the project; return the resolution."""
    if config.centers == "skeleton" and len(names) != 2:
        raise ConfigError(
            f"the project has the classes {', '.join(names)}",
            "two classes where masks show one object: the object, and the background",
            "make a project with two classes, or set centers to pixels for masks of classes 1 to K",
        )
    if len(names) < 2:
        raise ConfigError(f"the project has {len(names)} classes", "two or more", "add a class")
    if config.mpp is None:
        raise ConfigError("nothing says the resolution of the pictures", "um per pixel", "give it with --mpp")
    return config.mpp


def _prepared(picture: LabelledPicture, preparation: Preparation, centers: str) -> PreparedPicture:
    """Prepare one picture; an error names it."""
    mask = picture.mask
    if centers == "skeleton":
        mask = np.where(object_mask(mask, picture.name), 1, 2).astype(np.uint8)
    try:
        pixels = preparation(picture.pixels)
    except SlideError as error:
        raise SlideError(f"{picture.name}: {error.found}", error.expected, error.remedy) from error
    return PreparedPicture(picture.name, pixels, mask, picture.inside)

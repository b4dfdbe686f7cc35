"""What the stages of block labels read: files and maps of labels, and the blocks to train on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_histogan.config.block_labels import ImportBlockLabelsConfig, TrainSuperResolutionConfig
from napari_histogan.config.segmentation import PredictHeatmapConfig
from napari_histogan.errors import ConfigError, LabelError
from napari_histogan.geometry import Region
from napari_histogan.inference.block_match import write_matched
from napari_histogan.inference.heatmap import predict_heatmap
from napari_histogan.labels.block_files import (
    labels_of_scores,
    read_block_csv,
    read_block_geojson,
    read_block_picture,
    score_blocks,
)
from napari_histogan.labels.block_labels import BlockLabels
from napari_histogan.labels.calibration import (
    ENOUGH,
    TABLE_FILE,
    CalibrationTable,
    few,
    read_calibration,
    table_of,
)
from napari_histogan.progress import Reporter
from napari_histogan.project.artifacts import Artifact, Parent
from napari_histogan.project.calibrations import Calibration, block_labels_on, chosen_block_labels
from napari_histogan.project.inputs import keep_inputs
from napari_histogan.project.store import Project
from napari_histogan.slides.ngff import channel_names, open_multiscale, scale_um
from napari_histogan.slides.reader import SlideReader
from napari_histogan.slides.shelf import SlideShelf
from napari_histogan.slides.stored_arrays import StoredArray
from napari_histogan.stage_inputs import open_entry, stage_input
from napari_histogan.training.block_sources import SlideBlocks

HEATMAP, SCORES = "heatmap.zarr", "scores.zarr"

SHEET = "to_estimate"
"""Name, without suffix, of the picture and the table that people estimate blocks by."""

SHEET_BLOCKS, SHEET_PX = 12, 160
"""Blocks of each label value in a sheet, and the side of one in pixels."""

_TABLES = (".csv",)
_OUTLINES = (".geojson", ".json")
_PICTURES = (".png",)


def block_labels_of(
    project: Project, config: ImportBlockLabelsConfig, reporter: Reporter, slide: SlideReader, name: str
) -> tuple[BlockLabels, list[Artifact | Parent]]:
    """Return the labels that a config names, on the slide's grid, and the artifacts that they come from.

    Raises
    ------
    ConfigError
        If no source is named, or a map is of another slide or has several classes and none is chosen.
    LabelError
        If the labels cannot be read or do not fit the slide.
    SlideHasNoMpp
        If the slide's resolution is unknown.
    """
    size_um = slide.size.height * slide.mpp, slide.size.width * slide.mpp
    if config.path is not None and not config.path.is_dir():
        found = _read_file(config.path, config, slide.mpp)
        whole = config.path.suffix.lower() in _PICTURES
        return found.fitted(size_um, str(config.path), whole), []
    parents: list[Artifact | Parent] = []
    if config.path is not None:
        path = config.path
    elif config.heatmap:
        source = stage_input(project, reporter, _reference(config.heatmap), "heatmap")
        if source.summary.get("slide") != name:
            raise ConfigError(
                f"{source.id} is a map of the slide {source.summary.get('slide')}", f"a map of {name}"
            )
        parents, path = [source], source.path / HEATMAP
    elif config.segmenter:
        net = stage_input(project, reporter, _reference(config.segmenter), "segmenter")
        parents, path = [net], reporter.run_dir / SCORES
        shared = {key: getattr(config, key) for key in ("device", "precision", "threads", "tile_px")}
        wanted = PredictHeatmapConfig(**shared, accept_far_mpp=True)  # blocks are coarse; it is warned about
        predict_heatmap(slide, net.path, wanted, reporter, path)
    else:
        raise ConfigError(
            "nothing says where the block labels are", "a file, a heatmap, or a segmenter", "give --path FILE"
        )
    scores = _map_scores(path, config, size_um)
    return labels_of_scores(scores, config.block_um, config.edges).fitted(size_um, str(path)), parents


def _reference(text: str) -> str:
    """Return the reference of an artifact; "newest" is the newest."""
    return "" if text == "newest" else text


def _read_file(path: Path, config: ImportBlockLabelsConfig, mpp: float) -> BlockLabels:
    """Read a file of labels by its suffix."""
    suffix = path.suffix.lower()
    if suffix in _TABLES:
        return read_block_csv(path, config.block_um, config.edges)
    if suffix in _OUTLINES:
        return read_block_geojson(path, config.block_um, mpp, config.edges)
    if suffix in _PICTURES:
        return read_block_picture(path, config.block_um)
    raise ConfigError(
        f"{path} has an unknown suffix", ", ".join((*_TABLES, *_OUTLINES, *_PICTURES, "or a .zarr folder"))
    )


def _map_scores(
    path: Path, config: ImportBlockLabelsConfig, size_um: tuple[float, float]
) -> NDArray[np.float64]:
    """Return the mean percent of one class in each block of a slide; NaN where the map has nothing."""
    group, multiscale = open_multiscale(path)
    array, axes = group[multiscale["datasets"][0]["path"]], [str(axis["name"]) for axis in multiscale["axes"]]
    mpp, shape = scale_um(multiscale), dict(zip(axes, array.shape, strict=True))
    if mpp is None:
        raise LabelError(f"the map {path} does not say its resolution", "um per pixel in its metadata")
    if any(n > 1 for axis, n in shape.items() if axis not in "cyx"):
        raise LabelError(f"the map {path} has axes {shape}", "axes c, y, and x")
    for side, expected in zip((shape["y"], shape["x"]), size_um, strict=True):
        if abs(side * mpp - expected) > config.block_um:
            raise LabelError(
                f"the map {path} spans {shape['y'] * mpp:.0f} x {shape['x'] * mpp:.0f} um",
                f"the slide's {size_um[0]:.0f} x {size_um[1]:.0f} um",
                "choose the map of this slide",
            )
    count, stored = shape.get("c", 1), StoredArray(array, path)
    channel = _channel(channel_names(group, count), config.class_name, path)

    def read(y: slice, x: slice) -> NDArray[np.float64]:
        picks: dict[str, Any] = {"y": y, "x": x, "c": slice(None)}
        block = stored[tuple(picks.get(axis, 0) for axis in axes)]
        scale = 100.0 if block.dtype.kind == "f" else 1.0
        block = block.reshape(count, *block.shape[-2:]).astype(np.float64) * scale
        if np.nanmin(block) < 0 or np.nanmax(block) > 100.5:
            raise LabelError(
                f"the map {path} holds {np.nanmin(block) / scale:g} to {np.nanmax(block) / scale:g}",
                "probabilities 0 to 1 as floats, or percents 0 to 100 as integers",
            )
        # Windows that a map with all classes left out, such as glass, are 0 in every class.
        known = block.any(axis=0) if count > 1 else np.ones(block.shape[1:], np.bool_)
        return np.where(known, block[channel], np.nan)

    scores = score_blocks(read, (shape["y"], shape["x"]), config.block_um / mpp)
    rows, columns = (int(np.ceil(side / config.block_um - 0.01)) for side in size_um)
    return scores[:rows, :columns]


def _channel(names: Sequence[str], wanted: str, path: Path) -> int:
    """Return the place of a class among the channels of a map."""
    if not wanted and len(names) == 1:
        return 0
    if wanted not in names:
        raise ConfigError(
            f"the map {path} has the classes {', '.join(names)}" + (f", not {wanted!r}" if wanted else ""),
            "one of them, whose share is the score",
            "name it: --class-name",
        )
    return list(names).index(wanted)


def write_sheet(
    folder: Path, labels: BlockLabels, slide: SlideReader, classes: Sequence[str], seed: int
) -> None:
    """Write what a person needs to estimate blocks: pictures of random ones, and a table to fill in.

    ``to_estimate.png`` has a row for each label value, with up to 12 of its blocks in the order of the
    lines of ``to_estimate.csv`` (``row,column,label`` and an empty column for each class).
    """
    rng = np.random.default_rng([seed, 5])
    size_um = slide.size.height * slide.mpp, slide.size.width * slide.mpp
    whole = labels.whole(size_um)
    mpp = max(labels.block_um / SHEET_PX, slide.mpp)
    side = round(labels.block_um / mpp)
    step = SHEET_PX + 4
    sheet = np.full((len(labels.values) * step, SHEET_BLOCKS * step, 3), 255, np.uint8)
    lines = [",".join(["row", "column", "label", *map(_quoted, classes)])]
    for z, value in enumerate(labels.values):
        places = rng.permutation(np.argwhere((labels.grid == z) & whole))[:SHEET_BLOCKS]
        for k, (row, column) in enumerate(places.tolist()):
            corner = round(row * labels.block_um / mpp), round(column * labels.block_um / mpp)
            picture = Image.fromarray(slide.read_at(Region(*corner, side, side), mpp))
            large = np.asarray(picture.resize((SHEET_PX, SHEET_PX), Image.Resampling.BICUBIC))
            sheet[z * step : z * step + SHEET_PX, k * step : k * step + SHEET_PX] = large
            lines.append(f"{row},{column},{_quoted(value)}" + "," * len(classes))
    Image.fromarray(sheet).save(folder / f"{SHEET}.png")
    (folder / f"{SHEET}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _quoted(name: str) -> str:
    """Return a name as a field of a CSV file."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"' if any(mark in name for mark in ',"\n') else name


@dataclass(frozen=True)
class BlockTraining:
    """What a super-resolution learns from."""

    source: SlideBlocks
    table: CalibrationTable
    parents: list[Artifact | Parent]


def block_training(
    project: Project, config: TrainSuperResolutionConfig, reporter: Reporter, held: ExitStack
) -> BlockTraining:
    """Return blocks, their calibration, and what both were made from; slides stay open in ``held``.

    Raises
    ------
    ArtifactMissing
        If there are no block labels.
    LabelError
        If blocks differ in size, a label value has fewer than two blocks or estimates, or classes lack.
    SlideError
        If a slide is missing, was replaced, has no resolution, or is too coarse.
    """
    sets = keep_inputs(
        project, reporter.run_dir, "block_labels", lambda: chosen_block_labels(project, config.blocks)
    )
    labels = [BlockLabels.load(artifact.path) for artifact in sets]
    sizes = sorted({each.block_um for each in labels})
    if sizes[-1] / sizes[0] > 1.001:
        raise LabelError(
            f"the block labels have blocks of {', '.join(f'{size:g}' for size in sizes)} um",
            "blocks of one size",
            "name those to learn from: --blocks",
        )
    if project.classes.num_classes < 2:
        raise LabelError(
            f"the project has {project.classes.num_classes} classes", "two or more", "add them in the dock"
        )
    shelf = held.enter_context(closing(SlideShelf()))
    slides = [shelf.keep(open_entry(project.slide(str(artifact.summary["slide"])))) for artifact in sets]
    grids = [
        np.where(each.whole((s.size.height * s.mpp, s.size.width * s.mpp)), each.grid, -1)
        for each, s in zip(labels, slides, strict=True)
    ]
    counts: dict[str, int] = {}
    for each, grid in zip(labels, grids, strict=True):
        for z, value in enumerate(each.values):
            counts[value] = counts.get(value, 0) + int((grid == z).sum())
    values = _trainable(counts, config.leave_out_rare, reporter)
    table, parents = _calibration(project, config, reporter, sets, values)
    places, numbers = [], []
    for each, grid in zip(labels, grids, strict=True):
        index = np.array([values.index(v) if v in values else -1 for v in each.values] + [-1])
        renamed = index[grid]
        places.append(np.argwhere(renamed >= 0).astype(np.int64))
        numbers.append(renamed[renamed >= 0].astype(np.int64))
    mpp = sizes[0] / config.block_px
    source = SlideBlocks(slides, places, numbers, mpp, config.block_px, config.context_px)
    return BlockTraining(source, table, [*sets, *parents])


def _trainable(counts: dict[str, int], leave_out_rare: bool, reporter: Reporter) -> list[str]:
    """Return the label values that have blocks; refuse one that has a single block, or leave it out."""
    rare = [value for value, count in counts.items() if count == 1]
    if rare and not leave_out_rare:
        raise LabelError(
            f"the label value {rare[0]!r} has one whole block",
            "two or more: one block has no spread",
            "import more block labels, use wider bins, or set leave_out_rare",
        )
    if rare:
        reporter.warn(f"label values with one block are left out: {', '.join(rare)}")
    values = [value for value, count in counts.items() if count > 1]
    if not values:
        raise LabelError(
            "no label value has two whole blocks in its slide", "more blocks", "choose smaller blocks"
        )
    return values


def _calibration(
    project: Project,
    config: TrainSuperResolutionConfig,
    reporter: Reporter,
    sets: Sequence[Artifact],
    values: Sequence[str],
) -> tuple[CalibrationTable, list[Parent]]:
    """Return the table, the same for a run that goes on, and the human work that it comes from."""
    kept, names = reporter.run_dir / TABLE_FILE, project.classes.names
    works = [] if config.calibration else [Calibration(project, artifact) for artifact in sets]
    parents = [work.as_parent() for work in works if work.content_hash() is not None]
    if kept.exists():
        return CalibrationTable.load(kept), parents
    if config.calibration:
        table = read_calibration(config.calibration, values, names)
    else:
        shares: dict[str, list[list[float]]] = {}
        for work in works:
            for value, rows in work.shares(names).items():
                shares.setdefault(value, []).extend(rows)
        table = table_of(shares, values, names, "the calibration of the project")
    if lacking := few(table):
        reporter.warn(f"fewer than {ENOUGH} blocks were estimated of: {', '.join(lacking)}")
    table.save(kept)
    return table, parents


def agreeing_blocks(
    project: Project, reporter: Reporter, net: Artifact, slide: str, reference: str
) -> tuple[Artifact, BlockLabels, NDArray[np.float64]]:
    """Return block labels of a slide that a heatmap shall agree with.

    Parameters
    ----------
    project, reporter
        A resumed run keeps the block labels that it began with.
    net
        The segmenter, with the calibration that it learned from.
    slide, reference
        Name of the slide; an id, or "newest".

    Returns
    -------
    tuple
        The artifact, the labels, and the shares ``(Z, K)`` of the net's classes by label value.

    Raises
    ------
    LabelError
        If the segmenter did not learn from blocks, or from other label values.
    ArtifactMissing, ConfigError
        As :func:`.calibrations.block_labels_on`.
    """
    path = net.path / TABLE_FILE
    if not path.is_file():
        raise LabelError(
            f"{net.id} did not learn from blocks, and does not know what their labels say",
            "a segmenter of histogan train-super-resolution",
            "choose another segmenter, or leave blocks out",
        )

    def named() -> list[Artifact]:
        return [block_labels_on(project, slide, reference)]

    blocks = keep_inputs(project, reporter.run_dir, "block_labels", named)[0]
    labels, table = BlockLabels.load(blocks.path), CalibrationTable.load(path)
    used = [labels.values[z] for z in np.unique(labels.grid[labels.grid >= 0])]
    if missing := [value for value in used if value not in table.values]:
        raise LabelError(
            f"{net.id} was not taught what blocks of the label value {missing[0]!r} hold",
            "one of " + ", ".join(table.values),
            "train on these block labels, or name others",
        )
    rows = [table.values.index(value) if value in table.values else 0 for value in labels.values]
    return blocks, labels, table.eta[rows]


def match_blocks(
    heatmap: Path, labels: BlockLabels, shares: NDArray[np.float64], reporter: Reporter
) -> tuple[Path, int]:
    """Write a heatmap that agrees with block labels, below ``reporter.run_dir`` and under the same name.

    Returns
    -------
    tuple of Path and int
        The new heatmap, and how many blocks it agrees with.
    """
    out = reporter.run_dir / "matched" / heatmap.name
    out.parent.mkdir(exist_ok=True)
    return out, write_matched(heatmap, out, labels, shares, reporter)

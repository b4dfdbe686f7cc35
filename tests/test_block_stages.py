"""Block labels from the user's end: brought in, estimated, sharpened to a net that runs over slides."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from napari_histogan import config as c
from napari_histogan.cli import main
from napari_histogan.errors import ArtifactMissing, ConfigError, LabelError, SlideHasNoMpp, Stopped
from napari_histogan.geometry import Region, Size
from napari_histogan.labels.block_labels import BlockLabels
from napari_histogan.labels.calibration import CalibrationTable
from napari_histogan.labels.classes import ClassTable
from napari_histogan.pipeline import STAGE_FUNCTIONS
from napari_histogan.progress import QuietReporter
from napari_histogan.project.calibrations import Calibration
from napari_histogan.project.reads import what_it_reads
from napari_histogan.project.store import Project
from napari_histogan.slides.zarr_pyramid import PyramidWriter, open_pyramid

BLOCK_UM, SIDE = 40.0, 16
QUICK = {
    "steps": 4, "validate_every": 2, "width": 4, "depth": 1, "block_px": SIDE, "context_px": 2,
    "groups": 2, "per_group": 3, "threads": 1,
}  # fmt: skip


def run(project, config, reporter=None):
    return STAGE_FUNCTIONS[config.stage](project, config, reporter or QuietReporter())


@pytest.fixture
def slide_and_discs(tmp_path):
    """A slide of 8 x 10 blocks at 2.5 um/px with dark discs, and each block's share of disc."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[: 8 * SIDE, : 10 * SIDE]
    mask = np.zeros(y.shape, bool)
    for _ in range(14):
        mask |= (y - rng.uniform(0, 128)) ** 2 + (x - rng.uniform(0, 160)) ** 2 < rng.uniform(6, 18) ** 2
    picture = np.where(mask[..., None], [110, 70, 150], [225, 175, 205]) + rng.normal(0, 12, (*y.shape, 3))
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(tmp_path / "discs.png")
    shares = mask.reshape(8, SIDE, 10, SIDE).mean(axis=(1, 3))
    return tmp_path / "discs.png", shares


@pytest.fixture
def project(tmp_path, slide_and_discs):
    project = Project.create(tmp_path / "p", classes=ClassTable.from_names(["disc", "ground"]))
    run(project, c.AddSlidesConfig(paths=(slide_and_discs[0],), mpp=2.5))
    return project


def labels_csv(folder, shares):
    """Write the blocks as low, middle, and high."""
    lines = ["row,column,label"]
    for (row, column), share in np.ndenumerate(shares):
        lines.append(f"{row},{column},{('low', 'middle', 'high')[int(share > 0.1) + int(share > 0.5)]}")
    path = folder / "blocks.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def estimate(project, artifact, shares, per_value=4):
    """Estimate some blocks of each label value, as in the dock."""
    calibration, labels = Calibration(project, artifact), BlockLabels.load(artifact.path)
    for z, value in enumerate(labels.values):
        for row, column in labels.places(z)[:per_value].tolist():
            share = float(shares[row, column])
            calibration.estimate(row, column, value, {"disc": share, "ground": 1 - share})
    return calibration


def fill(template, folder, shares):
    """Fill in a sheet as a person would, but for its last line."""
    header, *lines = template.read_text(encoding="utf-8").splitlines()
    assert header == "row,column,label,disc,ground"
    filled = []
    for line in lines:
        row, column, label, *empty = line.split(",")
        assert empty == ["", ""]
        share = shares[int(row), int(column)]
        filled.append(f"{row},{column},{label},{share},{1 - share}")
    path = folder / "filled.csv"
    path.write_text("\n".join([header, *filled[:-1], lines[-1]]) + "\n", encoding="utf-8")
    return path


def evaluation_with_masked_figures(folder):
    """Return an evaluation against a square of disc in ground, near its boundary too."""
    features = []
    for name, low, high in (("ground", 0, 128), ("disc", 30, 90)):
        ring = [[low, low], [high, low], [high, high], [low, high], [low, low]]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        properties = {"classification": {"name": name}}
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    path = folder / "reference.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return c.EvaluateConfig(reference=path, bootstrap=20, masked_um=BLOCK_UM)


def test_from_labels_to_a_heatmap(project, tmp_path, slide_and_discs):
    shares = slide_and_discs[1]
    config = c.ImportBlockLabelsConfig(path=labels_csv(tmp_path, shares), block_um=BLOCK_UM)
    blocks = run(project, config)
    assert blocks.kind == "block_labels"
    assert blocks.summary["blocks"] == 80
    assert "high: " in blocks.summary["labels"]
    with Image.open(blocks.path / "to_estimate.png") as sheet:
        pixels = np.asarray(sheet).astype(float)
    assert pixels.shape == (3 * 164, 12 * 164, 3)
    high, low = pixels[:160, :160], pixels[164:324, :160]  # label values by alphabet
    assert high.mean() < low.mean()
    training = c.TrainSuperResolutionConfig(**QUICK)
    assert what_it_reads(project, training) == [blocks.id]
    with pytest.raises(LabelError, match="no block of the label value 'high'"):
        run(project, training)
    calibration = estimate(project, blocks, shares)
    reporter = QuietReporter(tmp_path / "run")
    net = run(project, training, reporter)
    assert any("fewer than 10 blocks" in e["message"] for e in reporter.events if e["kind"] == "warning")
    assert {p.id for p in net.parents} == {blocks.id, calibration.id}
    table = CalibrationTable.load(net.path / "calibration.json")
    assert table.blocks.tolist() == [4, 4, 4]
    heatmap = run(project, c.PredictHeatmapConfig(tile_px=64, threads=1))
    assert heatmap.parents[0].id == net.id
    assert open_pyramid(heatmap.path / "heatmap.zarr").size == Size(128, 160)
    assert net.id not in {stale.artifact.id for stale in project.stale()}
    judged = run(project, evaluation_with_masked_figures(tmp_path))
    assert 0 <= judged.summary["masked_iou_disc"] <= 1
    stored = json.loads((judged.path / "evaluation.json").read_text(encoding="utf-8"))["masked"]
    assert stored["iou"][0]["value"] == judged.summary["masked_iou_disc"]
    calibration.take_back(*next(iter(calibration.estimates())))
    told = {stale.artifact.id: stale.reason for stale in project.stale()}
    assert told[net.id] == f"{calibration.id} changed since"


def test_own_nets_and_maps_score_blocks(project, tmp_path, slide_and_discs):
    shares = slide_and_discs[1]
    writer = PyramidWriter(tmp_path / "map.zarr", Size(128, 160), ["disc", "ground"], mpp=2.5)
    percent = np.kron(np.round(100 * shares), np.ones((SIDE, SIDE))).astype(np.uint8)
    percent[:SIDE, :SIDE] = 0
    both = np.stack([percent, 100 - percent])
    both[:, :SIDE, :SIDE] = 0
    writer.write(Region(0, 0, 128, 160), both)
    asked = {"path": tmp_path / "map.zarr", "block_um": BLOCK_UM, "edges": (0, 10, 50, 100)}
    with pytest.raises(ConfigError, match=r"classes disc, ground.*--class-name"):
        run(project, c.ImportBlockLabelsConfig(**asked))
    blocks = run(project, c.ImportBlockLabelsConfig(**asked, class_name="disc"))
    labels = BlockLabels.load(blocks.path)
    expected = np.digitize(np.round(100 * shares), [10, 50])
    expected[0, 0] = -1
    assert np.array_equal(labels.grid, expected)
    estimate(project, blocks, shares)
    net = run(project, c.TrainSuperResolutionConfig(**QUICK))
    scored = run(
        project,
        c.ImportBlockLabelsConfig(
            segmenter="newest", class_name="disc", block_um=80, edges=(0, 50, 100), tile_px=64, threads=1
        ),
    )
    assert BlockLabels.load(scored.path).grid.shape == (4, 5)
    assert [p.id for p in scored.parents] == [net.id]
    with pytest.raises(LabelError, match="blocks of 40, 80 um"):
        run(project, c.TrainSuperResolutionConfig(blocks=(blocks.id, scored.id), **QUICK))
    heatmap = run(project, c.PredictHeatmapConfig(tile_px=64, threads=1))
    again = run(
        project,
        c.ImportBlockLabelsConfig(heatmap=heatmap.id, class_name="disc", block_um=80, edges=(0, 50, 100)),
    )
    assert np.array_equal(BlockLabels.load(again.path).grid, BlockLabels.load(scored.path).grid)


def test_a_run_that_goes_on_keeps_its_calibration(project, tmp_path, slide_and_discs):
    shares = slide_and_discs[1]
    blocks = run(project, c.ImportBlockLabelsConfig(path=labels_csv(tmp_path, shares), block_um=BLOCK_UM))
    calibration = estimate(project, blocks, shares)
    config = c.TrainSuperResolutionConfig(**QUICK)
    whole = run(project, config, QuietReporter(tmp_path / "whole"))

    class StopAtOnce(QuietReporter):
        def should_stop(self):
            return True

    with pytest.raises(Stopped):
        run(project, config, StopAtOnce(tmp_path / "stopped"))
    for place in list(calibration.estimates()):
        calibration.take_back(*place)
    resumed = run(project, config, QuietReporter(tmp_path / "stopped"))
    assert resumed.files["segmenter.safetensors"] == whole.files["segmenter.safetensors"]


def test_the_command_line_does_it_too(project, tmp_path, slide_and_discs, capsys):
    shares = slide_and_discs[1]
    root = str(project.root)
    path = labels_csv(tmp_path, shares)
    rows = [
        f"{v},{d},{1 - d}"
        for v, ds in (("low", (0, 0.05)), ("middle", (0.2, 0.3)), ("high", (0.7, 0.9)))
        for d in ds
    ]
    table = tmp_path / "shares.csv"
    table.write_text("label,disc,ground\n" + "\n".join(rows) + "\n", encoding="utf-8")
    imported = ["import-block-labels", root, "--path", str(path), "--block-um", "40", "--foreground"]
    assert main(imported) == 0
    options = [f"--{k.replace('_', '-')}={v}" for k, v in QUICK.items()]
    assert main(["train-super-resolution", root, "--calibration", str(table), *options, "--foreground"]) == 0
    assert len(project.artifacts("segmenter")) == 1
    blocks = project.artifacts("block_labels")[0]
    sheet = fill(blocks.path / "to_estimate.csv", tmp_path, shares)
    capsys.readouterr()
    assert main(["estimate", root, str(sheet)]) == 0
    told = capsys.readouterr().out
    count = len(Calibration(project, blocks).shares(("disc", "ground"))["low"])
    assert f"low: {count} blocks, {'enough' if count >= 10 else '10 are better'}" in told
    assert main(["train-super-resolution", root, *options, "--foreground"]) == 0
    table = CalibrationTable.load(project.artifacts("segmenter")[-1].path / "calibration.json")
    assert table.blocks[table.values.index("low")] == count
    sheet.write_text(sheet.read_text(encoding="utf-8").replace("low", "high"), encoding="utf-8")
    assert main(["estimate", root, str(sheet)]) != 0
    Calibration(project, "1").path.write_text("{", encoding="utf-8")
    capsys.readouterr()
    assert main(["verify", root]) != 0
    assert "labels/calibration/0001" in capsys.readouterr().out


def test_what_cannot_work_is_refused_before_long_work(project, tmp_path, slide_and_discs):
    shares = slide_and_discs[1]
    path = labels_csv(tmp_path, shares)
    with pytest.raises(ArtifactMissing, match="import-block-labels"):
        run(project, c.TrainSuperResolutionConfig(**QUICK))
    for config in (c.ImportBlockLabelsConfig(),):
        with pytest.raises(ConfigError, match="--path FILE"):
            what_it_reads(project, config)
        with pytest.raises(ConfigError, match="--path FILE"):
            run(project, config)
    with pytest.raises(LabelError, match=r"blocks.csv: the block in row 0, column 4 lies outside"):
        run(project, c.ImportBlockLabelsConfig(path=path, block_um=100))
    (tmp_path / "one.csv").write_text("row,column,label\n0,0,a\n0,1,a\n0,2,b\n", encoding="utf-8")
    run(project, c.ImportBlockLabelsConfig(path=tmp_path / "one.csv", block_um=BLOCK_UM))
    with pytest.raises(LabelError, match="label value 'b' has one whole block"):
        run(project, c.TrainSuperResolutionConfig(**QUICK))
    calibration = Calibration(project, project.artifacts("block_labels")[-1])
    calibration.estimate(0, 0, "a", {"disc": 0.5, "ground": 0.5})
    with pytest.raises(LabelError, match="one block of the label value 'a'"):
        run(project, c.TrainSuperResolutionConfig(leave_out_rare=True, **QUICK))
    assert not project.artifacts("segmenter")
    with pytest.raises(ConfigError, match="rise within 0 to 100"):
        c.make_config(c.ImportBlockLabelsConfig, {"edges": [0, 50, 40]})


def test_a_slide_without_a_resolution_does_not_get_so_far(tmp_path, slide_and_discs):
    project = Project.create(tmp_path / "p2", classes=ClassTable.from_names(["disc", "ground"]))
    with pytest.raises(SlideHasNoMpp, match="does not say its resolution"):
        run(project, c.AddSlidesConfig(paths=(slide_and_discs[0],)))


def test_a_heatmap_is_brought_into_agreement_with_the_blocks_of_its_slide(project, tmp_path, slide_and_discs):
    shares = slide_and_discs[1]
    blocks = run(project, c.ImportBlockLabelsConfig(path=labels_csv(tmp_path, shares), block_um=BLOCK_UM))
    estimate(project, blocks, shares)
    net = run(project, c.TrainSuperResolutionConfig(**QUICK))
    config = c.PredictHeatmapConfig(threads=1, blocks="newest")
    assert blocks.id in what_it_reads(project, config)
    plain = run(project, c.PredictHeatmapConfig(threads=1))
    reporter = QuietReporter(tmp_path / "run")
    tied = run(project, config, reporter)
    assert [parent.id for parent in tied.parents] == [net.id, blocks.id]
    assert tied.summary["matched_blocks"] == 80
    labels, table = BlockLabels.load(blocks.path), CalibrationTable.load(net.path / "calibration.json")
    wanted = table.eta[[table.values.index(labels.values[z]) for z in labels.grid.ravel()], 0].reshape(8, 10)

    def wrong(artifact):
        percent = np.asarray(open_pyramid(artifact.path / "heatmap.zarr").levels[0])
        np.testing.assert_allclose(percent.sum(axis=0), 100, atol=1)
        means = percent[0].reshape(8, SIDE, 10, SIDE).mean(axis=(1, 3)) / 100
        return np.abs(means - wanted).mean()

    assert wrong(tied) < 0.12 < wrong(plain)


def test_a_map_agrees_only_with_what_its_net_was_taught(project, tmp_path, slide_and_discs):
    shares = slide_and_discs[1]
    blocks = run(project, c.ImportBlockLabelsConfig(path=labels_csv(tmp_path, shares), block_um=BLOCK_UM))
    estimate(project, blocks, shares)
    run(project, c.TrainSuperResolutionConfig(**QUICK))
    other = tmp_path / "other.csv"
    other.write_text("row,column,label\n0,0,low\n0,1,rare\n", encoding="utf-8")
    run(project, c.ImportBlockLabelsConfig(path=other, block_um=BLOCK_UM))
    with pytest.raises(LabelError, match="not taught what blocks of the label value 'rare'"):
        run(project, c.PredictHeatmapConfig(threads=1, blocks="newest"))
    run(project, c.PredictHeatmapConfig(threads=1, blocks=blocks.id))
    with pytest.raises(ArtifactMissing):
        run(project, c.PredictHeatmapConfig(threads=1, blocks="block_labels/0099"))

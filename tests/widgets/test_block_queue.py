"""Shares of a block always sum to 1; blocks come value by value, those of the sheet first."""

import numpy as np
import pytest
from blocks_and_slides import block_project

from napari_histogan.labels.calibration import table_of
from napari_histogan.widgets.block_queue import ASKED, BlockQueue, with_share


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.2, 0.3, 0.5], [1.0, 0.0, 0.0, 0.0], [1.0]])
def test_shares_sum_to_one_and_keep_their_proportions(shares):
    changed = with_share(shares, 0, 0.3)
    assert sum(changed) == pytest.approx(1)
    if len(shares) > 1:
        assert changed[0] == 0.3
    if len(shares) == 3:
        assert changed[1] / changed[2] == pytest.approx(0.3 / 0.5)


@pytest.fixture
def queue(tmp_path):
    project, artifact, shares = block_project(tmp_path)
    return BlockQueue(project, artifact), shares


def test_the_blocks_of_the_sheet_come_first_value_by_value(queue):
    queue, shares = queue
    lines = (queue.artifact.path / "to_estimate.csv").read_text().splitlines()[1:]
    sheet = [tuple(line.split(",")[:3]) for line in lines]
    asked, position = [], -1
    while (position := queue.next_open(position)) >= 0:
        block = queue.blocks[position]
        asked.append((str(block.row), str(block.column), block.label))
        share = float(shares[block.row, block.column])
        queue.keep(block, [share, 1 - share])
    assert asked == sheet
    rows = queue.rows()
    assert all(row.is_enough for row in rows)
    assert sum(row.blocks for row in rows) == shares.size
    said = {value: [] for value in queue.labels.values}
    for row, column, label in asked:
        share = float(shares[int(row), int(column)])
        said[label].append([share, 1 - share])
    table = table_of(said, queue.labels.values, queue.classes)
    np.testing.assert_allclose([row.mean for row in rows], table.eta)
    np.testing.assert_allclose([row.deviation for row in rows], table.rho)
    assert len(asked) <= ASKED * len(rows)


def test_what_is_taken_back_is_asked_for_again(queue):
    queue, _ = queue
    first = queue.blocks[queue.next_open()]
    queue.keep(first, [0.25, 0.75])
    assert queue.shares(first) == [0.25, 0.75]
    assert queue.blocks[queue.next_open()] != first
    queue.take_back(first)
    assert queue.shares(first) is None
    assert queue.blocks[queue.next_open()] == first

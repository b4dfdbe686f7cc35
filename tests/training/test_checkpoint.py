"""Contracts of checkpoints: whole or not at all, newest and best kept, chance restored."""

import random

import numpy as np
import pytest
import torch

from napari_histogan.errors import CheckpointError, StorageError
from napari_histogan.training.checkpoint import CheckpointStore, capture_rng, restore_rng


def test_state_comes_back(tmp_path):
    store = CheckpointStore(tmp_path)
    assert store.load_latest() is None
    assert store.best() is None
    state = {"weights": {"w": torch.randn(3)}, "images": 7, "names": ["a", None], "rate": 0.1}
    store.save(7, state)
    step, loaded = store.load_latest()
    assert step == 7
    assert torch.equal(loaded["weights"]["w"], state["weights"]["w"])
    assert {k: loaded[k] for k in ("images", "names", "rate")} == {
        k: state[k] for k in ("images", "names", "rate")
    }


def test_newest_and_best_are_kept(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    for step, score in ((1, 5.0), (2, 1.0), (3, 4.0), (4, None), (5, 2.0)):
        store.save(step, {"step": step}, score)
    assert store.steps() == [2, 4, 5]
    assert store.best().state == {"step": 2}
    assert store.load_latest().step == 5
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".tmp"] == []


def test_a_damaged_newest_file_falls_back_to_the_one_before(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(1, {"x": 1})
    path = store.save(2, {"x": 2})
    path.write_bytes(path.read_bytes()[:100])
    assert store.load_latest().step == 1
    (tmp_path / "step-000000001.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match="damaged"):
        store.load_latest()


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(1, {"x": 1})
    torch.save({"step": 2, "state": {"run": print}}, tmp_path / "step-000000002.pt")
    assert store.load_latest().step == 1


def test_a_failed_write_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    store.save(1, {"x": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(StorageError, match="No space left"):
        store.save(2, {"x": 2})
    assert store.steps() == [1]
    assert [path.name for path in tmp_path.iterdir() if "tmp" in path.name] == []


def test_random_generators_go_on_where_they_were(tmp_path):
    np.random.standard_normal(1)  # leaves a cached second value behind
    random.gauss(0, 1)
    store = CheckpointStore(tmp_path)
    store.save(1, {"rng": capture_rng()})

    def draw() -> tuple[float, float, float]:
        return torch.randn([]).item(), float(np.random.standard_normal()), random.gauss(0, 1)

    first = draw()
    assert draw() != first
    restore_rng(store.load_latest().state["rng"])
    assert draw() == first


def test_the_only_good_checkpoint_is_not_pruned_for_a_damaged_newer_one(tmp_path, caplog):
    store = CheckpointStore(tmp_path, keep=1)
    store.save(1, {"x": 1})
    (tmp_path / "step-000000005.pt").write_bytes(b"cut off")
    assert store.load_latest().step == 1
    assert "step-000000005.pt is damaged" in caplog.text
    store.save(2, {"x": 2})
    assert store.steps() == [2]
    assert store.load_latest().state == {"x": 2}


def test_what_reads_back_damaged_never_replaces_the_checkpoint_before(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path, keep=1)
    store.save(1, {"x": torch.zeros(100)})
    write = torch.save

    def write_to_a_bad_disk(content, path):
        write(content, path)
        with path.open("rb+") as file:
            file.seek(path.stat().st_size // 3)
            file.write(b"\xff" * 40)

    monkeypatch.setattr("torch.save", write_to_a_bad_disk)
    with pytest.raises(StorageError, match="not what was written"):
        store.save(2, {"x": torch.zeros(100)})
    assert store.load_latest().step == 1
    assert [path.name for path in tmp_path.iterdir() if "step" in path.name] == ["step-000000001.pt"]


def test_one_flipped_bit_of_a_tensor_is_noticed(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(1, {"x": torch.zeros(100)})
    path = store.save(2, {"x": torch.full((100,), 1.5)})
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((100,), 1.5).numpy().tobytes()) + 7] ^= 1
    path.write_bytes(content)
    assert float(torch.load(path, weights_only=True)["state"]["x"][1]) != 1.5  # torch itself reads on
    with pytest.raises(CheckpointError, match="not what was written"):
        store.load(2)
    assert store.load_latest().step == 1


def test_a_checkpoint_of_another_version_says_so(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(1, {"weights": 1})
    state = store.load_latest().state
    assert state == {"weights": 1}
    with pytest.raises(CheckpointError, match=r"does not hold 'best_score'; another version.*anew"):
        state["best_score"]


@pytest.mark.parametrize(
    "note", ['{"step": 1e999, "score": 1}', "[" * 100_000, '{"step": 1e300, "score": 1}', "7"]
)
def test_a_damaged_note_of_the_best_checkpoint_counts_as_none(tmp_path, note):
    store = CheckpointStore(tmp_path)
    store.save(1, {"x": 1}, score=0.5)
    (tmp_path / "best.json").write_text(note)
    assert store.best() is None
    assert store.load_latest().step == 1

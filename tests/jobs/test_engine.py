"""The compute process: what it answers, what it drops, and when it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from napari_histogan.errors import JobError
from napari_histogan.jobs.engine_client import EngineClient, ranked_samples
from napari_histogan.jobs.engine_requests import Request, Requests

ECHO = [sys.executable, str(Path(__file__).with_name("engine_echo.py"))]


@pytest.fixture
def replies():
    return []


@pytest.fixture
def client(replies):
    client = EngineClient(replies.append, ECHO)
    yield client
    client.close()


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def states(replies, number):
    return [reply.state for reply in replies if reply.request == number]


def test_reply_carries_values_and_arrays_and_leaves_no_file(client, replies):
    number = client.request("predict", value=7)
    assert wait_until(lambda: replies)
    assert replies[0].request == number
    assert replies[0].state == "done"
    assert replies[0].data["value"] == 7
    np.testing.assert_array_equal(replies[0].arrays["array"], np.arange(4))
    assert list(client._folder.glob("*.npy")) == []


def test_newest_request_of_a_kind_replaces_the_running_and_the_waiting(client, replies):
    numbers = [client.request("rank", value=k, steps=300) for k in range(5)]
    assert wait_until(lambda: len(replies) >= 5, 30)
    assert [states(replies, n) for n in numbers[:-1]] == [["dropped"]] * 4
    assert states(replies, numbers[-1]) == ["done"]


def test_more_urgent_request_goes_between_the_steps_of_another(client, replies):
    client.request("predict", value="start the process")
    assert wait_until(lambda: replies)
    slow = client.request("rank", steps=100)
    time.sleep(0.1)
    quick = client.request("predict", value=1)
    assert wait_until(lambda: len(replies) == 3)
    assert [reply.request for reply in replies[1:]] == [quick, slow]


def test_cancelled_request_is_dropped(client, replies):
    number = client.request("rank", steps=1000)
    time.sleep(0.3)
    client.cancel(number)
    assert wait_until(lambda: replies, 8)
    assert states(replies, number) == ["dropped"]


def test_error_comes_as_a_message_and_the_next_request_is_answered(client, replies):
    client.request("sample")
    assert wait_until(lambda: replies)
    assert replies[0].state == "failed"
    assert "nothing is painted" in replies[0].data["message"]
    client.request("predict", value=2)
    assert wait_until(lambda: len(replies) == 2)
    assert replies[1].state == "done"


def test_unknown_request_is_refused(client, replies):
    client.request("bake")
    assert wait_until(lambda: replies)
    assert "bake" in replies[0].data["message"]


def test_process_ends_when_its_input_ends(client, replies):
    client.request("rank", steps=100_000)
    assert wait_until(lambda: client.pid is not None)
    pid = client.pid
    started = time.monotonic()
    client.close()
    assert not psutil.pid_exists(pid)
    assert time.monotonic() - started < 5


def test_killed_process_is_told_and_started_again(client, replies):
    client.request("predict", value=1)
    assert wait_until(lambda: replies)
    os.kill(client.pid, signal.SIGKILL)
    assert wait_until(lambda: replies[-1].state == "ended")
    client.request("predict", value=2)
    assert wait_until(lambda: replies[-1].state == "done")


def test_process_ends_when_its_parent_is_killed():
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time\n"
            "from napari_histogan.jobs.engine_client import EngineClient\n"
            f"client = EngineClient(command={ECHO!r})\n"
            "client.request('rank', steps=100000)\n"
            "print(client.pid, flush=True)\n"
            "time.sleep(60)\n",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    engine = int(parent.stdout.readline())
    assert psutil.pid_exists(engine)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_until(lambda: not _lives(engine))


def _lives(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_process_that_cannot_start_is_an_error():
    client = EngineClient(command=["/no/such/program"])
    with pytest.raises(JobError, match="could not be started"):
        client.request("predict")
    client.close()


def test_client_needs_neither_torch_nor_qt():
    code = (
        "import sys; import napari_histogan.jobs.engine_client;"
        "sys.exit(any(m in sys.modules for m in ('torch', 'qtpy', 'PyQt6', 'napari')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestRequests:
    def test_order_is_by_urgency(self):
        requests = Requests(lambda _r: None)
        for number, do in enumerate(("rank", "sample", "predict", "load")):
            requests.put(Request(number, do, {}))
        assert [requests.take().do for _ in range(4)] == ["load", "predict", "sample", "rank"]

    def test_closed_box_is_empty_and_everything_is_stale(self):
        requests = Requests(lambda _r: None)
        request = Request(1, "predict", {})
        requests.put(request)
        requests.close()
        assert requests.take() is None
        assert requests.is_stale(request)


@pytest.mark.timeout(120)
def test_live_model_learns_from_the_masks_on_disk(tiny_project):
    client = EngineClient()
    try:
        samples = tiny_project.artifacts("samples")[-1]
        where = {"project": str(tiny_project.root), "samples": samples.id}
        drawn = client.wait(
            client.request("sample", project=where["project"], truncation=0.5, seed=3, n=5), 60
        )
        assert drawn.arrays["images"].shape == (5, 32, 32, 3)
        again = client.wait(client.request("sample", project=where["project"], truncation=0.5, seed=3, n=5))
        np.testing.assert_array_equal(drawn.arrays["images"], again.arrays["images"])

        painted = tiny_project.painted(samples)[0]
        reply = client.wait(client.request("predict", index=painted, **where))
        mask = tiny_project.load_mask(samples, painted)
        labels, uncertainty = reply.arrays["labels"], reply.arrays["uncertainty"]
        assert labels.shape == uncertainty.shape == mask.shape
        assert set(np.unique(labels)) <= {1, 2, 3}
        assert 0 <= uncertainty.min() <= uncertainty.max() <= 1
        # The masks follow the brightness of the samples, which the features tell.
        assert (labels == mask)[mask > 0].mean() > 0.8

        pool = [i for i in range(24) if i not in tiny_project.painted(samples)]
        ranked = client.wait(client.request("rank", pool=pool, **where))
        order, scores = ranked.arrays["pool"], ranked.arrays["scores"]
        assert sorted(order.tolist()) == pool
        assert scores[0] == 1
        assert (np.diff(scores) < 0).all()
        uncertainty = ranked.arrays["uncertainty"]
        assert 0 <= uncertainty.min() < uncertainty.max() <= 1
        assert sorted(index for index, _ in ranked_samples(tiny_project)) == pool
    finally:
        client.close()


def test_live_model_asks_for_a_second_class(tiny_project_copy):
    project = tiny_project_copy
    samples = project.artifacts("samples")[-1]
    for index in project.painted(samples):
        mask = project.load_mask(samples, index)
        project.save_mask(samples, index, (mask > 0).astype(np.uint8))
    client = EngineClient()
    try:
        reply = client.wait(
            client.request("predict", project=str(project.root), samples=samples.id, index=0), 60
        )
        assert "second class" in reply.data["message"]
        assert not reply.arrays
    finally:
        client.close()


def test_folders_are_removed_when_the_process_ends_and_after_a_client_was_killed(
    tmp_path, monkeypatch, tiny_project
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    stale, mine = tmp_path / f"histogan-engine-{ended.pid}-old", tmp_path / f"histogan-engine-{os.getpid()}-x"
    for folder in (stale, mine):
        (folder / "live-1").mkdir(parents=True)
    client = EngineClient()
    samples = tiny_project.artifacts("samples")[-1]
    client.wait(client.request("predict", project=str(tiny_project.root), samples=samples.id, index=0), 60)
    assert not stale.exists()
    assert mine.exists()
    client.close()
    assert [p.name for p in tmp_path.iterdir()] == [mine.name]


def test_rank_goes_on_with_its_own_project_when_another_is_loaded_meanwhile(
    tmp_path, tiny_project, tiny_project_copy
):
    from napari_histogan.jobs.live_model import LiveModel

    samples = tiny_project.artifacts("samples")[-1]
    pool = [i for i in range(24) if i not in tiny_project.painted(samples)]
    old = {"project": str(tiny_project.root), "samples": samples.id, "pool": pool}
    other = {"project": str(tiny_project_copy.root), "samples": samples.id}
    expected = list(LiveModel(tmp_path / "a").rank(Request(1, "rank", old)))[-1]

    model = LiveModel(tmp_path / "b")
    steps = model.rank(Request(1, "rank", old))
    next(steps)
    for index in tiny_project_copy.painted(samples):
        mask = tiny_project_copy.load_mask(samples, index)
        tiny_project_copy.save_mask(samples, index, np.where(mask == 1, 2, mask).astype(np.uint8))
    list(model.load(Request(2, "load", other)))
    list(model.predict(Request(3, "predict", {**other, "index": 0})))
    found = list(steps)[-1]
    np.testing.assert_array_equal(found[1]["pool"], expected[1]["pool"])
    np.testing.assert_allclose(found[1]["uncertainty"], expected[1]["uncertainty"], atol=1e-4)

"""Events of a job become progress, curves, previews, and warnings."""

from napari_histogan.jobs.job import Job
from napari_histogan.project.runs import JobStatus
from napari_histogan.widgets.job_view import in_words
from napari_histogan.widgets.job_watcher import JobRecord, JobWatcher


def record(tiny_project):
    return JobRecord(Job(tiny_project.runs()[0]), JobStatus(1, "train_gan", "running"))


def test_events_are_sorted_by_kind(tiny_project):
    one = record(tiny_project)
    for event in (
        {"kind": "progress", "done": 3, "total": 10, "message": "Learning"},
        {"kind": "metric", "t": 1.0, "step": 5, "loss": 0.5, "p": "nan"},
        {"kind": "metric", "t": 2.0, "step": 6, "loss": 0.4},
        {"kind": "preview", "name": "grid", "path": "previews/1.png"},
        {"kind": "preview", "name": "grid", "path": "previews/2.png"},
        {"kind": "warning", "message": "careful"},
    ):
        one.take(event)
    assert one.progress["done"] == 3
    assert one.metrics == {"loss": [(5.0, 0.5), (6.0, 0.4)]}
    assert one.previews == {"grid": "previews/2.png"}
    assert one.warnings == ["careful"]
    assert one.active


def test_jobs_of_a_project_are_found(qtbot, tiny_project):
    watcher = JobWatcher()
    watcher.watch(tiny_project.root)
    assert len(watcher.records) == len(tiny_project.runs())
    assert watcher.active() == []
    assert watcher.newest("train_segmenter").status.state == "done"
    assert watcher.newest("evaluate") is None
    watcher.watch(None)
    assert watcher.records == {}


def test_durations_as_people_say_them():
    assert [in_words(s) for s in (0.2, 59, 600, 7200)] == ["1 s", "59 s", "10 min", "2.0 h"]

"""The command line does what the dock does: stages as jobs, with exit codes that scripts can use."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from napari_histogan import __version__, cli
from napari_histogan.config import (
    STAGES,
    EvaluateConfig,
    PredictHeatmapConfig,
    SampleImagesConfig,
    TrainGanConfig,
    TrainSegmenterConfig,
)
from napari_histogan.geometry import Region
from napari_histogan.jobs.job import Job
from napari_histogan.jobs.runner import list_jobs, start_job
from napari_histogan.pipeline import STAGE_FUNCTIONS
from napari_histogan.progress import QuietReporter
from napari_histogan.project.corrections import Correction
from napari_histogan.project.net_in_use import net_in_use
from napari_histogan.project.store import Project

pytestmark = pytest.mark.timeout(600)  # jobs are processes, and machines may be busy

TINY = """
batch = 2
z_dim = 8
w_dim = 8
mapping_layers = 1
channel_base = 64
channel_max = 8
tick_kimg = 1000
threads = 1
"""


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def until(true: Callable[[], object], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    assert cli.main(["new", str(tmp_path / "kidney"), "--classes", "glomerulus, tubule"]) == 0
    return Project.open(tmp_path / "kidney")


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory, demo_slide: Path) -> Path:
    """A project with the demo slide and a patch plan, made by real jobs."""
    root = tmp_path_factory.mktemp("cli") / "skin"
    assert cli.main(["new", str(root), "--classes", "epidermis,dermis"]) == 0
    assert cli.main(["add-slides", str(root), "--paths", str(demo_slide)]) == 0
    assert cli.main(["extract-patches", str(root), "--patch-px", "32"]) == 0
    return root


# Without a project


def test_help_is_quick_and_names_every_verb() -> None:
    code = (
        "import sys, time; started = time.process_time()\n"
        "from napari_histogan.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(time.process_time() - started, 'torch' in sys.modules)"
    )
    tries = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    ]
    seconds, torch = zip(*(text.splitlines()[-1].split() for text in tries), strict=True)
    assert set(torch) == {"False"}
    assert min(map(float, seconds)) < 0.5
    verbs = [stage.replace("_", "-") for stage in STAGES]
    verbs += [
        "new",
        "demo",
        "open",
        "status",
        "rank",
        "use-net",
        "show",
        "export",
        "stop",
        "resume",
        "verify",
        "clean",
        "backup",
        "restore",
    ]
    assert [
        verb for verb in verbs if f"    {verb} " not in tries[0] and f"    {verb}\n" not in tries[0]
    ] == []


def test_an_older_net_is_gone_back_to_by_a_verb(
    tiny_project_copy: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tiny_project_copy
    old = project.artifact("", "segmenter")
    config = TrainSegmenterConfig(steps=2, width=4, depth=2, batch=4, threads=1)
    new = STAGE_FUNCTIONS[config.stage](project, config, QuietReporter())
    assert f"# reads {new.id}" in run(capsys, "predict-heatmap", project.root, "--dry-run")[1]
    assert f"net in use: {new.id}\n" in run(capsys, "status", project.root)[1]
    code, out, _ = run(capsys, "use-net", project.root, old.id)
    assert (code, out.split()[0]) == (0, old.id)
    assert f"# reads {old.id}" in run(capsys, "predict-heatmap", project.root, "--dry-run")[1]
    assert f"net in use: {old.id}, not the newest" in run(capsys, "status", project.root)[1]
    assert json.loads(run(capsys, "status", project.root, "--json")[1])["net_in_use"] == old.id
    heatmap = STAGE_FUNCTIONS["predict_heatmap"](project, PredictHeatmapConfig(threads=1), QuietReporter())
    assert old.id in {parent.id for parent in heatmap.parents}
    assert new.id in run(capsys, "use-net", project.root)[1]
    newer = STAGE_FUNCTIONS[config.stage](project, config, QuietReporter())
    assert net_in_use(project) == newer.id
    code, _, err = run(capsys, "use-net", project.root, "segmenters/0999")
    assert (code, "0999" in err) == (1, True)


def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "napari_histogan", "--version"]
    assert (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[1] == __version__
    )


@pytest.mark.parametrize("words", [[], ["paint-everything", "p"], ["train-gan"], ["demo", "--from", "x"]])
def test_what_is_not_understood_ends_with_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2


def test_errors_go_to_stderr_and_end_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("status", "show", "train-gan", "stop", "resume", "verify", "clean"):
        code, out, err = run(capsys, verb, tmp_path)
        assert (code, out) == (1, "")
        assert err.startswith(f"histogan: {tmp_path} holds no project.")
        assert "histogan new" in err


# Projects


def test_a_new_project_has_its_classes(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert project.classes.names == ("glomerulus", "tubule")
    code, _, err = run(capsys, "new", project.root)
    assert code == 1
    assert "holds a project already" in err


def test_status_tells_what_to_do_next(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "status", project.root)
    assert code == 0
    assert f"histogan add-slides {project.root} --paths FILE" in out.replace("\n", " ")
    told = json.loads(run(capsys, "status", project.root, "--json")[1])
    assert told["next_stage"] == "add_slides"
    assert [c["name"] for c in told["classes"]] == ["glomerulus", "tubule"]
    assert {s["kind"] for s in told["stages"] if s["kind"]} == {model.result for model in STAGES.values()}


def make(project: Project) -> None:
    with project.new_artifact("generator", TrainGanConfig(seed=4), QuietReporter()) as draft:
        (draft.path / "weights").write_text("x")
        draft.summary["loss"] = 0.25
    with project.new_artifact("samples", SampleImagesConfig(), QuietReporter(), [draft.result]) as made:
        (made.path / "w").write_text("w")


def test_show_tells_settings_summary_and_family(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    make(project)
    code, out, _ = run(capsys, "show", project.root, "generators/0001")
    assert code == 0
    for line in ("generators/0001  train_gan", "loss = 0.25", "seed = 4", "hash    "):
        assert line in out
    out = run(capsys, "show", project.root)[1]
    assert "  samples/0002 (sample_images)\n    generators/0001 (train_gan)" in out
    assert json.loads(run(capsys, "show", project.root, "--json")[1])["id"] == "samples/0002"
    assert run(capsys, "show", project.root, "9")[0] == 1


def test_verify_fails_once_something_was_changed(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    make(project)
    assert run(capsys, "verify", project.root)[:2] == (
        0,
        "generators/0001: whole\nsamples/0002: whole\n2 of 2 results are whole\n",
    )
    (project.root / "samples" / "0002" / "w").write_text("W")
    code, out, _ = run(capsys, "verify", project.root)
    assert code == 1
    assert "samples/0002: w was changed" in out


def test_clean_tells_first_and_removes_then(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    make(project)
    checkpoint = project.runs()[0] / "checkpoints" / "old"
    checkpoint.write_bytes(bytes(1000))
    for words, left in ((["--dry-run"], True), ([], False)):
        code, out, _ = run(capsys, "clean", project.root, *words)
        assert code == 0
        assert "runs/0001-train-gan/checkpoints/old: a checkpoint of a finished run, 1,000 bytes" in out
        assert checkpoint.exists() == left
    assert run(capsys, "clean", project.root)[1] == "0 bytes were freed\n"


def test_backup_and_restore_carry_the_work_over(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(project)
    project.save_mask("samples/0002", 1, np.ones((8, 8), np.uint8))
    project.save_correction(Correction("a", "s", Region(0, 0, 2, 2), 0.5, np.ones((2, 2), np.uint8)))
    code, out, _ = run(capsys, "backup", project.root, tmp_path / "b.zip")
    assert code == 0
    assert "3 files of labels" in out
    assert run(capsys, "restore", tmp_path / "b.zip", tmp_path / "new")[0] == 0
    restored = Project.open(tmp_path / "new")
    assert restored.painted("samples/0002") == [1]
    assert restored.classes == project.classes
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as bundle:
        bundle.writestr("../../evil", "x")
    code, _, err = run(capsys, "restore", tmp_path / "evil.zip", tmp_path / "other")
    assert code == 1
    assert "is no backup" in err


# Stages


def test_a_stage_without_its_inputs_ends_before_a_run_is_made(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, "train-gan", project.root)
    assert code == 1
    assert "run histogan extract-patches first" in err
    assert project.runs() == []


def test_a_misspelt_option_gets_a_suggestion(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["train-gan", str(project.root), "--kimgs", "3"])
    assert caught.value.code == 2
    assert "did you mean --kimg?" in capsys.readouterr().err


def test_a_dry_run_shows_settings_and_inputs_and_does_nothing(
    planned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(planned.rglob("*"))
    code, out, _ = run(capsys, "train-gan", planned, "--kimg", "7", "--dry-run")
    assert code == 0
    assert "kimg = 7.0" in out
    assert "# reads patches/0002" in out
    assert sorted(planned.rglob("*")) == before
    (tmp_path / "again.toml").write_text(out)
    again = run(capsys, "train-gan", planned, "--config", tmp_path / "again.toml", "--dry-run")
    assert again[1] == out, "what it prints is a config file"


def test_stages_run_as_jobs_and_leave_their_results(
    planned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project.open(planned)
    assert [a.id for a in project.artifacts()][:2] == ["slides/0001", "patches/0002"]
    assert [job.status().state for job in list_jobs(planned)][:2] == ["done", "done"]
    assert project.artifacts("patches")[0].config["patch_px"] == 32
    out = run(capsys, "status", planned)[1]
    assert "slides/0001" in out
    assert "patches/0002" in out


def test_a_failed_stage_tells_why_and_ends_with_1(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.svs").write_bytes(b"no slide")
    code, _, err = run(capsys, "add-slides", project.root, "--paths", tmp_path / "broken.svs")
    assert code == 1
    assert "broken.svs" in err
    assert list_jobs(project.root)[0].status().state == "failed"


def test_working_in_the_foreground_gives_the_same(project: Project, demo_slide: Path) -> None:
    command = [sys.executable, "-m", "napari_histogan", "add-slides", str(project.root)]
    command += ["--foreground", "--paths", str(demo_slide)]
    assert subprocess.run(command, check=False).returncode == 0
    (job,) = list_jobs(project.root)
    assert job.status().state == "done"
    assert project.artifact("", "slides").number == 1


def test_ctrl_c_stops_and_the_same_command_goes_on(
    planned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.toml").write_text(TINY + "kimg = 100000\n")
    command = [sys.executable, "-m", "napari_histogan", "train-gan", str(planned)]
    command += ["--config", str(tmp_path / "tiny.toml")]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    job = _training(planned)
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=60)
    assert first.returncode == 3, err
    assert "asked to stop" in out
    assert f"go on with: histogan resume {planned} {job.number}" in out
    assert job.status().state == "stopped"
    assert (
        f"{job.run_dir.name} is stopped"
        in json.loads(run(capsys, "status", planned, "--json")[1])["next_step"]
    )

    second = subprocess.run([*command, "--detach"], capture_output=True, text=True, check=False)
    assert second.returncode == 0
    assert f"{job.run_dir.name} has these settings and is not finished; it goes on" in second.stdout
    assert _training(planned).number == job.number
    code, out, _ = run(capsys, "stop", planned)
    assert code == 0
    assert job.run_dir.name in out
    assert job.wait(60).state == "stopped"
    code, _, err = run(capsys, "stop", planned)
    assert code == 1
    assert "no job is at work" in err
    assert run(capsys, "stop", planned, job.number)[0] == 1
    assert run(capsys, "resume", planned, "77")[0] == 1


def test_resume_goes_on_to_the_end(planned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tiny.toml").write_text(TINY + "kimg = 0.02\n")
    assert run(capsys, "train-gan", planned, "--config", tmp_path / "tiny.toml", "--detach")[0] == 0
    job = list_jobs(planned)[-1]
    job.request_stop()
    assert job.wait(60).state == "stopped"
    code, out, err = run(capsys, "resume", planned, job.number)
    assert (code, err) == (0, "")
    assert f"{job.run_dir.name}: done, generators/{job.number:04d}" in out
    assert run(capsys, "resume", planned, job.number)[:2] == (
        0,
        f"{job.run_dir.name} is finished already; it made generators/{job.number:04d}\n",
    )
    assert run(capsys, "verify", planned)[0] == 0


FOLLOW = """
import sys
from napari_histogan import cli_jobs
from napari_histogan.jobs.job import Job
sys.exit(cli_jobs.follow(Job(sys.argv[1])))
"""


def test_a_second_ctrl_c_leaves_a_deaf_job_alone(project: Project) -> None:
    stages = f"{Path(__file__).parent / 'jobs' / 'counting_stages.py'}:STAGES"
    job = start_job(project.root, SampleImagesConfig(seed=5), pipeline=stages)
    until(lambda: job.status().state == "running", "the start")
    command = [sys.executable, "-u", "-c", FOLLOW, str(job.run_dir)]
    follower = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert follower.stdout is not None
    assert "sleeping" in follower.stdout.readline(), "it follows by now"
    follower.send_signal(signal.SIGINT)
    # An interrupt in the middle of a line may write that line once more.
    assert "asked to stop" in next(line for line in follower.stdout if "sleeping" not in line)
    follower.send_signal(signal.SIGINT)
    assert "left alone" in follower.communicate(timeout=30)[0]
    assert follower.returncode == 3
    status = job.status()
    assert status.state == "running"
    assert status.pid is not None
    os.kill(status.pid, signal.SIGKILL)


def _training(root: Path) -> Job:
    """The newest job, once it has saved its first state or begun to train."""
    until(lambda: list_jobs(root)[-1].stage == "train_gan", "the run")
    job = list_jobs(root)[-1]
    start = job.events()[1]

    def progressed() -> bool:
        assert job.status().state in ("queued", "running"), job.tail_log()
        return job.progress() is not None and any(e["kind"] == "progress" for e in job.events(start)[0])

    until(progressed, "training")
    return job


def test_open_starts_the_dock_in_a_process_of_its_own(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A module of our own in place of the dock: what is tested is that the project's folder gets there.
    (tmp_path / "stand_in.py").write_text(
        "import sys, pathlib; pathlib.Path(sys.argv[1], 'opened').write_text(' '.join(sys.argv[1:]))"
    )
    monkeypatch.setattr(cli, "DOCK", "stand_in")
    monkeypatch.setenv("DISPLAY", ":77")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    assert cli.main(["open", str(project.root)]) == 0
    assert (project.root / "opened").read_text() == str(project.root)
    assert importlib.util.find_spec("napari_histogan.widgets.launch") is not None


# What people read


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux runs without any display")
def test_open_without_a_display_says_so(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in cli.DISPLAYS:
        monkeypatch.delenv(name, raising=False)
    code, _, err = run(capsys, "open", project.root)
    assert code == 1
    assert "there is no display to open a window on" in err


@pytest.mark.parametrize(
    ("word", "near"), [("train-gna", "train-gan"), ("staus", "status"), ("xyzzy", "--help` lists all verbs")]
)
def test_an_unknown_verb_gets_the_nearest_one(
    word: str, near: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([word, "p"])
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert f"unknown verb '{word}'" in err
    assert near in err
    assert "choose from" not in err


def test_a_bad_value_names_its_field_alone(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "train-gan", project.root, "--batch", "1")
    assert code == 1
    assert "batch: " in err
    assert "at least 2" in err
    assert "learning_rate" not in err
    (project.root / "x.toml").write_text("learning_rat = 1\n")
    err = run(capsys, "train-gan", project.root, "--config", project.root / "x.toml")[2]
    assert "a setting such as learning_rate" in err
    assert "mapping_layers" not in err


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), "was given no file"),
        (("notes.txt",), "notes.txt"),
        (("empty",), "no slides in"),
    ],
)
def test_add_slides_refuses_what_is_no_slide_before_a_job_starts(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, ...], words: str
) -> None:
    (tmp_path / "notes.txt").write_text("stroma at the left")
    (tmp_path / "empty").mkdir()
    code, _, err = run(capsys, "add-slides", project.root, "--paths", *(tmp_path / name for name in names))
    assert code == 1
    assert words in err
    assert project.runs() == []


def test_show_writes_numbers_for_people(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    with project.new_artifact(
        "evaluation", EvaluateConfig(reference=Path("a.geojson")), QuietReporter()
    ) as it:
        it.summary.update(mcc=0.123456789, froc=None, dice={"a": 1 / 3, "b": None}, pixels=12345678.0)
    out = run(capsys, "show", project.root)[1]
    for line in ("mcc = 0.1235\n", "froc = none\n", "dice = a 0.3333, b none\n", "pixels = 12,345,678\n"):
        assert line in out
    assert "None" not in out


def test_a_backup_asks_before_it_replaces(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "backup", project.root, tmp_path / "b.zip")[0] == 0
    code, _, err = run(capsys, "backup", project.root, tmp_path / "b.zip")
    assert code == 1
    assert "exists already" in err
    assert run(capsys, "backup", project.root, tmp_path / "b.zip", "--force")[0] == 0


def test_one_broken_run_does_not_keep_the_others_from_being_managed(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.new_run(TrainGanConfig())
    (project.runs()[0] / "config.toml").unlink()
    project.new_run(TrainGanConfig(kimg=5))
    code, out, _ = run(capsys, "status", project.root)
    assert code == 0
    assert "unreadable" in out
    code, out, _ = run(capsys, "stop", project.root)
    assert code == 0
    assert "0002-train-gan was asked to stop" in out


def test_rank_lists_unpainted_samples_and_stops_at_the_count(capsys, tiny_project: Project) -> None:
    code, out, _ = run(capsys, "rank", tiny_project.root, "--count", "4")
    assert code == 0
    rows = [line.split() for line in out.splitlines()[1:]]
    assert len(rows) == 4
    assert not {int(index) for index, _ in rows} & set(
        tiny_project.painted(tiny_project.artifacts("samples")[-1])
    )
    assert all(0 <= float(uncertainty) <= 1 for _, uncertainty in rows)


def test_export_writes_the_kept_pairs_and_their_table(capsys, tiny_project: Project, tmp_path: Path) -> None:
    dataset = tiny_project.artifacts("dataset")[-1]
    code, out, _ = run(capsys, "export", tiny_project.root, dataset.id, tmp_path / "png")
    assert code == 0
    assert f"{dataset.id}: {dataset.summary['pairs']} pairs" in out
    for kind in ("images", "masks"):
        assert len(list((tmp_path / "png" / kind).glob("*.png"))) == dataset.summary["pairs"]
    lines = (tmp_path / "png" / "pairs.csv").read_text().splitlines()
    assert lines[0] == "image,mask,index,noise_seed,uncertainty,epidermis,dermis,glass"
    assert len(lines) == 1 + dataset.summary["pairs"]
    code, _, err = run(capsys, "export", tiny_project.root, dataset.id, tmp_path / "png")
    assert code == 1
    assert "a new or empty folder" in err
    samples = tiny_project.artifacts("samples")[-1]
    code, _, err = run(capsys, "export", tiny_project.root, samples.id, tmp_path / "other")
    assert code == 1
    assert "choose a result such as datasets/0001" in err
    assert not (tmp_path / "other").exists()

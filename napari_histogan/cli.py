"""The command line: ``histogan STAGE PROJECT [--config x.toml] [--field value] [--dry-run]``.

Each stage is a verb with the name of its function in :mod:`napari_histogan.pipeline`.
A stage runs as a job of its own: closing the terminal does not end it.  Exit codes:
0 done, 1 failed, 2 not understood, 3 stopped.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_histogan import __version__
from napari_histogan.cli_jobs import DONE, FAILED, STOPPED, detached, follow, resume, stop
from napari_histogan.cli_options import Parser, add_stage_options, read_config
from napari_histogan.config import STAGES, StageConfig, dump_config
from napari_histogan.errors import HistoganError, ProjectError, Stopped
from napari_histogan.progress import STOP_FILE

if TYPE_CHECKING:
    from rich.console import Console


DOCK = "napari_histogan.widgets.launch"
"""Module that opens napari with the dock when run; the command line imports nothing of it."""
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
"""Variables of which one is set wherever a window can be opened on Linux."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments
        Words of the command line without the program's name; those of this process if None.

    Returns
    -------
    int
        Exit code: 0 done, 1 failed, 3 stopped.
    """
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except HistoganError as error:
        print(f"histogan: {error}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        sys.stderr.close()
        return FAILED
    except OSError as error:
        print(f"histogan: {error}", file=sys.stderr)
        return FAILED
    except Stopped:
        print("stopped; the same command goes on")
        return STOPPED
    except KeyboardInterrupt:
        return STOPPED
    return code


def _parser() -> Parser:
    """Return the parser of all verbs."""
    parser = Parser(
        prog="histogan",
        description="Learn to paint tissue, paint a few samples, segment whole slides.",
        epilog="`histogan VERB --help` tells the settings of a verb.",
    )
    parser.add_argument("--version", action="version", version=f"histogan {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True, parser_class=Parser)

    def verb(name: str, run: Callable[[argparse.Namespace], int], text: str, usage: str = "") -> Parser:
        found: Parser = verbs.add_parser(name, help=text, description=text, usage=usage or None)
        found.set_defaults(run=run, parser=found)
        return found

    _add_project_verbs(verb)
    for stage, model in STAGES.items():
        text = (model.__doc__ or "").strip().splitlines()[0]
        name = stage.replace("_", "-")
        one = verb(name, _run_stage, text, f"histogan {name} PROJECT [--config FILE] [--field value ...]")
        one.set_defaults(model=model)
        _project(one)
        one.add_argument("--config", metavar="FILE", help="TOML with settings; options win over it")
        one.add_argument("--dry-run", action="store_true", help="show settings and inputs, do nothing")
        one.add_argument("--detach", action="store_true", help="start the job and return at once")
        one.add_argument("--foreground", action="store_true", help="work in this process; for schedulers")
        one.add_argument(
            "--new", action="store_true", help="do not go on with a stopped run of these settings"
        )
        _launcher(one)
        add_stage_options(one, model)
    _add_job_verbs(verb)
    return parser


def _add_project_verbs(verb: Callable[..., Parser]) -> None:
    """Add the verbs that make, open, and show projects."""
    one = verb("demo", _demo, "Try everything on a small slide that comes along.")
    one.add_argument("folder", nargs="?", type=Path, default=Path("histogan-demo"), help="where; made if new")
    one.add_argument("--from", dest="start", choices=["gan"], help="also train the generator anew")
    one.add_argument("--no-open", action="store_true", help="do not open napari at the end")
    one = _project(verb("new", _new, "Make a project in a new or empty folder."))
    one.add_argument("--name", help="what people read; the folder's name if not given")
    one.add_argument("--classes", default="", metavar="NAMES", help='classes, such as "epidermis,dermis"')
    _project(verb("open", _open, "Open napari with the project."))
    one = _project(verb("status", _status, "Tell what there is, what is behind, and what to do next."))
    one.add_argument("--json", action="store_true", help="for programs")
    one = _project(verb("rank", _rank, "List the samples to paint next, the most informative first."))
    one.add_argument("--samples", default="", help="such as samples/0001; the newest if not given")
    one.add_argument("--count", type=int, default=10, help="how many to list")
    one = _project(
        verb("use-net", _use_net, "Choose the net that runs over slides until a newer one is trained.")
    )
    one.add_argument("net", nargs="?", default="", help="such as segmenters/0003; the newest if not given")
    text = "Keep what a person says of blocks, from the filled-in sheet of import-block-labels."
    one = _project(verb("estimate", _estimate, text))
    one.add_argument("sheet", type=Path, help="to_estimate.csv with the share of each class in each block")
    one.add_argument("--blocks", default="", help="such as block_labels/0007; the newest if not given")
    one = _project(verb("show", _show, "Show a result: settings, summary, and what it was made from."))
    one.add_argument(
        "artifact", nargs="?", default="", help="such as generators/0003; the newest if not given"
    )
    one.add_argument("--json", action="store_true", help="for programs")
    one = _project(verb("export", _export, "Write the kept pairs of a data set as PNG files and a table."))
    one.add_argument("artifact", help="such as datasets/0003")
    one.add_argument("folder", type=Path, metavar="FOLDER", help="new or empty")


def _add_job_verbs(verb: Callable[..., Parser]) -> None:
    """Add the verbs that look after jobs and files."""
    run: dict[str, Any] = {
        "nargs": "?",
        "default": "",
        "metavar": "RUN",
        "help": "number of the run; the newest if not given",
    }
    _project(verb("stop", stop, "Ask a job to save its state and end.")).add_argument("run_number", **run)
    one = _project(verb("resume", resume, "Let a stopped or failed job go on from its last checkpoint."))
    one.add_argument("run_number", **run)
    one.add_argument("--detach", action="store_true", help="return at once")
    _launcher(one)
    _project(verb("verify", _verify, "Compare every result with its recorded hashes."))
    one = _project(verb("clean", _clean, "Remove half-written files and checkpoints of finished runs."))
    one.add_argument("--dry-run", action="store_true", help="only tell")
    one = _project(verb("backup", _backup, "Save masks, corrections, labels, and classes to one zip."))
    one.add_argument("file", type=Path, help="the zip")
    one.add_argument("--force", action="store_true", help="replace the zip if it exists")
    one = verb("restore", _restore, "Bring a backup into a project, or into a new folder.")
    one.add_argument("file", type=Path, help="the zip")
    _project(one)
    one.add_argument(
        "--force", action="store_true", help="also replace masks that are newer; history keeps them"
    )


def _launcher(parser: Parser) -> None:
    """Add where the job runs."""
    text = 'where: local, "ssh HOST [PYTHON]", or "slurm [OPTIONS of sbatch]"; else what the project says'
    parser.add_argument("--launcher", metavar="WORDS", default="", help=text)


def _project(parser: Parser) -> Parser:
    """Add the project folder."""
    parser.add_argument("project", type=Path, metavar="PROJECT", help="the project's folder")
    return parser


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


# Stages and jobs


def _run_stage(options: argparse.Namespace) -> int:
    """Run a stage as a job and follow it."""
    from napari_histogan.jobs.runner import find_unfinished, resume_job, start_job, with_absolute_paths
    from napari_histogan.project.reads import settled, what_it_reads
    from napari_histogan.project.store import Project

    project = Project.open(options.project)
    config: StageConfig = with_absolute_paths(read_config(options.model, options))
    reads, config = what_it_reads(project, config), settled(project, config)
    if options.dry_run:
        print(dump_config(config).rstrip())
        for item in reads or ["nothing"]:
            print(f"# reads {item}")
        return DONE
    if options.foreground:
        from napari_histogan.jobs.ranks import SharedConfig, from_outside, work_together
        from napari_histogan.jobs.worker import main as work

        def allocate() -> Path:
            found = None if options.new else find_unfinished(project.root, config)
            if found and not found.is_alive():
                (found.run_dir / STOP_FILE).unlink(missing_ok=True)
            return found.run_dir if found else project.new_run(config)

        if isinstance(config, SharedConfig) and config.devices > 1 and from_outside():
            return work_together(config, allocate, lambda run_dir: work([str(run_dir)]))
        return work([str(allocate())])
    found = None if options.new else find_unfinished(project.root, config)
    offset = found.events()[1] if found else 0
    if found:
        print(f"{found.run_dir.name} has these settings and is not finished; it goes on")
    where = options.launcher
    job = (
        resume_job(found.run_dir, launcher=where)
        if found
        else start_job(project.root, config, launcher=where)
    )
    return detached(job) if options.detach else follow(job, offset)


# Projects


def _new(options: argparse.Namespace) -> int:
    """Make a project."""
    from napari_histogan.labels.classes import ClassTable
    from napari_histogan.project.store import Project

    names = [name for name in options.classes.split(",") if name.strip()]
    project = Project.create(options.project, options.name, ClassTable.from_names(names))
    print(f"made {project.root}; next: histogan add-slides {options.project} --paths FILE")
    return DONE


def _open(options: argparse.Namespace) -> int:
    """Open napari in a process of its own."""
    from napari_histogan.project.store import Project

    root = Project.open(options.project).root
    if importlib.util.find_spec("napari") is None:
        raise ProjectError("napari is not installed", "", 'pip install "napari-histogan[all]"')
    if sys.platform == "linux" and not any(os.environ.get(name) for name in DISPLAYS):
        raise ProjectError(
            "there is no display to open a window on",
            "a desktop, or a connection that carries windows (ssh -X)",
            "run this on the machine before you; stages need no display",
        )
    return subprocess.call([sys.executable, "-P", "-m", DOCK, str(root)])


def _demo(options: argparse.Namespace) -> int:
    """Run the demo."""
    demo = importlib.import_module("napari_histogan.demo")
    demo.run_demo(options.folder, options.start == "gan", not options.no_open, _console())
    return DONE


def _status(options: argparse.Namespace) -> int:
    """Tell what there is and what to do next."""
    from napari_histogan.cli_tables import status_json, status_tables
    from napari_histogan.jobs.runner import list_jobs
    from napari_histogan.project.overview import overview
    from napari_histogan.project.store import Project

    project = Project.open(options.project)
    found, jobs = overview(project), list_jobs(project.root)
    if options.json:
        print(json.dumps(status_json(project, found, jobs), indent=1))
    else:
        console = _console()
        for part in status_tables(project, found, jobs, str(options.project)):
            console.print(part)
    return DONE


def _rank(options: argparse.Namespace) -> int:
    """List what to paint next, as the dock's gallery does."""
    from napari_histogan.jobs.engine_client import ranked_samples
    from napari_histogan.project.store import Project

    project = Project.open(options.project)
    print("sample  uncertainty")
    for index, uncertainty in ranked_samples(project, options.samples)[: max(options.count, 1)]:
        print(f"{index:6d}  {uncertainty:11.3f}")
    return DONE


def _use_net(options: argparse.Namespace) -> int:
    """Go back to an older net, or to the newest."""
    from napari_histogan.project.net_in_use import use_net
    from napari_histogan.project.store import Project

    net = use_net(Project.open(options.project), options.net)
    print(f"{net} runs over slides until a newer net is trained")
    return DONE


def _estimate(options: argparse.Namespace) -> int:
    """Keep estimates of blocks, and tell which label values have enough."""
    from napari_histogan.labels.calibration import ENOUGH, LEAST
    from napari_histogan.project.calibrations import take_sheet
    from napari_histogan.project.store import Project

    project = Project.open(options.project)
    counts = take_sheet(project, project.artifact(options.blocks, "block_labels"), options.sheet)
    for value, count in counts.items():
        state = "enough" if count >= ENOUGH else f"{ENOUGH} are better" if count >= LEAST else "too few"
        print(f"{value}: {count} blocks, {state}")
    return DONE


def _show(options: argparse.Namespace) -> int:
    """Show one result."""
    from napari_histogan.cli_tables import artifact_json, artifact_text
    from napari_histogan.project.store import Project

    project = Project.open(options.project)
    artifact = project.find(options.artifact)
    if options.json:
        print(json.dumps(artifact_json(artifact), indent=1))
    else:
        print(artifact_text(artifact, project.family(artifact)))
    return DONE


def _export(options: argparse.Namespace) -> int:
    """Write pairs for other programs."""
    from napari_histogan.inference.pair_export import TABLE, export_png
    from napari_histogan.project.store import Project

    artifact = Project.open(options.project).find(options.artifact)
    count = export_png(artifact.path, options.folder)
    print(f"{artifact.id}: {count} pairs in {options.folder}; {options.folder / TABLE} lists them")
    return DONE


def _verify(options: argparse.Namespace) -> int:
    """Compare every result with its hashes."""
    from napari_histogan.project.artifacts import verify_all
    from napari_histogan.project.calibrations import damaged_calibrations
    from napari_histogan.project.store import Project

    project = Project.open(options.project)
    found = verify_all(project.root) | damaged_calibrations(project)
    for name, problems in found.items():
        print(f"{name}: {'; '.join(problems) or 'whole'}")
    damaged = sum(bool(problems) for problems in found.values())
    print(f"{len(found) - damaged} of {len(found)} results are whole")
    return FAILED if damaged else DONE


def _clean(options: argparse.Namespace) -> int:
    """Remove what nobody needs."""
    from napari_histogan.project.cleaning import leftovers, remove
    from napari_histogan.project.store import Project

    root = Project.open(options.project).root
    found = leftovers(root)
    for item in found:
        print(f"{item.path.relative_to(root)}: {item.why}, {item.size:,} bytes")
    freed = sum(item.size for item in found) if options.dry_run else remove(found)
    print(f"{freed:,} bytes {'would be' if options.dry_run else 'were'} freed")
    return DONE


def _backup(options: argparse.Namespace) -> int:
    """Save human work."""
    from napari_histogan.project.backup import back_up
    from napari_histogan.project.store import Project

    count = back_up(Project.open(options.project), options.file, options.force)
    print(f"{options.file}: {count} files of labels, {options.file.stat().st_size:,} bytes")
    return DONE


def _restore(options: argparse.Namespace) -> int:
    """Bring human work back."""
    from napari_histogan.project.backup import restore

    restored = restore(options.file, options.project, options.force)
    print(f"restored {options.file} into {restored.project.root}")
    for note in restored.notes:
        print(f"note: {note.replace('PROJECT', str(options.project))}")
    return DONE


if __name__ == "__main__":
    sys.exit(main())

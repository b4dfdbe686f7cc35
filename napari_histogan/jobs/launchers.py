"""Where jobs run: on this machine, on another one by ssh, or in the queue of a SLURM cluster.

The words ``local``, ``ssh HOST [PYTHON]``, or ``slurm [OPTIONS of sbatch]`` name a launcher.  Wherever it
runs, the worker is the same command on the same run folder, so both machines must see the project under
the same path; events, progress, and the request to stop go through that folder, and nothing listens on a
network port.  ``python -m napari_histogan.jobs.launchers RUN_DIR "ssh HOST"`` is the short-lived process that
talks to ssh or sbatch, so that neither napari nor a terminal waits for them; what it cannot do becomes
the error of the job.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from napari_histogan import __version__
from napari_histogan.errors import ConfigError, HistoganError, JobError
from napari_histogan.jobs.environment import DEFAULTS, child_environment
from napari_histogan.jobs.job import LOG_FILE, PROCESS_FILE
from napari_histogan.project.atomic import read_bytes, write_json
from napari_histogan.project.locks import now
from napari_histogan.project.runs import read_status, write_status

LOCAL = "local"
SETTING = "launcher"
"""Key of ``project.toml`` that holds the words of the launcher of a project's jobs."""

ANSWER_S = 60.0
"""Seconds that ssh and sbatch may take to answer."""

_NO_PROJECT, _NO_PROGRAM, _OTHER_VERSION = 66, 67, 68


@dataclass(frozen=True, slots=True)
class Launcher:
    """How the worker of a job is started.

    Attributes
    ----------
    kind
        "local", "ssh", or "slurm".
    host
        Of ssh, as its configuration knows it.
    python
        The Python there, with this program installed.
    options
        Further options of sbatch.
    """

    kind: Literal["local", "ssh", "slurm"] = "local"
    host: str = ""
    python: str = sys.executable
    options: tuple[str, ...] = ()


def parse_launcher(words: str) -> Launcher:
    """Return the launcher that some words name; "" is this machine.

    Raises
    ------
    ConfigError
        If they name none.

    Examples
    --------
    >>> parse_launcher("ssh gpu1 /opt/histogan/bin/python").host
    'gpu1'
    >>> parse_launcher("slurm --partition=gpu --gres=gpu:1").options
    ('--partition=gpu', '--gres=gpu:1')
    """
    try:
        kind, *rest = shlex.split(words) or [LOCAL]
    except ValueError:
        kind, rest = words, []
    if kind == "local" and not rest:
        return Launcher()
    if kind == "ssh" and 1 <= len(rest) <= 2 and not rest[0].startswith("-"):
        return Launcher("ssh", rest[0], rest[1] if rest[1:] else sys.executable)
    if kind == "slurm" and all(word.startswith("-") for word in rest):
        return Launcher("slurm", options=tuple(rest))
    raise ConfigError(
        f"the launcher {words!r} is not known",
        'local, "ssh HOST [PYTHON]", or "slurm [--option=value ...]"',
        "correct it",
    )


def worker_command(python: str, run_dir: Path, arguments: Sequence[str] = ()) -> list[str]:
    """Return the command that works on a run, wherever it is started."""
    # -P keeps files that lie in the present folder from being imported by mistake.
    return [python, "-P", "-m", "napari_histogan.jobs.worker", str(run_dir), *arguments]


def submit(launcher: Launcher, run_dir: Path, arguments: Sequence[str] = ()) -> dict[str, object]:
    """Start the worker of a run elsewhere; returns what ``process.json`` tells of it.

    Raises
    ------
    JobError
        If ssh or sbatch refuses, or the other machine lacks the project or this version of the program.
    """
    start = _by_ssh if launcher.kind == "ssh" else _by_slurm
    return {**start(launcher, run_dir, arguments), "at": time.time()}


def _by_ssh(launcher: Launcher, run_dir: Path, arguments: Sequence[str]) -> dict[str, object]:
    quoted, log = shlex.quote(launcher.python), shlex.quote(str(run_dir / LOG_FILE))
    settings = " ".join(f"{name}=${{{name}:-{value}}}" for name, value in DEFAULTS.items())
    command = shlex.join(worker_command(launcher.python, run_dir, arguments))
    script = (
        f"test -f {shlex.quote(str(run_dir / 'config.toml'))} || exit {_NO_PROJECT}; "
        f"v=$({quoted} -P -c 'import napari_histogan as n; print(n.__version__)') || exit {_NO_PROGRAM}; "
        f'echo "$v"; test "$v" = {__version__} || exit {_OTHER_VERSION}; '
        f"cd {shlex.quote(str(run_dir.parent.parent))}; "
        f"{settings} nohup {command} >> {log} 2>&1 < /dev/null &"
    )
    code, said, complaint = _ask(["ssh", "-o", "BatchMode=yes", launcher.host, script])
    if code == _NO_PROJECT:
        raise JobError(
            f"{launcher.host} does not see {run_dir}",
            "a folder that both machines share under the same path",
            "put the project on a shared disk, or mount it there",
        )
    if code in (_NO_PROGRAM, _OTHER_VERSION):
        what = f"version {said}" if said else complaint or "no napari-histogan"
        raise JobError(
            f"{launcher.python} on {launcher.host} has {what}",
            f"napari-histogan {__version__}",
            'install it there, or name another Python: "ssh HOST PYTHON"',
        )
    if code != 0:
        raise JobError(
            f"ssh {launcher.host} failed: {complaint or f'it ended with {code}'}",
            "a host that ssh reaches with a key, without asking for a password",
            f"try it in a terminal: ssh {launcher.host} true",
        )
    return {"pid": None, "host": launcher.host}


def _by_slurm(launcher: Launcher, run_dir: Path, arguments: Sequence[str]) -> dict[str, object]:
    command = ["sbatch", "--parsable", f"--job-name=histogan-{run_dir.name}", "--open-mode=append"]
    command += [f"--chdir={run_dir.parent.parent}", f"--output={run_dir / LOG_FILE}", *launcher.options]
    command += ["--wrap", "exec " + shlex.join(worker_command(launcher.python, run_dir, arguments))]
    code, said, complaint = _ask(command)
    number = said.split(";")[0].strip()
    if code != 0 or not number.isdecimal():
        raise JobError(
            f"sbatch failed: {complaint or said or f'it ended with {code}'}",
            "a cluster whose sbatch works on this machine",
            "check the options after slurm; they are handed to sbatch",
        )
    return {"pid": None, "host": "", "slurm": number}


def _ask(command: list[str]) -> tuple[int, str, str]:
    """Run a command that answers soon; returns exit code, output, and the last line of its complaints."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWER_S,
            env=child_environment(),
            check=False,
        )
    except FileNotFoundError as error:
        raise JobError(f"there is no {command[0]} on this machine", command[0], "install it") from error
    except subprocess.TimeoutExpired as error:
        raise JobError(
            f"{command[0]} gave no answer for {ANSWER_S:.0f} s", "an answer", "check the connection"
        ) from error
    complaints = done.stderr.strip().splitlines()
    return done.returncode, done.stdout.strip(), complaints[-1] if complaints else ""


def main(arguments: list[str] | None = None) -> int:
    """Start the worker of a run elsewhere; a failure becomes the job's error."""
    parser = argparse.ArgumentParser(
        prog="python -m napari_histogan.jobs.launchers", description=main.__doc__
    )
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("launcher")
    parser.add_argument("worker_arguments", nargs="*")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    run_dir = Path(os.path.abspath(options.run_dir))
    _wait_until_named(run_dir)
    try:
        told = submit(parse_launcher(options.launcher), run_dir, options.worker_arguments)
    except HistoganError as error:
        logging.getLogger("napari_histogan.jobs").error("%s", error)
        failure = {"type": type(error).__name__, "message": str(error)}
        write_status(run_dir, replace(read_status(run_dir), state="failed", ended=now(), error=failure))
        return 1
    write_json(run_dir / PROCESS_FILE, told, durable=False)
    return 0


def _wait_until_named(run_dir: Path) -> None:
    """Wait until whoever started this process has written so: what comes next replaces it."""
    for _ in range(100):
        with suppress(OSError, ValueError):
            if json.loads(read_bytes(run_dir / PROCESS_FILE)).get("pid") == os.getpid():
                return
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())

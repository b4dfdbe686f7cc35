"""Disturb stages and human work, go on, and compare with what was never disturbed.

``python tests/faults/campaign.py [NAME ...] --fault kill --count 50 --seed 0`` prints one JSON object
a name.  The faults, each at a random moment of the work:

- ``kill``: SIGKILL, after some time or right before one of the work's changes to files;
- ``stop``: SIGTERM or SIGINT after some time;
- ``full``: no file may grow beyond a random size, as on a disk that is full (``EFBIG``);
- ``clock``: the time of day jumps back by a day, and the process is killed later.

Then the same work is begun again, until it ends.  In between everything that readers see must be
whole, at times ``histogan clean`` runs as well, and in the end the project must hold, byte for byte,
what the undisturbed one holds: the same results, the same files, nothing temporary, no lock.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import torch
from workshop import HUMAN_WORK, build, stage_cases

from napari_histogan import pipeline
from napari_histogan.config import StageConfig
from napari_histogan.jobs import worker
from napari_histogan.jobs.job import Job
from napari_histogan.project.artifacts import KINDS, verify_all
from napari_histogan.project.cleaning import leftovers, remove
from napari_histogan.project.store import Project
from napari_histogan.training import train_pixel_classifier

CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.truncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
PATIENCE_S = 240
CALM_RUNS = 100
FAULTS = ("kill", "stop", "full", "clock")


@dataclass(frozen=True)
class Moment:
    """A fault: a signal after some seconds or before one of the changes to files, or a size of files.

    The default is no fault.
    """

    signal: int = signal.SIGKILL
    seconds: float | None = None
    change: int | None = None
    largest: int | None = None
    clock: bool = False


@dataclass
class Tally:
    """What came of one name."""

    name: str
    fault: str
    count: int = 0
    survived: int = 0
    runs: int = 0
    failures: list[str] = field(default_factory=list)


class _Counter:
    """Counts changes to files in a child, and kills it before one of them."""

    def __init__(self, last: int | None, tell: int) -> None:
        self._last, self._tell, self._count = last, tell, 0
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES or (event == "open" and (arguments[2] or 0) & WRITING):
            if self._last is not None and self._count >= self._last:
                os.kill(os.getpid(), signal.SIGKILL)
            self._count += 1

    def report(self) -> None:
        """Tell the parent how many there were."""
        os.write(self._tell, str(self._count).encode())


def in_child(work: Callable[[], int], log: Path, moment: Moment) -> tuple[int, float, int]:
    """Do some work in a forked process; returns exit code (negative for a signal), seconds, and changes."""
    read, write = os.pipe()
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        os.setsid()
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        code = 70
        try:
            counter = _Counter(moment.change, write)
            _prepare(moment)
            code = work()
            counter.report()
        except KeyboardInterrupt:  # what ends a program that does not listen
            code = 130
        except BaseException:  # noqa: BLE001 - the parent judges
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(write)
    alarm = threading.Timer(PATIENCE_S, os.kill, (pid, signal.SIGKILL))
    alarm.start()
    told = os.read(read, 32)
    os.close(read)
    _, status = os.waitpid(pid, 0)
    alarm.cancel()
    seconds = time.monotonic() - started
    if seconds > PATIENCE_S:
        raise RuntimeError(f"hangs; see {log}")
    return os.waitstatus_to_exitcode(status), seconds, int(told or 0)


def _prepare(moment: Moment) -> None:
    """Set up a fault in the process that it will befall."""
    if moment.largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (moment.largest, resource.RLIM_INFINITY))
    if moment.clock:
        now, begun = time.time, time.monotonic()
        turn = begun + (moment.seconds or 0.0) / 2
        time.time = lambda: now() - (86_400 if time.monotonic() > turn else 0)
    if moment.seconds is not None:

        def strike() -> None:
            time.sleep(moment.seconds or 0.0)
            os.kill(os.getpid(), moment.signal)

        threading.Thread(target=strike, daemon=True).start()


class Trial:
    """One copy of the finished project, and one piece of work on it."""

    def __init__(self, home: Path, place: Path, name: str, config: StageConfig | None) -> None:
        self.name, self.place, self.config = name, place, config
        place.mkdir()
        shutil.copytree(home / "project", place / "project")
        shutil.copyfile(home / "home.zip", place / "home.zip")
        self.root = place / "project"
        self.before = set(verify_all(self.root))
        self.run_dir = Project.open(self.root).new_run(config) if config else None

    def work(self, moment: Moment = Moment()) -> tuple[int, float, int]:
        """Begin or go on; see :func:`in_child`."""

        def act() -> int:
            if self.run_dir is not None:
                return worker.main([str(self.run_dir)])
            HUMAN_WORK[self.name].act(Project.open(self.root))
            return 0

        return in_child(act, self.place / "log.txt", moment)

    def problems(self) -> list[str]:
        """Return what is wrong for somebody who looks at the project now, while nobody works in it."""
        project = Project.open(self.root)
        found = [f"{k}: {v}" for k, v in verify_all(self.root).items() if v]
        mine = {f"{KINDS[self.config.result]}/{self._number:04d}"} if self.config else set()
        found += [f"{k} appeared" for k in set(verify_all(self.root)) - self.before - mine]
        for one in (project._jobs, project._write):
            found += [f"the lock {one._told.name} is held"] if one.is_held() else []
        told = Job(self.run_dir).status() if self.run_dir is not None else None
        if told is not None and told.state in ("queued", "running") and told.pid is not None:
            found.append("the job looks alive")
        if self.run_dir is not None:
            found += [f"config: {why}"] if (why := Job(self.run_dir).unreadable()) else []
        project.corrections()
        return found

    @property
    def _number(self) -> int:
        return Job(self.run_dir).number if self.run_dir else 0

    def log(self) -> str:
        """Return the end of what the processes said."""
        return (self.place / "log.txt").read_text()[-2500:]

    def clean(self) -> None:
        """Remove leftovers, as ``histogan clean`` does a minute later."""
        for root in (self.root, self.place / "restored"):
            remove(leftovers(root, settled_s=0.0))

    def content(self) -> dict[str, str]:
        """Return what is compared: paths, and hashes of the new result's files."""
        self.clean()
        found = {str(p.relative_to(self.place)): "" for p in self.place.rglob("*") if p.name != "log.txt"}
        if self.config:
            folder = self.root / KINDS[self.config.result] / f"{self._number:04d}"
            record = json.loads((folder / "artifact.json").read_bytes())
            found |= {f"{folder.name}:{name}": digest for name, digest in record["files"].items()}
        return found


class Campaign:
    """Trials of one name, against a run that nobody disturbs."""

    def __init__(self, home: Path, name: str, config: StageConfig | None, fault: str, seed: int) -> None:
        self.home, self.name, self.config = home, name, config
        self.rng = random.Random(f"{seed}/{name}/{fault}")
        self.tally = Tally(name, fault)
        self.place = home / "trials"
        self.place.mkdir(exist_ok=True)
        trial = self._trial()
        code, self.seconds, self.changes = trial.work()
        if code != 0:
            raise RuntimeError(f"{name} ends with {code}: {trial.log()}")
        self.look = in_child_value(trial) if config is None else None
        self.expected = trial.content()
        shutil.rmtree(trial.place)

    def _trial(self) -> Trial:
        self.tally.runs += 1
        place = self.place / f"{self.name.replace(' ', '-')}-{self.tally.runs}"
        return Trial(self.home, place, self.name, self.config)

    def go(self, count: int, most: int) -> Tally:
        """Disturb until there were so many faults, at most ``most`` in one run of the work.

        Ends as well once :data:`CALM_RUNS` runs in a row were over before their fault: it cannot strike here.
        """
        missed = 0
        while self.tally.count < count and len(self.tally.failures) < 5 and missed < CALM_RUNS:
            trial, struck, moments = self._trial(), 0, []
            try:
                while True:
                    calm = struck >= most or self.tally.count >= count
                    moments.append(Moment() if calm else self._moment())
                    code, _, _ = trial.work(moments[-1])
                    if code == 0:
                        break
                    self._require_expected(trial, code, moments[-1])
                    struck += 1
                    self.tally.count += 1
                    if wrong := trial.problems():
                        raise AssertionError("; ".join(wrong))
                    if self.rng.random() < 0.5:
                        trial.clean()
                self._judge(trial)
                self.tally.survived += struck
                missed = 0 if struck else missed + 1
                shutil.rmtree(trial.place)
            except Exception as error:  # noqa: BLE001 - counted and told
                self.tally.failures.append(f"{moments}: {type(error).__name__}: {error}\n{trial.log()}")
        return self.tally

    def _moment(self) -> Moment:
        fault, late = self.tally.fault, self.rng.uniform(0, self.seconds)
        if fault == "full":
            return Moment(largest=int(10 ** self.rng.uniform(3.0, 3.3)))  # a status always fits
        if fault == "stop":
            return Moment(signal=self.rng.choice((signal.SIGTERM, signal.SIGINT)), seconds=late)
        if fault == "kill" and self.rng.random() < 0.5 and self.changes:
            return Moment(change=self.rng.randrange(self.changes))
        return Moment(seconds=late, clock=fault == "clock")

    def _require_expected(self, trial: Trial, code: int, moment: Moment) -> None:
        """Raise unless the fault, and nothing else, ended the work."""
        if moment == Moment():
            raise AssertionError(f"ended with {code}, undisturbed")
        if moment.seconds is not None and code in (-moment.signal, 128 + moment.signal):
            return  # before it listens, a process ends at once
        if moment.largest is not None:
            # The log is a file as well, and cut off.
            text = trial.log() + str(Job(trial.run_dir).status().error if trial.run_dir else "")
            full = "the disk is full" in text or "free space" in text or "File too large" in text
            wrong = code < 0 or not full
        elif moment.signal == signal.SIGKILL:
            wrong = code != -signal.SIGKILL
        else:
            wrong = code != worker.EXIT["stopped"]
        if wrong:
            raise AssertionError(f"ended with {code}")

    def _judge(self, trial: Trial) -> None:
        if wrong := trial.problems():
            raise AssertionError("; ".join(wrong))
        if self.config is None and in_child_value(trial) != self.look:
            raise AssertionError("what is there differs from the undisturbed")
        content = trial.content()
        other = {
            key
            for key in self.expected.keys() | content.keys()
            # How many earlier versions of human work there are depends on where it was begun again.
            if self.expected.get(key) != content.get(key) and "history" not in key
        }
        if other:
            raise AssertionError(f"{len(other)} differ, such as {sorted(other)[:8]}")


def in_child_value(trial: Trial) -> str:
    """Return a digest of what human work left, computed in a child."""
    import hashlib

    place = trial.place / "look.txt"

    def look() -> int:
        value = repr(HUMAN_WORK[trial.name].look(Project.open(trial.root)))
        place.write_text(hashlib.sha256(value.encode()).hexdigest())
        return 0

    if in_child(look, trial.place / "log.txt", Moment())[0] != 0:
        raise AssertionError("what is there cannot be read")
    found = place.read_text()
    place.unlink()
    return found


def prepare(home: Path) -> None:
    """Build the project and a backup of it in a child, so that this process stays fit for forking.

    What the child had to import is imported here as well, once for all runs: or most of each run, and
    most kills, would fall into imports.
    """

    def make() -> int:
        from napari_histogan.project.backup import back_up

        back_up(build(home), home / "home.zip")
        (home / "modules.json").write_text(json.dumps(list(sys.modules)))
        return 0

    code, _, _ = in_child(make, home / "build.log", Moment())
    if code != 0:
        raise RuntimeError((home / "build.log").read_text()[-3000:])
    for name in json.loads((home / "modules.json").read_text()):
        with suppress(Exception):  # not every name can be imported by itself
            importlib.import_module(name)
    if (threads := threading.active_count()) != 1:
        raise RuntimeError(f"{threads} threads: too many to fork")


def main() -> int:
    """Run campaigns; 1 if anything went wrong."""
    names = [*pipeline.STAGE_FUNCTIONS, *HUMAN_WORK]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", default=names, help=f"of {', '.join(names)}")
    parser.add_argument("--fault", choices=FAULTS, nargs="+", default=["kill"])
    parser.add_argument("--count", type=int, default=50, help="faults for each name")
    parser.add_argument("--most", type=int, default=4, help="faults in one run of the work")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train_pixel_classifier.CHECKPOINT_SECONDS = 0.0
    failed = False
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        home = Path(folder).resolve()
        prepare(home)
        for name, fault in product(arguments.names, arguments.fault):
            config = stage_cases(home).get(name)
            if config is None and fault == "clock":
                continue  # what people do is saved at once; only jobs measure time
            started = time.monotonic()
            campaign = Campaign(home, name, config, fault, arguments.seed)
            tally = campaign.go(arguments.count, arguments.most)
            told = {**vars(tally), "undisturbed_s": round(campaign.seconds, 2), "changes": campaign.changes}
            told["took_s"] = round(time.monotonic() - started, 1)
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()
            failed |= bool(tally.failures) or tally.survived < arguments.count
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

"""Feed damaged files to one reader and judge what comes out.

``python tests/hostile/campaign.py READER --count 10000 --seed 0`` prints one JSON object.  The
right outcome of every input is a correct read or one of our own errors, within a time and a memory
limit, without a process started, a connection made, or a file written outside the folder.  The
number of an input makes it again: ``--only NUMBER``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from mutations import damaged  # noqa: E402
from readers import READERS, Reader  # noqa: E402

from napari_histogan.errors import HistoganError  # noqa: E402

SECONDS = 30
MEMORY_BYTES = 1500 * 2**20
FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "socket.connect",
    "pty.spawn",
)


class Judge:
    """Watches what the reader does to the machine, through Python's audit events."""

    def __init__(self, allowed: Path) -> None:
        self.offenses: list[str] = []
        self._allowed = os.path.realpath(allowed)
        self._armed = False
        sys.addaudithook(self._watch)

    def arm(self, armed: bool) -> None:
        """Watch from now on, or no longer."""
        self._armed = armed

    def _watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._armed:
            return
        if event in FORBIDDEN:
            self.offenses.append(f"{event} {arguments!r:.200}")
        elif event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            mode, flags = arguments[1] or "", arguments[2] or 0
            if set("wax+") & set(mode) or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._check(os.fsdecode(arguments[0]))
        elif event in ("os.remove", "os.mkdir", "os.rmdir") and arguments[-1] == -1:  # -1: no folder handle
            self._check(os.fsdecode(arguments[0]))
        elif event == "os.rename":
            self._check(os.fsdecode(arguments[1]))

    def _check(self, path: str) -> None:
        real = os.path.realpath(path)
        inside = real == self._allowed or real.startswith(self._allowed + os.sep)
        if not inside and not real.startswith(("/dev/", "/proc/")):
            self.offenses.append(f"wrote {real}")


class TooSlow(BaseException):
    """An input took longer than it may; no reader can swallow this as its own error."""


def run(name: str, count: int, seed: int, only: int | None = None, verbose: bool = False) -> dict[str, Any]:
    """Return how many inputs were read or refused, and each that went wrong."""
    reader = READERS[name]
    with tempfile.TemporaryDirectory(prefix="hostile-") as scratch:
        whole = Path(scratch).resolve() / "whole"
        whole.mkdir()
        files = [path.relative_to(whole) for path in reader.prepare(whole)]
        for relative in files:
            reader.read(whole / relative)  # whole files are read, or the campaign means nothing
        return _fire(reader, whole, files, range(count) if only is None else [only], seed, verbose)


def _fire(
    reader: Reader, whole: Path, files: list[Path], numbers: Any, seed: int, verbose: bool
) -> dict[str, Any]:
    target = whole.parent / "target"
    judge = Judge(whole.parent)
    seeds = [(whole / relative).read_bytes() for relative in files]
    outcome: dict[str, Any] = {"tried": 0, "read": 0, "refused": 0, "failures": []}
    limit = _bytes_in_use() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, _too_slow)
    shutil.copytree(whole, target)
    for number in numbers:
        rng = random.Random(f"{seed}/{number}")
        relative = rng.choice(files)
        (target / relative).write_bytes(damaged((whole / relative).read_bytes(), rng, seeds))
        sys.stderr.write(f"{number}\n")  # a crash of the process names its input
        verdict = _judge(reader, target / relative, judge)
        outcome["tried"] += 1
        if verdict in ("read", "refused"):
            outcome[verdict] += 1
        else:
            outcome["failures"].append({"number": number, "file": str(relative), "what": verdict})
        if verbose:
            sys.stdout.write(f"{number} {relative}: {verdict}\n")
        _restore(whole, target, relative)
    return outcome


def _judge(reader: Reader, path: Path, judge: Judge) -> str:
    signal.alarm(SECONDS)
    judge.arm(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(path)
        verdict = "read"
    except HistoganError:
        verdict = "refused"
    except TooSlow:
        verdict = f"took longer than {SECONDS} s"
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is judged
        place = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in place if "napari_histogan" in frame.filename] or list(place)
        verdict = (
            f"{type(error).__name__}: {error!s:.200} at {Path(ours[-1].filename).name}:{ours[-1].lineno}"
        )
    finally:
        signal.alarm(0)
        judge.arm(False)
    if judge.offenses:
        verdict = "; ".join(judge.offenses)
        judge.offenses.clear()
    return verdict


def _restore(whole: Path, target: Path, relative: Path) -> None:
    """Make the folder whole again; what the reader wrote beside its files goes."""
    (target / relative).unlink(missing_ok=True)
    shutil.copyfile(whole / relative, target / relative)
    shutil.rmtree(target / "restored", ignore_errors=True)


def _bytes_in_use() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _too_slow(signum: int, frame: Any) -> None:
    raise TooSlow


def main() -> int:
    """Run one campaign; 1 if an input went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("reader", choices=sorted(READERS))
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int)
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    outcome = run(arguments.reader, arguments.count, arguments.seed, arguments.only, arguments.verbose)
    sys.stdout.write(json.dumps({"reader": arguments.reader, **outcome}) + "\n")
    return int(bool(outcome["failures"]))


if __name__ == "__main__":
    sys.exit(main())

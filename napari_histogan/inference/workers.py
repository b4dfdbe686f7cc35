"""Other machines' processes: connect to a dask scheduler, check its workers, and let them do tasks.

Tasks are files in, files out: they take paths, write what they make to a folder that this process and every
worker see, and return nothing.  So a lost worker costs the tasks that it was at, and no more.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from napari_histogan import __version__
from napari_histogan.errors import ConfigError, HistoganError, JobError, Stopped

RETRIES = 2
"""So often a task that raised an error is tried again."""

LONELY_S = 60.0
"""Seconds to wait for a worker while there is none."""

_CONNECT_S = 10.0
_LOOK_S = 0.05
Task = TypeVar("Task")


class Workers:
    """The workers of a scheduler.

    Parameters
    ----------
    client
        A connected ``distributed.Client``.
    address
        Of the scheduler, for messages.
    lonely_s
        Seconds to wait for a worker while there is none.
    """

    def __init__(self, client: Any, address: str, lonely_s: float = LONELY_S) -> None:
        self._client, self._address, self._lonely_s = client, address, lonely_s

    def check(self, folder: Path) -> None:
        """Refuse workers of another version, and workers that do not see ``folder``.

        Raises
        ------
        JobError
            Naming the workers.
        """
        token = folder / f".seen-{uuid.uuid4().hex}"
        token.write_text(token.name, encoding="utf-8")
        try:
            self._wait_for_one()
            found = self._client.run(_look, str(token))
        except HistoganError:
            raise
        except Exception as error:
            raise JobError(
                f"the workers of {self._address} cannot run this program ({error})",
                f"napari-histogan {__version__} where each worker runs",
                "install the same version there, and restart the workers",
            ) from error
        finally:
            token.unlink()
        other = sorted(
            f"{worker} has {version}" for worker, (version, _) in found.items() if version != __version__
        )
        if other:
            raise JobError(
                f"workers have another version: {', '.join(other)}",
                f"napari-histogan {__version__} on each",
                "install the same version there, and restart the workers",
            )
        blind = sorted(worker for worker, (_, sees) in found.items() if not sees)
        if blind:
            raise JobError(
                f"the workers {', '.join(blind)} do not see {folder}",
                "a folder that all machines share under the same path",
                "put the project on a shared disk, or use workers on this machine",
            )

    def count(self) -> int:
        """Return how many workers there are now."""
        return len(self._client.nthreads())

    def map(
        self,
        function: Callable[[Task], object],
        tasks: Sequence[Task],
        done: Callable[[Task], None],
        should_stop: Callable[[], bool],
        failed: Callable[[Task, HistoganError], None] | None = None,
    ) -> None:
        """Let the workers do tasks, and call ``done`` for each as it ends, in any order.

        A task whose worker is lost is given to another one.  With ``failed``, a task that raised one of our
        errors after :data:`RETRIES` more tries, or that lost several workers, is told to it instead, and
        the others go on.

        Raises
        ------
        Stopped
            If ``should_stop`` says so; tasks that have ended were told.
        HistoganError
            What a task raised, after :data:`RETRIES` more tries.
        JobError
            If the scheduler or all workers are lost, or a task loses several workers.
        """
        from distributed import KilledWorker, as_completed

        waiting = {self._client.submit(function, t, retries=RETRIES, pure=False): t for t in tasks}
        seen = time.monotonic()
        try:
            results = as_completed(waiting, loop=self._client.loop)
            while waiting:
                if should_stop():
                    raise Stopped(f"stopped with {len(waiting)} tasks left")
                ended = results.next_batch(block=False)
                for future in ended:
                    try:
                        future.result()
                    except (HistoganError, KilledWorker) as error:
                        if failed is None:
                            raise
                        failed(waiting.pop(future), _as_ours(error))
                        continue
                    done(waiting.pop(future))
                if not ended:
                    time.sleep(_LOOK_S)
                if ended or self._client.nthreads():
                    seen = time.monotonic()
                elif time.monotonic() - seen > self._lonely_s:
                    raise self._nobody(self._lonely_s)
        except KilledWorker as error:
            raise _as_ours(error) from error
        except (HistoganError, Stopped):
            raise
        except OSError as error:
            raise JobError(
                f"the scheduler {self._address} was lost ({error})",
                "a scheduler that stays",
                "start it again and resume; what is written stays",
            ) from error
        except BaseException as error:
            # distributed cancels all futures when the connection breaks; its error may be no Exception.
            if type(error).__name__ in ("CancelledError", "FutureCancelledError"):
                raise JobError(
                    f"the scheduler {self._address} was lost ({error})",
                    "a scheduler that stays",
                    "start it again and resume; what is written stays",
                ) from error
            raise
        finally:
            self._client.cancel(list(waiting), force=True)

    def _wait_for_one(self) -> None:
        """Wait until there is a worker."""
        end = time.monotonic() + min(self._lonely_s, _CONNECT_S)
        while not self._client.nthreads():
            if time.monotonic() > end:
                raise self._nobody(min(self._lonely_s, _CONNECT_S))
            time.sleep(_LOOK_S)

    def _nobody(self, seconds: float) -> JobError:
        return JobError(
            f"the scheduler {self._address} had no worker for {seconds:.0f} s",
            "one worker or more",
            f"start workers with: dask worker {self._address}",
        )


def _as_ours(error: Exception) -> HistoganError:
    """Return one of our errors as it is, and the loss of several workers in our words."""
    if isinstance(error, HistoganError):
        return error
    return JobError(
        f"a task was lost with several workers, one after another ({error})",
        "workers with enough memory for a task",
        "give the workers more memory, or lower shard or batch, and resume",
    )


def _look(token: str) -> tuple[str, bool]:
    """Tell, on a worker, its version and whether it sees a file."""
    return __version__, Path(token).is_file()


@contextmanager
def connect(address: str, timeout_s: float = _CONNECT_S, lonely_s: float = LONELY_S) -> Iterator[Workers]:
    """Connect to a scheduler.

    Parameters
    ----------
    address
        Such as ``tcp://host:8786``.
    timeout_s
        Seconds to wait for an answer.
    lonely_s
        See :class:`Workers`.

    Raises
    ------
    ConfigError
        If ``distributed`` is not installed.
    JobError
        If the scheduler does not answer.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ConfigError(
            f"the scheduler {address} was asked for, but the package distributed is not installed",
            "distributed, on this machine and on the workers",
            'pip install "napari-histogan[scale]"',
        ) from error
    try:
        client = Client(address, timeout=timeout_s, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise JobError(
            f"no scheduler answers at {address}",
            "a running dask scheduler of about the same version",
            "start one with: dask scheduler; then give the address that it prints",
        ) from error
    with client:
        yield Workers(client, address, lonely_s)

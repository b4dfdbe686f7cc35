"""How the command line follows, stops, and resumes jobs."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from napari_histogan.errors import JobError

if TYPE_CHECKING:
    from napari_histogan.jobs.job import Job

DONE, FAILED, STOPPED = 0, 1, 3
"""Exit codes of the command line; 2 means that it was not understood."""


def detached(job: Job) -> int:
    """Say how to come back to a job."""
    print(f"{job.run_dir.name} works in the background; see: histogan status {job.project_root}")
    return DONE


def follow(job: Job, offset: int = 0) -> int:
    """Show a job's progress until it ends; Ctrl-C asks it to stop, a second one leaves it alone."""
    from rich.console import Console

    from napari_histogan.cli_progress import JobDisplay
    from napari_histogan.jobs.runner import follow_job

    interrupts, asked = 0, False
    with JobDisplay(Console(highlight=False, soft_wrap=True), job.run_dir.name) as display:
        while True:
            try:
                if interrupts and not asked:
                    asked, offset = True, job.events()[1]
                    job.request_stop()
                    display.say("asked to stop; it saves its state first (Ctrl-C again leaves it alone)")
                for event in follow_job(job, offset):
                    if event is not None:
                        display.show(event)
                break
            except KeyboardInterrupt:
                interrupts += 1
                if interrupts > 1:
                    display.say("left alone; it stops by itself")
                    return STOPPED
    status = job.status()
    if status.state == "done":
        _tell_result(job, status.artifact)
        return DONE
    if status.state == "stopped":
        print(f"{job.run_dir.name}: stopped; go on with: histogan resume {job.project_root} {job.number}")
        return STOPPED
    print(f"histogan: {(status.error or {}).get('message', 'the job failed')}", file=sys.stderr)
    return FAILED


def _tell_result(job: Job, artifact: str) -> None:
    """Say what a finished job made, and of an evaluation the main figures."""
    from napari_histogan.cli_tables import summary_lines
    from napari_histogan.project.artifacts import read_artifact

    print(f"{job.run_dir.name}: done, {artifact}")
    if job.stage == "evaluate":
        print("\n".join(summary_lines(read_artifact(job.project_root / artifact).summary)))


def _pick_job(options: argparse.Namespace, states: tuple[str, ...], what: str) -> Job:
    """Return the run that the command names, or the newest in one of some states."""
    from napari_histogan.jobs.runner import list_jobs
    from napari_histogan.project.store import Project

    jobs = list_jobs(Project.open(options.project).root)
    if options.run_number:
        number = options.run_number.split("-")[0]
        named = [job for job in jobs if number.isdecimal() and job.number == int(number)]
        if not named:
            names = ", ".join(job.run_dir.name for job in jobs) or "one; there are none"
            raise JobError(f"there is no run {options.run_number!r}", names)
        return named[0]
    fitting = [job for job in jobs if job.status().state in states]
    if not fitting:
        raise JobError(f"no job {what}", "", "look with: histogan status PROJECT")
    return fitting[-1]


def stop(options: argparse.Namespace) -> int:
    """Ask a job to stop."""
    job = _pick_job(options, ("running", "queued"), "is at work")
    if not job.is_alive():
        raise JobError(f"{job.run_dir.name} is not at work; it is {job.status().state}")
    job.request_stop()
    print(f"{job.run_dir.name} was asked to stop; it saves its state first")
    return DONE


def resume(options: argparse.Namespace) -> int:
    """Resume a job and follow it."""
    from napari_histogan.jobs.runner import resume_job

    found = _pick_job(options, ("stopped", "failed"), "is stopped or failed")
    status, offset = found.status(), found.events()[1]
    if status.state == "done":
        print(f"{found.run_dir.name} is finished already; it made {status.artifact}")
        return DONE
    job = resume_job(found.run_dir, launcher=options.launcher)
    return detached(job) if options.detach else follow(job, offset)

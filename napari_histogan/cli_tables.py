"""What ``histogan status`` and ``histogan show`` say, as tables, text, and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from napari_histogan.cli_progress import duration
from napari_histogan.jobs.job import Job, JobStatus
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.family import FamilyNode
from napari_histogan.project.net_in_use import net_in_use
from napari_histogan.project.overview import Overview, StageState
from napari_histogan.project.store import Project

MAX_JOBS = 10
"""Jobs shown beside those that are at work."""


def status_tables(
    project: Project, found: Overview, jobs: Sequence[Job], shown_root: str
) -> Iterator[RenderableType]:
    """Yield what ``histogan status`` prints.

    Parameters
    ----------
    project, found, jobs
        What to tell about.
    shown_root
        The folder as the user named it, for commands to copy.
    """
    names = ", ".join(project.classes.names) or "no classes yet"
    yield f"[bold]{escape(project.name)}[/bold]  {escape(str(project.root))}"
    yield f"{len(project.slides())} slides; classes: {escape(names)}"
    table = Table("stage", "newest", "made", "what it says", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for state in found.stages:
        behind = f"[yellow]behind: {escape(state.behind)}[/yellow]" if state.behind else _summary(state)
        table.add_row(state.stage.replace("_", "-"), state.newest or "-", str(state.count or "-"), behind)
    yield table
    if net := net_in_use(project):
        newest = net == project.artifact("", "segmenter").id
        yield f"net in use: {net}{'' if newest else ', not the newest; histogan use-net PROJECT changes it'}"
    if jobs:
        yield _job_table(jobs)
    yield escape(next_step(found, jobs).replace("PROJECT", shown_root))


def next_step(found: Overview, jobs: Sequence[Job]) -> str:
    """Return the next step, with what jobs are doing about it already."""
    for job in reversed(jobs):
        state = job.status().state
        if state in ("queued", "running"):
            return f"{job.run_dir.name} is at work; end it with: histogan stop PROJECT {job.number}"
    newest = next((job for job in reversed(jobs) if job.stage == found.next_stage), None)
    ended: str = newest.status().state if newest is not None else ""
    if newest is not None and ended in ("stopped", "failed"):
        return f"{newest.run_dir.name} is {ended}; go on with: histogan resume PROJECT {newest.number}"
    return found.next_step


def status_json(project: Project, found: Overview, jobs: Sequence[Job]) -> dict[str, Any]:
    """Return what ``histogan status --json`` prints."""
    return {
        "name": project.name,
        "root": str(project.root),
        "classes": project.classes.to_dicts(),
        "slides": [entry.to_dict() for entry in project.slides()],
        "stages": [asdict(state) for state in found.stages],
        "jobs": [{"run": job.run_dir.name, **asdict(job.status())} for job in jobs],
        "net_in_use": net_in_use(project),
        "next_stage": found.next_stage,
        "next_step": next_step(found, jobs),
    }


def artifact_text(artifact: Artifact, family: FamilyNode) -> str:
    """Return what ``histogan show`` prints."""
    head = f"{artifact.id}  {artifact.stage}, {artifact.created}, version {artifact.program_version}"
    lines = [head, f"folder  {artifact.path}", f"hash    {artifact.hash}", "", "summary"]
    lines += summary_lines(artifact.summary)
    lines += ["", "settings"]
    lines += summary_lines(artifact.config)
    lines += ["", "made from"]
    lines += [f"  {line}" for line in family.lines()]
    return "\n".join(lines)


def summary_lines(values: Mapping[str, Any]) -> list[str]:
    """Return names and values, one line each, for people."""
    return [f"  {key} = {shown(value)}" for key, value in values.items()]


def shown(value: Any) -> str:
    """Return a value as people read it: four digits, lists without brackets, "none" for nothing.

    Examples
    --------
    >>> shown({"dice": 0.123456, "froc": None})
    'dice 0.1235, froc none'
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and abs(value) >= 1e4 else f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {shown(item)}" for key, item in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(shown(item) for item in value) or "none"
    return "none" if value is None or value == "" else str(value)


def artifact_json(artifact: Artifact) -> dict[str, Any]:
    """Return what ``histogan show --json`` prints."""
    return {**asdict(artifact), "path": str(artifact.path)}


def _job_table(jobs: Sequence[Job]) -> Table:
    """Return the newest jobs, and all that are at work."""
    table = Table("run", "state", "progress", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for job, status in _worth_showing(jobs):
        alive = status.state in ("queued", "running")
        unreadable = job.unreadable()
        if unreadable:
            table.add_row(job.run_dir.name, "unreadable", escape(unreadable))
            continue
        progress = job.progress()
        told = escape((status.error or {}).get("message", "")) or status.artifact
        if alive and progress is not None:
            left = duration(progress.seconds_left)
            told = escape(f"{progress.message} {progress.fraction:.0%} {left}".strip())
        table.add_row(job.run_dir.name, status.state, told)
    return table


def _worth_showing(jobs: Sequence[Job]) -> list[tuple[Job, JobStatus]]:
    """Leave out old runs, and failures that a later failure or success of their stage has overtaken."""
    all_of = [(job, job.status()) for job in jobs]
    overtaken_by = {job.stage: job.number for job, status in all_of if status.state in ("done", "failed")}
    found = [
        (job, status)
        for job, status in all_of
        if status.state != "failed" or overtaken_by[job.stage] == job.number
    ]
    old = len(found) - MAX_JOBS
    return [
        pair for place, pair in enumerate(found) if place >= old or pair[1].state in ("queued", "running")
    ]


def _summary(state: StageState) -> str:
    """Return the first few numbers of a summary."""
    parts = []
    for key, value in list(state.summary.items())[:4]:
        parts.append(f"{key} {shown(value)[:40]}")
    return escape(", ".join(parts))

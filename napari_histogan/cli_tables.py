"""What ``histogan status`` and ``histogan show`` say, as tables, text, and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from napari_histogan.cli_progress import duration
from napari_histogan.jobs.job import Job
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.family import FamilyNode
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
        table.add_row(state.stage, state.newest or "-", str(state.count or "-"), behind)
    yield table
    if jobs:
        yield _job_table(jobs)
    yield escape(next_step(found, jobs).replace("PROJECT", shown_root))


def next_step(found: Overview, jobs: Sequence[Job]) -> str:
    """Return the next step, with what jobs are doing about it already."""
    for job in reversed(jobs):
        state = job.status().state
        if state in ("queued", "running"):
            return f"{job.run_dir.name} is at work; end it with: histogan stop PROJECT {job.number}"
        if job.stage == found.next_stage and state in ("stopped", "failed"):
            return f"{job.run_dir.name} is {state}; go on with: histogan resume PROJECT {job.number}"
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
        "next_stage": found.next_stage,
        "next_step": next_step(found, jobs),
    }


def artifact_text(artifact: Artifact, family: FamilyNode) -> str:
    """Return what ``histogan show`` prints."""
    head = f"{artifact.id}  {artifact.stage}, {artifact.created}, version {artifact.program_version}"
    lines = [head, f"folder  {artifact.path}", f"hash    {artifact.hash}", "", "summary"]
    lines += [f"  {key} = {value}" for key, value in artifact.summary.items()]
    lines += ["", "settings"]
    lines += [f"  {key} = {value}" for key, value in artifact.config.items()]
    lines += ["", "made from"]
    lines += [f"  {line}" for line in family.lines()]
    return "\n".join(lines)


def artifact_json(artifact: Artifact) -> dict[str, Any]:
    """Return what ``histogan show --json`` prints."""
    return {**asdict(artifact), "path": str(artifact.path)}


def _job_table(jobs: Sequence[Job]) -> Table:
    """Return the newest jobs, and all that are at work."""
    table = Table("run", "state", "progress", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, job in enumerate(jobs):
        status = job.status()
        alive = status.state in ("queued", "running")
        if not alive and place < len(jobs) - MAX_JOBS:
            continue
        progress = job.progress()
        told = escape((status.error or {}).get("message", "")) or status.artifact
        if alive and progress is not None:
            left = duration(progress.seconds_left)
            told = escape(f"{progress.message} {progress.fraction:.0%} {left}".strip())
        table.add_row(job.run_dir.name, status.state, told)
    return table


def _summary(state: StageState) -> str:
    """Return the first few numbers of a summary."""
    parts = []
    for key, value in list(state.summary.items())[:4]:
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        parts.append(f"{key} {shown[:40]}")
    return escape(", ".join(parts))

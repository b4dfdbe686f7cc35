"""What the configs of all stages share, and how a field is described."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "float32", "bfloat16"]


def basic(default: Any, description: str, unit: str = "", **bounds: Any) -> Any:
    """Make a field that a pathologist sees first."""
    return Field(default, description=description, json_schema_extra={"unit": unit, "basic": True}, **bounds)


def more(default: Any, description: str, unit: str = "", **bounds: Any) -> Any:
    """Make a field that is folded away until asked for."""
    return Field(default, description=description, json_schema_extra={"unit": unit, "basic": False}, **bounds)


def _address(scheduler: str) -> str:
    """Refuse what is no address."""
    if scheduler and "://" not in scheduler:
        raise ValueError(f"scheduler {scheduler!r} must be an address such as tcp://host:8786")
    return scheduler


SchedulerAddress = Annotated[str, AfterValidator(_address)]
"""Address of a dask scheduler; empty works in this process."""


class StageConfig(BaseModel):
    """What all stages share."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
    stage: ClassVar[str]
    result: ClassVar[str]
    """Kind of artifact that the stage makes; see :mod:`napari_histogan.project.artifacts`."""
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    """By value of the field ``preset``: what it sets where nothing else is given."""

    seed: int = more(0, "Seed of every random choice; the same seed gives the same result.", ge=0)
    device: Device = more("auto", "Where to compute; auto takes the best device found.")
    precision: Precision = more(
        "auto", "auto takes bfloat16 where the hardware multiplies it natively, float32 elsewhere."
    )
    threads: int = more(
        0, "CPU threads; 0 takes all cores but one, so that the viewer keeps a core.", "threads", ge=0, le=256
    )

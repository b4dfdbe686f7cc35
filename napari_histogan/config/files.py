"""Build configs from values and TOML files, and write them."""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from napari_histogan.config.stage import StageConfig
from napari_histogan.errors import ConfigError

C = TypeVar("C", bound=StageConfig)
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def make_config(model: type[C], values: dict[str, Any], source: str = "the settings") -> C:
    """Build a config; unknown fields and values out of range become a ``ConfigError``.

    Raises
    ------
    ConfigError
        Naming every wrong field, what it got, and the nearest known name.
    """
    try:
        return model(**values)
    except ValidationError as error:
        raise ConfigError(
            f"{source} for {model.stage}: {_explain(error, model)}",
            _expected(error, model),
            f"correct what is named; `histogan {model.stage.replace('_', '-')} --help` lists all settings",
        ) from error


def load_config(model: type[C], path: Path, overrides: dict[str, Any] | None = None) -> C:
    """Read a config from TOML; ``overrides`` win over the file.

    Raises
    ------
    ConfigError
        If the file is missing, is not TOML, or holds a wrong field.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"there is no config file {path}", "a TOML file", "check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}", "name = value lines") from error
    return make_config(model, {**values, **(overrides or {})}, str(path))


def dump_config(config: StageConfig) -> str:
    """Return the config as TOML; fields that are None are left out."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def bounds_of(field: FieldInfo) -> str:
    """Return the range of a field in words, such as "at least 0 and at most 1"; "" if it has none."""
    return " and ".join(
        f"{words} {getattr(rule, name):g}"
        for rule in field.metadata
        for name, words in _BOUNDS.items()
        if getattr(rule, name, None) is not None
    )


def unit_of(field: FieldInfo) -> str:
    """Return the unit of a field; "" if it has none."""
    extra = field.json_schema_extra
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""


def _expected(error: ValidationError, model: type[StageConfig]) -> str:
    """Say what the fields concerned take, and nothing of the others."""
    clauses: dict[str, str] = {}
    for problem in error.errors():
        name = str(problem["loc"][0]) if problem["loc"] else ""
        if problem["type"] == "extra_forbidden":
            near = get_close_matches(name, model.model_fields, n=3)
            clauses[name] = f"a setting such as {' or '.join(near)}" if near else "a setting of this stage"
        elif name in model.model_fields:
            field = model.model_fields[name]
            notes = "; ".join(part for part in (unit_of(field), bounds_of(field)) if part)
            about = (field.description or "").rstrip(".")
            clauses[name] = f"{name}: {about}" + (f" [{notes}]" if notes else "")
    return "; ".join(clauses.values())


def _explain(error: ValidationError, model: type[StageConfig]) -> str:
    """Say each problem of a validation error in one clause."""
    clauses = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = get_close_matches(name, model.model_fields, n=1)
            clauses.append(f"unknown field {name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
        else:
            clauses.append(f"{name or 'value'}: {problem['msg']}, got {problem['input']!r}")
    return "; ".join(clauses)

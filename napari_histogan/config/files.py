"""Build configs from values and TOML files, and write them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import ValidationError

from napari_histogan.config.stage import StageConfig
from napari_histogan.errors import ConfigError

C = TypeVar("C", bound=StageConfig)


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
            f"fields {', '.join(model.model_fields)}",
            "correct the named field; `histogan STAGE --help` lists units and ranges",
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
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}", "name = value lines") from error
    return make_config(model, {**values, **(overrides or {})}, str(path))


def dump_config(config: StageConfig) -> str:
    """Return the config as TOML; fields that are None are left out."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def _explain(error: ValidationError, model: type[StageConfig]) -> str:
    """Say each problem of a validation error in one clause."""
    from difflib import get_close_matches

    clauses = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = get_close_matches(name, model.model_fields, n=1)
            clauses.append(f"unknown field {name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
        else:
            clauses.append(f"{name or 'value'}: {problem['msg']}, got {problem['input']!r}")
    return "; ".join(clauses)

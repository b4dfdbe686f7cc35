"""Command line options made from the config models; the models are the only list of fields."""

from __future__ import annotations

import argparse
import types
import typing
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NoReturn

from pydantic.fields import FieldInfo

from napari_histogan.config import StageConfig, load_config, make_config
from napari_histogan.config.files import bounds_of, unit_of


class Parser(argparse.ArgumentParser):
    """An argument parser that suggests the option that was probably meant."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the command line; unknown options end the program with a suggestion."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            getattr(found, "parser", self).refuse(unknown)
        return found

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """End the program at an unknown verb, naming the nearest ones instead of all."""
        if action.metavar == "VERB" and action.choices is not None and value not in action.choices:
            near = get_close_matches(str(value), [str(verb) for verb in action.choices], n=2)
            meant = f" (did you mean {' or '.join(near)}?)" if near else ""
            self.error(f"unknown verb {value!r}{meant}; `{self.prog} --help` lists all verbs")
        super()._check_value(action, value)

    def refuse(self, unknown: list[str]) -> NoReturn:
        """End the program, naming what is unknown and what comes nearest."""
        clauses = []
        for word in unknown:
            name = word.split("=")[0]
            near = get_close_matches(name, self._option_string_actions, n=1)
            if name.startswith("-"):
                clauses.append(f"unknown option {name}" + (f" (did you mean {near[0]}?)" if near else ""))
        self.error("; ".join(clauses) or f"cannot make sense of {' '.join(unknown)}")


def add_stage_options(parser: Parser, model: type[StageConfig]) -> None:
    """Add one option for each field of a config model.

    Fields that a pathologist sees first come first; the help gives unit, range, and default.
    """
    basic = parser.add_argument_group("settings")
    more = parser.add_argument_group("more settings")
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        group = basic if extra.get("basic") else more
        group.add_argument(*_flags(name), dest=f"field_{name}", default=None, **_kind(field))


def read_config(model: type[StageConfig], options: argparse.Namespace) -> StageConfig:
    """Build a stage's config from ``--config`` and the options, which win over the file.

    Raises
    ------
    ConfigError
        Naming each wrong field, its range, and the nearest known name.
    """
    given = {
        name: _value(value)
        for name in model.model_fields
        if (value := getattr(options, f"field_{name}")) is not None
    }
    if options.config is not None:
        return load_config(model, Path(options.config), given)
    return make_config(model, given, "the command line")


def _flags(name: str) -> list[str]:
    """Return the option strings of a field."""
    return [f"--{name.replace('_', '-')}"]


def _value(value: Any) -> Any:
    """Let the word "none" stand for no value."""
    return None if isinstance(value, str) and value.lower() == "none" else value


def _kind(field: FieldInfo) -> dict[str, Any]:
    """Return how argparse should read a field; values stay text, the model reads and checks them."""
    kind = field.annotation
    help_text = _help(field)
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction, "help": help_text}
    if typing.get_origin(kind) is tuple:
        return {
            "nargs": "*",
            "action": "extend",
            "metavar": _metavar(typing.get_args(kind)[0]),
            "help": help_text,
        }
    if typing.get_origin(kind) is Literal:
        return {"choices": list(typing.get_args(kind)), "help": help_text}
    return {"metavar": _metavar(kind), "help": help_text}


def _metavar(kind: Any) -> str:
    """Return the placeholder of a value in the help."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        kind = next(each for each in typing.get_args(kind) if each is not type(None))
    return {int: "N", float: "X", Path: "PATH", str: "NAME"}.get(kind, "VALUE")


def _help(field: FieldInfo) -> str:
    """Return description, range, unit, and default of a field in one line."""
    default = field.default
    if isinstance(default, tuple):
        shown = " ".join(str(item) for item in default)
    else:
        shown = "" if default in (None, "", Path()) else str(default)
    notes = [unit_of(field), bounds_of(field), f"default {shown}" if shown else ""]
    text = " ".join([field.description or "", f"[{'; '.join(note for note in notes if note)}]"])
    return text.removesuffix(" []").replace("%", "%%")

"""A form made from a stage's config model: the same fields as the command line and the TOML file."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_histogan.config import StageConfig, make_config
from napari_histogan.errors import ConfigError
from napari_histogan.widgets.fold import Fold

_LARGEST_SPIN = 2_147_483_647


class ConfigForm(QWidget):
    """Edits one stage's config; basic fields first, the others folded away.

    Parameters
    ----------
    model
        The config model; its field descriptions, units, and ranges become labels and tooltips.
    hidden
        Names of fields that the dock fills in by itself.
    """

    changed = Signal()

    def __init__(
        self, model: type[StageConfig], hidden: tuple[str, ...] = (), parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.model = model
        self._editors: dict[str, FieldEditor] = {}
        self._hidden_values: dict[str, Any] = {}
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        basic, more = _form_layout(), _form_layout()
        for name, info in model.model_fields.items():
            if name in hidden:
                continue
            editor = FieldEditor(name, info)
            editor.changed.connect(self._on_changed)
            self._editors[name] = editor
            (basic if _extra(info)["basic"] else more).addRow(editor.label, editor)
        layout.addLayout(basic)
        self.advanced = Fold("Advanced")
        inner = QWidget()
        inner.setLayout(more)
        self.advanced.addWidget(inner)
        self.advanced.setVisible(more.rowCount() > 0)
        layout.addWidget(self.advanced)
        self._presets, self._preset_is_shorthand = preset_values(model)
        if self._presets and "preset" in self._editors:
            self._editors["preset"].changed.connect(self._show_preset)
        self.problem = QLabel()
        self.problem.setWordWrap(True)
        self.problem.setStyleSheet("color: #e5604d;")
        self.problem.hide()
        layout.addWidget(self.problem)

    def editor(self, name: str) -> FieldEditor:
        """Return the editor of a field."""
        return self._editors[name]

    def set_values(self, values: dict[str, Any]) -> None:
        """Show values; fields that the form hides are kept for :meth:`config`."""
        # A preset changes other fields, so it comes first.
        for name, value in sorted(values.items(), key=lambda item: item[0] != "preset"):
            if name in self._editors:
                self._editors[name].set_value(value)
            else:
                self._hidden_values[name] = value

    def config(self) -> StageConfig:
        """Return the config that the form shows.

        Raises
        ------
        ConfigError
            Naming each wrong field; the message is shown below the form as well.
        """
        values = dict(self._hidden_values)
        values.update({name: editor.value() for name, editor in self._editors.items()})
        if self._preset_is_shorthand and "preset" in values:
            values["preset"] = self.model.model_fields["preset"].default  # the fields say all that it means
        try:
            config = make_config(self.model, values, "the form")
        except ConfigError as error:
            self.problem.setText(error.found.removeprefix(f"the form for {self.model.stage}: "))
            self.problem.show()
            raise
        self.problem.hide()
        return config

    def _show_preset(self) -> None:
        """Show the numbers of the chosen preset in the fields that presets set."""
        for name, value in self._presets[str(self._editors["preset"].value())].items():
            if name in self._editors:
                self._editors[name].set_value(value)
            else:
                self._hidden_values[name] = value

    def is_valid(self) -> bool:
        """Whether every field has a value in its range."""
        try:
            self.config()
        except ConfigError:
            return False
        return True

    def _on_changed(self) -> None:
        self.is_valid()
        self.changed.emit()


class FieldEditor(QWidget):
    """Edits one field with the control that fits its type."""

    changed = Signal()

    def __init__(self, name: str, info: FieldInfo, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.name = name
        self.label = QLabel(name.replace("_", " "))
        self._default = info.default
        self._get: Callable[[], Any]
        self._set: Callable[[Any], None]
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.control = self._make_control(info)
        layout.addWidget(self.control, 1)
        if _is_path(info.annotation):
            layout.addWidget(self._browse_button())
        if unit := str(_extra(info)["unit"]):
            layout.addWidget(QLabel(unit))
        tip = _tooltip(info)
        for widget in (self, self.label, self.control):
            widget.setToolTip(tip)
        self.set_value(info.default)

    def value(self) -> Any:
        """Return what is shown, in a form that the config model understands."""
        return self._get()

    def set_value(self, value: Any) -> None:
        """Show a value."""
        self._set(value)

    def _make_control(self, info: FieldInfo) -> QWidget:
        kind = info.annotation
        if kind is bool:
            box = QCheckBox()
            box.toggled.connect(lambda _on: self.changed.emit())
            self._get, self._set = box.isChecked, lambda v: box.setChecked(bool(v))
            return box
        if get_origin(kind) is Literal:
            combo = QComboBox()
            keep_narrow(combo)
            combo.addItems([str(v) for v in get_args(kind)])
            combo.currentTextChanged.connect(lambda _text: self.changed.emit())
            self._get, self._set = combo.currentText, lambda v: combo.setCurrentText(str(v))
            return combo
        if kind is int:
            spin = QSpinBox()
            low, high = _bounds(info)
            spin.setRange(int(low) if low is not None else -_LARGEST_SPIN, _spin_top(high))
            spin.setGroupSeparatorShown(True)
            spin.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
            spin.valueChanged.connect(lambda _value: self.changed.emit())
            self._get, self._set = spin.value, lambda v: spin.setValue(int(v))
            return spin
        return self._make_line(kind)

    def _make_line(self, kind: Any) -> QLineEdit:
        """Make a text line: numbers with fractions, lists with commas, names, and paths."""
        line = QLineEdit()
        line.textEdited.connect(lambda _text: self.changed.emit())
        is_list = get_origin(kind) is tuple
        optional = _is_optional(kind)
        if optional:
            line.setPlaceholderText("automatic")
        elif kind is str or is_list:
            line.setPlaceholderText("newest")

        def get() -> Any:
            text = line.text().strip()
            if is_list:
                return tuple(part.strip() for part in text.split(",") if part.strip())
            return None if optional and not text else text

        def put(value: Any) -> None:
            if is_list:
                line.setText(", ".join(str(part) for part in value))
            elif value is None or value == Path():
                line.setText("")
            else:
                line.setText(f"{value:g}" if isinstance(value, float) else str(value))

        self._get, self._set = get, put
        return line

    def _browse_button(self) -> QPushButton:
        button = QPushButton("...")
        button.setMaximumWidth(32)
        button.setToolTip("Choose a file")
        button.clicked.connect(self._browse)
        return button

    def _browse(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, f"Choose {self.name.replace('_', ' ')}")
        if path:
            self.set_value(path)
            self.changed.emit()


def preset_values(model: type[StageConfig]) -> tuple[dict[str, dict[str, Any]], bool]:
    """Return what each preset of a model sets, and whether a preset is but a shorthand for these values.

    Each preset is given a value for every field that any of them sets.  A preset that is no shorthand, as
    "datasetgan", also means things that no field says.
    """
    info = model.model_fields.get("preset")
    if info is None:
        return {}, False
    made = {str(name): dict(make_config(model, {"preset": name})) for name in get_args(info.annotation)}
    plain = dict(model())
    names = {
        name
        for values in made.values()
        for name, value in values.items()
        if value != plain[name] and name != "preset"
    }
    shorthand = any(values["preset"] != name for name, values in made.items())
    return {name: {each: values[each] for each in sorted(names)} for name, values in made.items()}, shorthand


def keep_narrow(combo: QComboBox) -> None:
    """Let a combo box be narrower than its longest entry, so that the dock can be narrow."""
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(8)


def _form_layout() -> QFormLayout:
    """Return an empty form whose fields take the width that there is."""
    form = QFormLayout()
    form.setContentsMargins(0, 0, 0, 0)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)  # a long name must not widen the dock
    return form


def _extra(info: FieldInfo) -> dict[str, Any]:
    """Return unit and basic of a field."""
    extra = info.json_schema_extra
    return {"unit": "", "basic": False, **(extra if isinstance(extra, dict) else {})}


def _bounds(info: FieldInfo) -> tuple[float | None, float | None]:
    """Return the smallest and largest value that the field's constraints name."""
    low = high = None
    for constraint in info.metadata:
        low = getattr(constraint, "ge", getattr(constraint, "gt", low))
        high = getattr(constraint, "le", getattr(constraint, "lt", high))
    return low, high


def _spin_top(high: float | None) -> int:
    return min(_LARGEST_SPIN, int(high)) if high is not None else _LARGEST_SPIN


def _tooltip(info: FieldInfo) -> str:
    """Say what the field is, in which unit and range."""
    low, high = _bounds(info)
    unit = str(_extra(info)["unit"])
    parts = [info.description or ""]
    if low is not None and high is not None:
        parts.append(f"Between {low:g} and {high:g} {unit}".rstrip() + ".")
    elif low is not None:
        parts.append(f"At least {low:g} {unit}".rstrip() + ".")
    default = info.default
    if default not in (None, "", (), Path()):
        parts.append(f"Default: {default}.")
    return " ".join(part for part in parts if part)


def _is_optional(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType) and type(None) in get_args(kind)


def _is_path(kind: Any) -> bool:
    return kind is Path or (_is_optional(kind) and Path in get_args(kind))

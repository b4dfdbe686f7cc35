"""The tab of patch classifiers: paint on any open picture, train on it, and see the map over it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtWidgets import (
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_histogan.config import (
    AddSlidesConfig,
    PredictPatchMapConfig,
    StageConfig,
    TrainPatchGanConfig,
    make_config,
)
from napari_histogan.errors import HistoganError, LabelError
from napari_histogan.project.painted_pictures import keep_picture, picture_in
from napari_histogan.project.slide_list import SlideNames
from napari_histogan.widgets.config_form import ConfigForm
from napari_histogan.widgets.fold import Fold
from napari_histogan.widgets.job_view import JobView
from napari_histogan.widgets.layer_pictures import paint_over, pixels_of, resolution_of
from napari_histogan.widgets.picture_maps import PictureMaps, picture_maps_of
from napari_histogan.widgets.picture_paint import PicturePaint, combo
from napari_histogan.widgets.session import Session
from napari_histogan.widgets.session_view import SessionView
from napari_histogan.widgets.stage_forms import last_values

TRAIN, MAP = "train_patch_gan", "predict_patch_map"
_HIDDEN = (
    "data", "mpp", "preset", "layout", "centers", "dilation_px", "epochs", "holdout_share", "judge_stride",
)  # fmt: skip
_BY_PAINT = ("patches", "batch")
"""What a training took of these followed from its paint; the next may have more."""
_HIDDEN_OF_MAPS = ("slide", "patch_classifier", "region_um", "tissue_only")
_STEPS, _PREVIEW_EVERY = 1500, 100


class PatchPanel(SessionView):
    """From paint on a picture to a map over it, by a classifier of small patches."""

    where = "patches"

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.maps: PictureMaps | None = None
        self._stated: Any = None
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.painting = PicturePaint()
        self.painting.changed.connect(self._on_paint)
        self.mpp = QLineEdit()
        self.mpp.setPlaceholderText("um per pixel; 1 if it does not matter")
        self.mpp.setToolTip("How many micrometers a pixel of the picture spans")
        self.mpp.textEdited.connect(lambda _text: self._tell())
        self.steps = QSpinBox()
        self.steps.setRange(1, 1_000_000)
        self.steps.setValue(_STEPS)
        self.steps.setGroupSeparatorShown(True)
        self.steps.setToolTip("Steps of the training, whatever is painted; more take longer")
        self.train_button = self._button("Train and map", "Ctrl+Return", self.train)
        self.train_button.setToolTip("Learn from the paint, then lay a map over the picture ({Ctrl+Return})")
        self.map_alone_button = self._button("Map this picture  ({M})", "M", self.map_alone)
        self.map_alone_button.setToolTip("Map the picture by the newest patch classifier, as it is ({M})")
        self.map_button = self._button("Show / hide map  ({H})", "H", self._toggle_map)
        self.map_button.setToolTip("Show or hide the map ({H})")
        self.map_classes = combo("Class whose probability the map shows")
        self.map_classes.activated.connect(lambda position: self._show_class(position + 1))
        self.form = ConfigForm(TrainPatchGanConfig, hidden=_HIDDEN)
        self.map_form = ConfigForm(PredictPatchMapConfig, hidden=_HIDDEN_OF_MAPS)
        self.jobs = JobView(preview="samples")
        self._lay_out()

    def _lay_out(self) -> None:
        self.settings = Fold("Settings of the training")
        self.map_settings = Fold("Settings of the map")
        for folded, form in ((self.settings, self.form), (self.map_settings, self.map_form)):
            folded.addWidget(form)
        numbers, result = QFormLayout(), QHBoxLayout()
        numbers.addRow("Resolution", self.mpp)
        numbers.addRow("Steps", self.steps)
        result.addWidget(self.map_button)
        result.addWidget(self.map_classes, 1)
        body = QWidget()
        layout = QVBoxLayout(body)
        layout.setContentsMargins(4, 6, 4, 4)
        layout.addWidget(self.words)
        layout.addWidget(self.painting)
        layout.addLayout(numbers)
        layout.addWidget(self.train_button)
        layout.addWidget(self.map_alone_button)
        layout.addLayout(result)
        for part in (self.jobs, self.settings, self.map_settings):
            layout.addWidget(part)
        layout.addStretch(1)
        self.area = self.lay_out_scrolled(body)

    def attach(self, session: Session) -> None:
        """Follow a session."""
        self.maps = picture_maps_of(session)
        self.watch(session.project_opened, self._on_opened)
        self.watch(session.classes_changed, self._show_classes)
        self.watch(session.jobs.state_changed, lambda _n: self._tell())
        self.watch(session.slide_view.heatmap_opened, lambda _id: self._tell())
        self.watch(self.maps.mapped, lambda _name: self._tell())
        for part in (self.painting, self.jobs):
            part.follow(session)
        self._on_opened()

    def detach(self) -> None:
        """Let go of the session."""
        for part in (self.painting, self.jobs):
            part.detach()
        super().detach()

    def set_keys_enabled(self, enabled: bool) -> None:
        """Let the keys act, and leave the canvas to the pictures."""
        super().set_keys_enabled(enabled)
        self.painting.set_keys_enabled(enabled)
        session = self.session
        if enabled and session is not None:
            session.painting.flush()
            session.painting.hide()
            session.correcting.hide()
            self.painting.list_layers()

    # Training

    def train(self) -> None:
        """Keep picture and paint in the project, train on them, and map the picture."""
        if self.train_button.isEnabled() and self.painting.paint is not None:
            self._run(self._with_training)

    def map_alone(self) -> None:
        """Map the picture by the newest patch classifier."""
        if self.map_alone_button.isEnabled():
            self._run(lambda session, picture: self._mapping(session, picture, None)[1])

    def _run(self, plan: Callable[[Session, Any], list[StageConfig]]) -> None:
        """Start what is planned for the picture, or tell why not."""
        session, picture = self.session, self.painting.picture
        if session is None or picture is None:
            return
        try:
            stages = plan(session, picture)
        except (HistoganError, OSError) as error:
            session.told.emit(str(error), "error")
            return
        session.run(*stages)

    def _with_training(self, session: Session, picture: Any) -> list[StageConfig]:
        """Return the stages from paint to map; picture and paint are on disk then."""
        mask = paint_over(self.painting.paint, picture)
        values = {**dict(self.form.config()), "mpp": _number(self.mpp.text())}
        values |= {"layout": "folder", "centers": "pixels"}
        values |= _amounts(mask, session.require().classes.names, self.steps.value(), values)
        make_config(TrainPatchGanConfig, values)  # what is out of its range is told before anything is kept
        folder, stages = self._mapping(session, picture, mask)
        return [*stages[:-1], make_config(TrainPatchGanConfig, {**values, "data": folder}), stages[-1]]

    def _mapping(
        self, session: Session, picture: Any, mask: NDArray[np.uint8] | None
    ) -> tuple[Path, list[StageConfig]]:
        """Keep a picture and its paint; return their folder, and the stages that map the picture."""
        project, mpp = session.require(), _number(self.mpp.text())
        values, shown = dict(self.map_form.config()), session.slide_view
        on_slide = shown.entry is not None and picture == shown.slide
        folder = Path()
        if mask is not None or not on_slide:
            folder = keep_picture(project, picture.name, pixels_of(picture), mask)
        if on_slide and shown.entry is not None:
            return folder, [make_config(PredictPatchMapConfig, {**values, "slide": shown.entry.name})]
        file = picture_in(folder)
        name = SlideNames(project.slides()).take(file)
        if self.maps is not None:
            self.maps.expect(picture, name)
        known = any(slide.name == name and slide.mpp == mpp for slide in project.slides())
        first: list[StageConfig] = [] if known else [AddSlidesConfig(paths=(file,), mpp=mpp)]
        return folder, [*first, make_config(PredictPatchMapConfig, {**values, "slide": name})]

    # Showing

    def _toggle_map(self) -> None:
        session = self.session
        if session is not None and self.maps is not None:
            on_slide = self.painting.picture is not None and self.painting.picture == session.slide_view.slide
            (session.slide_view.toggle_heatmap if on_slide else self.maps.toggle)()

    def _show_class(self, index: int) -> None:
        session = self.session
        if session is not None and self.maps is not None:
            self.maps.set_class(index)
            session.slide_view.set_class(index)

    def _on_paint(self) -> None:
        """Show the resolution that a picture states, and what is wanting."""
        picture = self.painting.picture
        if picture != self._stated and picture is not None and (stated := resolution_of(picture)):
            self.mpp.setText(f"{stated:.10g}")
        self._stated = picture
        self._tell()

    def _on_opened(self) -> None:
        session = self.session
        if session is None or session.project is None:
            return
        self.form.set_values({"preview_every": _PREVIEW_EVERY})
        kept = last_values(session.project, TRAIN)
        kept = {k: v for k, v in kept.items() if k not in _HIDDEN and k not in _BY_PAINT}
        self.form.set_values(kept)
        shown = last_values(session.project, MAP)
        self.map_form.set_values({k: v for k, v in shown.items() if k not in _HIDDEN_OF_MAPS})
        self._show_classes()

    def _show_classes(self) -> None:
        session = self.session
        if session is None or session.project is None:
            return
        self.map_classes.clear()
        self.map_classes.addItems(list(session.project.classes.names))
        if self.maps is not None and self.map_classes.count():
            self.map_classes.setCurrentIndex(min(self.maps.class_index, self.map_classes.count()) - 1)
        self._tell()

    def _tell(self) -> None:
        """Say what to do next, and let only those buttons act that can."""
        session = self.session
        if session is None or session.project is None:
            return
        names, may = session.project.classes.names, not session.read_only
        missing = [name for k, name in enumerate(names, 1) if not self.painting.counts[k]]
        busy = bool(session.jobs.active())
        words = self._wanted(names, missing)
        self.words.setText(words or "Every class is painted. Train; the map comes by itself.")
        self.train_button.setEnabled(not words and may and not busy)
        trained = bool(session.project.artifacts("patch_classifier"))
        self.map_alone_button.setVisible(trained)
        has_mpp = bool(_number(self.mpp.text()))
        self.map_alone_button.setEnabled(self.painting.picture is not None and has_mpp and may and not busy)
        self.jobs.setVisible(bool(session.jobs.records))
        mapped = session.slide_view.heat is not None or (
            self.maps is not None and self.maps.layer is not None
        )
        self.map_button.setVisible(mapped)
        self.map_classes.setVisible(mapped)

    def _wanted(self, names: tuple[str, ...], missing: list[str]) -> str:
        """Return what is wanting before training can begin; "" if nothing is."""
        if self.painting.picture is None:
            return "Open a picture first: drop it onto the canvas, or File > Open."
        if len(names) < 2:
            return "Name two classes or more, such as vessel and background."
        if self.painting.paint is None:
            return "Press N for a layer to paint on."
        if missing:
            return f"Paint some of each class; none yet: {', '.join(missing)}."
        if not _number(self.mpp.text()):
            return "Say how many micrometers a pixel spans."
        return ""


def _amounts(
    mask: NDArray[np.uint8], names: tuple[str, ...], steps: int, values: dict[str, Any]
) -> dict[str, int]:
    """Return patches, batch, and epochs that suit what is painted, for about ``steps`` steps."""
    counts = np.bincount(mask.ravel(), minlength=256)[1 : len(names) + 1]
    if counts.min() < 1:
        listed = ", ".join(f"{name} {count:,}" for name, count in zip(names, counts.tolist(), strict=True))
        raise LabelError(f"painted within the picture: {listed} px", "some of each class", "paint the others")
    patches = len(names) * int(counts.min())
    if values["patches"]:
        patches = min(patches, max(len(names), values["patches"] // len(names) * len(names)))
    batch = max(2, min(int(values["batch"]), patches))
    return {"patches": patches, "batch": batch, "epochs": math.ceil(steps / (patches // batch))}


def _number(text: str) -> float:
    """Return a number above 0; 0 for anything else."""
    try:
        value = float(text.strip().replace(",", "."))
    except ValueError:
        return 0.0
    return value if 0 < value < math.inf else 0.0

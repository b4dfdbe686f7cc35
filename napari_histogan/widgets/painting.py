"""Painting samples: the layers, autosave, live prediction, and what to paint next.

One labels layer serves all samples; another sample swaps its data.  A painted labels
layer must not be removed while its window lives (napari #8471: the next frame may crash).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Qt, QTimer, Signal
from qtpy.QtWidgets import QApplication

from napari_histogan.jobs.engine_client import Reply
from napari_histogan.widgets.assist import agreed_stroke, region_at
from napari_histogan.widgets.class_colors import label_colormap, label_features
from napari_histogan.widgets.display import require_opengl
from napari_histogan.widgets.kept_layers import change, show_of
from napari_histogan.widgets.ranking import Ranking, next_to_paint
from napari_histogan.widgets.sample_layers import Making, add_sample_layers
from napari_histogan.widgets.sample_look import SampleLook

if TYPE_CHECKING:
    from napari_histogan.widgets.session import Session

Tool = Literal["paint", "assist", "erase", "fill", "polygon", "pan_zoom"]


class Painting(QObject):
    """Shows one sample at a time and saves every stroke.

    Signals
    -------
    predicted
        Seconds from the request to the picture, and a sentence about the prediction.
    tool_changed
        Name of the tool.
    class_changed
        Number of the class that the brush paints.
    """

    predicted = Signal(float, str)
    tool_changed = Signal(str)
    class_changed = Signal(int)

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._session = session
        self.index = -1
        self.live = True
        self.look = SampleLook(self)
        self.assist = False
        self.picture: Any = None
        self.mask: Any = None
        self.prediction: Any = None
        self.uncertainty: Any = None
        self._making = Making()
        self._saved: NDArray[np.uint8] | None = None
        self._visited: list[int] = []
        self._following = False
        self._asked = -1
        self._predicted_labels: NDArray[np.uint8] | None = None
        self.ranking = Ranking(session)
        session.classes_changed.connect(self._recolor)

    # Layers

    def make_layers(self) -> None:
        """Make the layers once; the first of a kind costs half a second, later swaps 10 ms."""
        while self.prepare():
            pass

    def prepare(self) -> bool:
        """Add one more of the layers, hidden, before anybody waits for it; False when all are there."""
        if self.mask is not None and self.mask in self._session.viewer.layers:
            return False
        side = self._session.samples.resolution if self._session.samples is not None else 64
        table = self._session.require().classes
        if self._making.step(lambda: add_sample_layers(self._session.viewer, side, table)):
            return True
        if len(self._making.made) < 4:
            return False
        self.picture, self.prediction, self.uncertainty, self.mask = self._making.made
        self._recolor()
        self.mask.events.paint.connect(self._on_paint)
        self.mask.events.set_data.connect(self._on_set_data)
        self.mask.events.selected_label.connect(self._on_selected_label)
        return False

    def show(self) -> None:
        """Bring the sample layers to the front, if a sample is open."""
        if self.index < 0 or self.mask is None:
            return
        self._session.slide_view.hide()
        self._session.correcting.hide()
        self.look.apply()
        self._session.viewer.layers.selection.active = self.mask

    def hide(self) -> None:
        """Hide the sample layers."""
        for layer in (self.picture, self.uncertainty, self.prediction, self.mask):
            show_of(layer, False)

    def _recolor(self) -> None:
        if self.mask is None:
            return
        table = self._session.require().classes
        for layer in (self.mask, self.prediction):
            layer.colormap = label_colormap(table)
        self.mask.features = label_features(table)
        if self.index >= 0 and not self.mask.editable and self._may_paint():
            self.mask.editable = True
            self.set_tool("paint")

    # Samples

    def open(self, index: int) -> None:
        """Show a sample with its mask; what was painted before is saved."""
        samples = self._session.samples
        if samples is None:
            return
        require_opengl()
        self.flush()
        picture = samples.image(index)
        mask = self._session.load_mask(index)
        if mask is None or mask.shape != picture.shape[:2]:
            mask = np.zeros(picture.shape[:2], np.uint8)
        self.make_layers()
        first = self.index < 0 or self.mask.data.shape != mask.shape
        mode = "paint" if self.index < 0 else str(self.mask.mode)
        if self.index >= 0 and self.index != index:
            self._visited.append(self.index)
        self.index, self._saved, self._predicted_labels = index, mask.copy(), None
        self.mask.editable = False  # the public way to empty the undo history
        self.picture.data, self.mask.data = picture, mask
        for layer in (self.prediction, self.uncertainty):
            if layer.data.shape != mask.shape or np.any(layer.data):
                layer.data = np.zeros(mask.shape, layer.data.dtype)
        for layer in (self.picture, self.mask, self.prediction, self.uncertainty):
            change(layer, scale=(samples.mpp, samples.mpp))
        self.mask.editable = self._may_paint()
        self.show()
        if first:
            self._session.viewer.reset_view(layers=[self.picture])
        if self.mask.editable:
            self.set_tool("assist" if self.assist else "paint" if mode == "pan_zoom" else mode)  # type: ignore[arg-type]
            self.choose_class(max(1, int(self.mask.selected_label)))
        self.predict()

    def _may_paint(self) -> bool:
        return not self._session.read_only and len(self._session.require().classes) > 0

    def forget(self) -> None:
        """Close the sample, as when another set of samples is chosen."""
        self.index, self._saved, self._predicted_labels = -1, None, None
        self._visited.clear()
        self.ranking.timer.stop()
        self.hide()

    def open_next(self) -> None:
        """Open the most informative sample without paint; the next one while nothing is known."""
        samples = self._session.samples
        if samples is None:
            return
        taken = {*self._session.painted(), self.index}
        best = next_to_paint(len(samples), taken, self._session.scores, self.index)
        if best < 0:
            self._session.told.emit("Every sample has paint. Draw more samples to go on.", "info")
            return
        self._session.open_sample(best)

    def open_previous(self) -> None:
        """Open the sample that was painted before this one."""
        if self._visited:
            index = self._visited.pop()
            self._session.open_sample(index)
            self._visited.pop()

    # Tools

    def set_tool(self, tool: Tool) -> None:
        """Choose brush, eraser, fill, polygon, or moving."""
        if self.mask is not None and (self.mask.editable or tool == "pan_zoom"):
            self._session.viewer.layers.selection.active = self.mask
            self.assist = tool == "assist"
            self.mask.mode = "paint" if self.assist else tool
            self.tool_changed.emit(tool)

    def choose_class(self, index: int) -> None:
        """Let the brush paint a class."""
        if self.mask is not None and self.index >= 0:
            self.mask.selected_label = index  # tells the panels by its event
            if str(self.mask.mode) == "erase" and self.mask.editable:
                self.set_tool("paint")

    def _on_selected_label(self, _event: Any = None) -> None:
        """Follow napari's own controls; its key for a new label would choose a class that is none."""
        if self.index < 0 or self._session.project is None:
            return
        chosen = int(self.mask.selected_label)
        allowed = min(max(chosen, 0), len(self._session.project.classes))
        if allowed != chosen:
            self.mask.selected_label = allowed
        elif chosen:
            self.class_changed.emit(chosen)

    def set_brush_size(self, pixels: int) -> None:
        """Set the brush's diameter."""
        if self.mask is not None:
            self.mask.brush_size = pixels

    def take_prediction(self, everywhere: bool = False) -> None:
        """Paint the predicted classes where nothing is painted; can be undone.

        Parameters
        ----------
        everywhere
            The whole picture, instead of the predicted region under the mouse.
        """
        labels = self._predicted_labels
        if labels is None or self.mask is None or not self.mask.editable:
            self._session.told.emit("There is no prediction yet: paint two classes first.", "info")
            return
        wanted = (self.mask.data == 0) & (labels > 0)
        if not everywhere:
            y, x = self.mask.world_to_data(self._session.viewer.cursor.position)[-2:]
            wanted &= region_at(labels, round(y), round(x))
        where = np.nonzero(wanted)
        if len(where[0]):
            self.mask.data_setitem(where, labels[where])
            self.flush()

    def put(self, mask: NDArray[np.uint8]) -> None:
        """Paint a whole other mask, such as an earlier version; can be undone."""
        if self.mask is None or not self.mask.editable or mask.shape != self.mask.data.shape:
            return
        where = np.nonzero(np.asarray(self.mask.data) != mask)
        if len(where[0]):
            self.mask.data_setitem(where, mask[where])
            self.flush()

    def _follow_prediction(self) -> None:
        """Keep of the last stroke what the prediction agrees with; one undo takes the stroke back."""
        labels, before = self._predicted_labels, self._saved
        chosen = int(self.mask.selected_label)
        if before is None or chosen == 0:
            return
        if labels is None:
            self._session.told.emit("There is no prediction to follow yet: paint two classes first.", "info")
            return
        agreed = agreed_stroke(np.asarray(self.mask.data), before, labels, chosen)
        if agreed is not None:
            self.mask.undo()
            where = np.nonzero(agreed)
            if len(where[0]):
                self.mask.data_setitem(where, chosen)

    # Saving

    def flush(self) -> None:
        """Save the mask if it differs from what is on disk."""
        if self.index < 0 or self.mask is None or self._saved is None or self._session.read_only:
            return
        data = np.asarray(self.mask.data)
        if np.array_equal(data, self._saved):
            return
        if self._session.save_mask(self.index, data.astype(np.uint8)):
            self._saved = data.copy()
            self.predict()

    def _on_paint(self, _event: Any = None) -> None:
        # Strokes are in the data when this comes, edits by program only after it.
        if self._following:
            return
        if self.assist:
            QTimer.singleShot(0, self._end_assisted)  # napari is still writing the stroke into its history
            return
        self.flush()
        QTimer.singleShot(0, self.flush)

    def _end_assisted(self) -> None:
        self._following = True
        try:
            self._follow_prediction()
        finally:
            self._following = False
        self.flush()

    def _on_set_data(self, _event: Any = None) -> None:
        # Undo and redo announce themselves by this event only; a stroke under way does too.
        if QApplication.mouseButtons() == Qt.MouseButton.NoButton:
            QTimer.singleShot(0, self.flush)

    # Prediction

    def predict(self) -> None:
        """Ask for a prediction of the open sample, if live preview is on and there is paint."""
        artifact = self._session.samples_artifact
        if not self.live or self.index < 0 or artifact is None or not self._session.painted():
            return
        self._asked = self._session.engine.ask(
            "predict",
            self._on_predicted,
            on_failed=lambda text: self.predicted.emit(0.0, text),
            project=str(self._session.require().root),
            samples=artifact.id,
            index=self.index,
        )

    def set_live(self, live: bool) -> None:
        """Turn the prediction after each stroke on or off; a running one is dropped."""
        self.live = live
        if live:
            self.predict()
        else:
            self.ranking.timer.stop()
            self._session.engine.cancel(self._asked)

    def _on_predicted(self, reply: Reply) -> None:
        if reply.data.get("index") != self.index or self.prediction is None:
            return
        if "labels" not in reply.arrays:
            self.predicted.emit(0.0, str(reply.data.get("message", "")))
            return
        labels = reply.arrays["labels"].astype(np.uint8)
        if labels.shape != self.prediction.data.shape:
            return
        self._predicted_labels = labels
        self.prediction.data = labels
        self.uncertainty.data = reply.arrays["uncertainty"].astype(np.float32)
        self.prediction.editable = False
        if self.picture.visible:  # else another tab is in front by now, and its slide
            self.look.apply()
        seconds = float(reply.data.get("seconds", 0.0))
        self.predicted.emit(seconds, str(reply.data.get("message", "")))
        self.ranking.timer.start()

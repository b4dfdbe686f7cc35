"""The correct tab: fix the prediction in a frame on the slide, keep it, and retrain."""

from __future__ import annotations

from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QSpinBox, QVBoxLayout, QWidget

from napari_histogan.errors import HistoganError
from napari_histogan.project.net_in_use import net_in_use
from napari_histogan.widgets.correcting import FRAME_PX
from napari_histogan.widgets.net_versions import NetVersions
from napari_histogan.widgets.overview import uncounted_corrections
from napari_histogan.widgets.pictures import swatch
from napari_histogan.widgets.rounds import judging_stages
from napari_histogan.widgets.session import Session
from napari_histogan.widgets.session_view import SessionView, keep_low
from napari_histogan.widgets.stage_forms import config_of
from napari_histogan.widgets.stage_titles import results_in_words
from napari_histogan.widgets.tool_bar import ToolBar

_TABLE_PX = 90


class CorrectPanel(SessionView):
    """A frame, the tools to fix it, and the versions of the net."""

    where = "correct"

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.place_button = self._button("Place frame  ({C})", "C", self.place)
        self.place_button.setToolTip("Take the prediction in the middle of the view as paint ({C})")
        self.side = QSpinBox()
        self.side.setRange(32, FRAME_PX)
        self.side.setSingleStep(32)
        self.side.setValue(256)
        self.side.setSuffix(" px")
        self.side.setToolTip("Side of the frame in pixels of the map, at most 1,024")
        self.classes = QComboBox()
        self.classes.setToolTip("Class that the brush paints (1-9)")
        self.classes.activated.connect(lambda position: self._choose_class(position + 1))
        self.tools = ToolBar("correct")
        self.tools.tool_chosen.connect(self._choose_tool)
        self.tools.size_chosen.connect(self._choose_size)
        self.tools.show_size(8)
        self.accept_button = self._button("Accept  ({Return})", "Return", self.accept)
        self.accept_button.setToolTip("Keep the frame as a correction ({Return})")
        self.discard_button = self._button("Discard  ({Escape})", "Escape", self.discard)
        self.discard_button.setToolTip("Remove the frame; nothing is kept ({Escape})")
        self.alone_button = self._hold_button("Alone  ({Q})", "Q", self._peek)
        self.alone_button.setToolTip(
            "The slide alone while the key is held, or until it is tapped again ({Q})"
        )
        self.retrain_button = self._button("Retrain with corrections", "Ctrl+Return", self.retrain)
        self.retrain_button.setToolTip(
            "Gather the corrections and train the next version of the net ({Ctrl+Return})"
        )
        self.nets = NetVersions()
        self.nets.changed.connect(self._tell_worse)
        self.versions = self.nets.table
        self.round = QLabel()
        self.round.setWordWrap(True)
        self.round.hide()
        self.back_button = self._button("Go back", "Shift+X", self.go_back)
        self.back_button.setToolTip("Run slides with the version before the last round again ({Shift+X})")
        self.back_button.hide()
        for k in range(1, 10):
            self._digit(k, lambda k=k: self._choose_class(k))
        self._lay_out()

    def _lay_out(self) -> None:
        body = QWidget()
        layout = QVBoxLayout(body)
        layout.setContentsMargins(4, 6, 4, 4)
        layout.addWidget(self.words)
        row = QHBoxLayout()
        row.addWidget(self.place_button, 1)
        row.addWidget(self.side)
        row.addWidget(self.alone_button)
        layout.addLayout(row)
        self.fix_box = QWidget()
        fix = QVBoxLayout(self.fix_box)
        fix.setContentsMargins(0, 0, 0, 0)
        fix.addWidget(self.classes)
        fix.addWidget(self.tools)
        ends = QHBoxLayout()
        ends.addWidget(self.accept_button)
        ends.addWidget(self.discard_button)
        fix.addLayout(ends)
        layout.addWidget(self.fix_box)
        layout.addWidget(self.retrain_button)
        layout.addWidget(self.round)
        layout.addWidget(self.back_button)
        layout.addWidget(self.nets, 1)
        keep_low(self.nets.table, _TABLE_PX)
        self.area = self.lay_out_scrolled(body)

    def attach(self, session: Session) -> None:
        """Follow a session."""
        self.watch(session.project_opened, self._reload)
        self.watch(session.classes_changed, self._reload)
        self.watch(session.artifacts_changed, self._tell)
        self.nets.follow(session)
        self.watch(session.rounds.judged, self._tell_round)
        self.watch(session.jobs.state_changed, lambda _n: self._tell_buttons())
        self.watch(session.correcting.changed, self._tell)
        self.watch(session.slide_view.slide_opened, lambda _n: self._tell())
        self.watch(session.slide_view.heatmap_opened, lambda _n: self._tell())
        self.watch(session.peek.changed, self.alone_button.setChecked)
        self._reload()

    def detach(self) -> None:
        """Let go of the session."""
        self.nets.detach()
        super().detach()

    def set_keys_enabled(self, enabled: bool) -> None:
        """Let the panel's keys act."""
        super().set_keys_enabled(enabled)
        self.nets.set_keys_enabled(enabled)
        self.tools.set_keys_enabled(enabled)

    def place(self) -> None:
        """Put a frame in the middle of the view."""
        session = self.session
        if session is None or session.read_only:
            return
        if session.correcting.draft is not None:
            if session.attempt(session.correcting.resume):
                self._begin()
            return
        if session.slide_view.entry is None and not session.attempt(lambda: session.slide_view.open("")):
            return
        if session.attempt(lambda: session.correcting.place(self.side.value())):
            self._begin()

    def _begin(self) -> None:
        """Take the brush and the class that the panel shows."""
        self.tools.show_tool("paint")
        self._choose_class(max(1, self.classes.currentIndex() + 1))
        self._choose_size(self.tools.size.value())

    def _tell_round(self, words: str) -> None:
        self.round.setText(words)
        self.round.setVisible(bool(words))
        self._tell_worse()

    def _tell_worse(self) -> None:
        """Offer the version before the last round as long as a worse one is in use."""
        session = self.session
        if session is None or session.project is None:
            return
        better = session.rounds.better
        in_use = bool(better) and net_in_use(session.project) == session.rounds.worse
        self.back_button.setText(f"It became worse: go back to {results_in_words([better])}  ({{Shift+X}})")
        self.back_button.setVisible(in_use and not session.read_only)

    def go_back(self) -> None:
        """Use the version before the last round."""
        session = self.session
        if session is None or session.project is None or not session.rounds.better:
            return
        self.nets.use_version(session.rounds.better)

    def accept(self) -> None:
        """Keep the frame."""
        session = self.session
        if session is None or not session.correcting.active:
            return
        try:
            name = session.correcting.accept()
        except (HistoganError, OSError) as error:
            session.told.emit(str(error), "error")
            return
        session.told.emit(f"Saved correction {name}.", "info")
        session.artifacts_changed.emit()

    def discard(self) -> None:
        """Remove the frame."""
        if self.session is not None:
            self.session.correcting.discard()

    def _peek(self) -> None:
        if self.session is not None:
            self.session.peek.toggle()
            self.alone_button.setChecked(self.session.peek.active)

    def retrain(self) -> None:
        """Gather the corrections, then train the next version of the net."""
        session = self.session
        if session is None or session.project is None:
            return
        side = session.samples.resolution if session.samples is not None else 64
        try:
            merge = config_of(session.project, "merge_corrections", patch_px=max(16, side))
            train = config_of(session.project, "train_segmenter")
        except HistoganError as error:
            session.told.emit(str(error), "error")
            return
        shown = session.slide_view.entry
        stages = [merge, train, *judging_stages(session.project, shown.name if shown is not None else "")]
        if session.run(*stages):
            session.tab_wanted.emit("train")

    def _choose_class(self, index: int) -> None:
        if self.session is not None and 1 <= index <= self.classes.count():
            self.classes.setCurrentIndex(index - 1)
            self.session.correcting.choose_class(index)

    def _choose_tool(self, tool: str) -> None:
        if self.session is not None:
            self.session.correcting.set_tool(tool)  # type: ignore[arg-type]
            self.tools.show_tool(tool)

    def _choose_size(self, pixels: int) -> None:
        if self.session is not None:
            self.session.correcting.set_brush_size(pixels)

    def _reload(self) -> None:
        session = self.session
        if session is None or session.project is None:
            return
        self.classes.clear()
        for info in session.project.classes:
            self.classes.addItem(swatch(info.color), f"{info.key}  {info.name}")
        self._tell()

    def _tell(self) -> None:
        session = self.session
        if session is None or session.project is None:
            return
        active, has_map = session.correcting.active, session.slide_view.map is not None
        draft = session.correcting.draft
        self.place_button.setText("Place frame  ({C})" if draft is None else "Go on with frame  ({C})")
        if active:
            self.words.setText(
                "Fix the frame with the brush, then keep it. Nothing outside of it is painted."
            )
        elif draft is not None:
            self.words.setText(f"A frame on {draft.slide} was not accepted yet. Go on with it first.")
        elif has_map:
            self.words.setText("Move to a place that is wrong, then place a frame there.")
        else:
            self.words.setText("Open a slide with a heatmap first (tab Slides).")
        self.fix_box.setEnabled(active)
        self.place_button.setEnabled((has_map or draft is not None) and not active and not session.read_only)
        self._tell_buttons()

    def _tell_buttons(self) -> None:
        session = self.session
        if session is None or session.project is None:
            return
        try:
            total, new = len(session.project.corrections()), uncounted_corrections(session.project)
        except HistoganError as error:
            session.told.emit(str(error), "error")
            return
        noun = "correction" if total == 1 else "corrections"
        self.retrain_button.setText(
            f"Retrain with {total} {noun}" + (f", {new} new" if new and new != total else "") if total
            else "Retrain with corrections"
        )  # fmt: skip
        busy = bool(session.jobs.active())
        self.retrain_button.setEnabled(total > 0 and not busy and not session.read_only)

"""What to see of blocks and of what was made of them: one row of buttons with their keys."""

from __future__ import annotations

from qtpy.QtWidgets import QHBoxLayout, QWidget

from napari_histogan.widgets.block_view import BlockView, block_view_of
from napari_histogan.widgets.session import Session
from napari_histogan.widgets.session_view import SessionView


class BlockResult(SessionView):
    """Shows and hides blocks, sharpened mask, and probability, or lays the latter two beside the blocks."""

    where = "blocks"

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._view: BlockView | None = None
        self.blocks_button = self._button("Blocks {B}", "B", lambda: self._toggle("blocks"), True)
        self.mask_button = self._button("Mask {M}", "M", lambda: self._toggle("mask"), True)
        self.map_button = self._button("Map {H}", "H", self._toggle_map)
        self.beside_button = self._button("Beside {S}", "S", self._set_beside, True)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        for button, tip in (
            (self.blocks_button, "Show or hide the blocks ({B})"),
            (self.mask_button, "Show or hide the sharpened mask ({M})"),
            (self.map_button, "Show or hide the probability ({H})"),
            (self.beside_button, "Mask and probability beside the blocks, over the slide once more ({S})"),
        ):
            button.setToolTip(tip)
            row.addWidget(button)

    def attach(self, session: Session) -> None:
        """Follow a session."""
        self._view = block_view_of(session)
        self.watch(session.slide_view.slide_opened, lambda _name: self.tell())
        self.watch(session.slide_view.heatmap_opened, lambda _id: self.tell())
        self.tell()

    def tell(self) -> None:
        """Show what is shown, and let only those buttons act that can."""
        if self.session is None or self._view is None:
            return
        self.blocks_button.setChecked(self._view.wanted["blocks"])
        self.mask_button.setChecked(self._view.wanted["mask"])
        self.beside_button.setChecked(self._view.beside)
        for button in (self.mask_button, self.map_button, self.beside_button):
            button.setEnabled(self.session.slide_view.map is not None)

    def _toggle(self, part: str) -> None:
        if self._view is not None:
            self._view.toggle(part)
            self.tell()

    def _toggle_map(self) -> None:
        if self.session is not None:
            self.session.slide_view.toggle_heatmap()

    def _set_beside(self) -> None:
        if self._view is not None:
            self._view.set_beside(self.beside_button.isChecked())
            self.tell()

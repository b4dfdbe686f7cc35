"""What lies over the picture that is painted: prediction, uncertainty, areas or outlines, or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_histogan.widgets.kept_layers import change

if TYPE_CHECKING:
    from napari_histogan.widgets.painting import Painting


class SampleLook:
    """Shows and hides the layers over the open sample; what is chosen stays for the next one.

    Parameters
    ----------
    painting
        Whose layers.
    """

    def __init__(self, painting: Painting) -> None:
        self._painting = painting
        self.prediction = True
        self.uncertainty = False
        self.outline = False
        self.alone = False
        self._mode = "paint"

    def apply(self) -> None:
        """Show what is wanted, if a sample is open."""
        painting = self._painting
        if painting.mask is None or painting.index < 0:
            return
        if painting.mask.visible:
            self._mode = str(painting.mask.mode)
        outlined = int(self.outline)
        change(painting.picture, visible=True)
        change(painting.mask, visible=not self.alone, contour=outlined)
        change(painting.prediction, visible=self.prediction and not self.alone, contour=outlined)
        change(painting.uncertainty, visible=self.uncertainty and not self.alone)
        if painting.mask.visible and painting.mask.editable:
            painting.mask.mode = self._mode  # napari lays the brush down when a layer looks different

    def toggle_prediction(self) -> None:
        """Show or hide the prediction."""
        self.prediction = not self.prediction
        self.apply()

    def toggle_uncertainty(self) -> None:
        """Show or hide where the ensemble disagrees."""
        self.uncertainty = not self.uncertainty
        self.apply()

    def toggle_outline(self) -> None:
        """Show paint and prediction as outlines, or as areas."""
        self.outline = not self.outline
        self.apply()

    def toggle_alone(self) -> None:
        """Show the picture alone, or with what lies over it."""
        self.alone = not self.alone
        self.apply()

"""Labels of synthetic pictures: from the generator's features, and by nets that see the pictures, if any."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from napari_histogan.models.device import Compute
from napari_histogan.models.picture_bytes import as_bytes
from napari_histogan.models.picture_nets import PictureNets, combine
from napari_histogan.models.pixel_classifier import PixelClassifier, PixelPredictor, Prediction
from napari_histogan.models.segmenter import SegmenterNet
from napari_histogan.models.stylegan2 import FeatureMap


class PairLabeler:
    """A pixel classifier and its picture nets, made ready to label many pictures.

    Parameters
    ----------
    classifier
        Of the generator's features.
    picture_nets
        May be none.
    compute
        Device and precision.
    """

    def __init__(
        self, classifier: PixelClassifier, picture_nets: Sequence[SegmenterNet], compute: Compute
    ) -> None:
        self._features = PixelPredictor(classifier, compute.dtype)
        self._pictures = PictureNets(picture_nets, compute) if picture_nets else None
        self.num_classes, self.dtype = classifier.spec.num_classes, compute.dtype

    @torch.inference_mode()
    def __call__(self, pictures: Tensor, maps: Sequence[FeatureMap]) -> Prediction:
        """Label pictures (N, 3, R, R), nominally -1 to 1, whose feature maps these are."""
        if self._pictures is None:
            return self._features(maps, probabilities=False)
        return combine(self._features(maps), self._pictures(as_bytes(pictures)))

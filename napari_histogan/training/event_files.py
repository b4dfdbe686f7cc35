"""Figures of a training as TensorBoard event files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from napari_histogan.errors import ConfigError


class EventFiles:
    """Writes figures below a folder that ``tensorboard --logdir`` shows.

    Parameters
    ----------
    folder
        Made if missing; a resumed run adds a file.

    Raises
    ------
    ConfigError
        If tensorboardX is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "tensorboard is on, but tensorboardX is not installed",
                "the package tensorboardX",
                'pip install "napari-histogan[tensorboard]", or turn tensorboard off',
            ) from error
        self._writer = SummaryWriter(str(folder))

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Add figures at a step; those that are not finite are left out."""
        for name, value in figures.items():
            if math.isfinite(value):
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

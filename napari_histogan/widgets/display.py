"""Whether this display can draw what napari draws."""

from __future__ import annotations

from functools import cache

from qtpy.QtGui import QOpenGLContext

from napari_histogan.errors import DisplayError


@cache
def has_opengl() -> bool:
    """Whether there is OpenGL; napari draws by nothing else, in software where there is no graphics card."""
    return bool(QOpenGLContext().create())


def require_opengl() -> None:
    """Check before layers are added; napari itself fails in the middle of it.

    Raises
    ------
    DisplayError
        If there is no OpenGL.
    """
    if not has_opengl():
        raise DisplayError(
            "this display has no OpenGL, so napari cannot show pictures",
            "a display with OpenGL, drawn by a graphics card or in software",
            "install the graphics driver or Mesa, or work at the machine instead of by remote desktop; all "
            "stages also run on the command line (histogan --help)",
        )

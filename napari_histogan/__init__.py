"""Learn to paint tissue, paint a few samples, segment whole slides.

Importing this package is cheap: neither torch nor Qt is loaded.  Start reading
at :mod:`napari_histogan.pipeline`, which holds one function per stage.
"""

__version__ = "0.1.0"

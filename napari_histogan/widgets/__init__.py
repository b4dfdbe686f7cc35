"""The napari docks; the only package that may import Qt or napari."""

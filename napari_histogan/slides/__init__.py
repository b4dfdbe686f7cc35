"""Pixels in and out: readers of every slide format, tissue, patches, stain, pyramids."""

"""Pixels in and out: slides, tissue, patches, and growing maps."""

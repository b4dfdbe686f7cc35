"""One explicit loop per method, and the blocks that the loops share."""

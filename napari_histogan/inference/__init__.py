"""From trained networks to samples, data sets, heatmaps, and objects."""

"""Figures from stored results: `heatmap`, `tradeoff`, `curve`, `triggers`. Each is a matplotlib Figure, written by `style.save`."""

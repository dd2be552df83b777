"""Figures from stored results: `heatmap`, `tradeoff`, `curve`, `triggers`, `reversed`, `masks`.

Each is a matplotlib Figure, written by `style.save`.
"""

"""Executors: only carry tasks out."""

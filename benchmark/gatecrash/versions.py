"""Versions that enter keys: raise one when the numbers may change for an unchanged spec."""

ENGINE_VERSION = 1
"""Training, hold-out, streams: part of every victim key."""

EVALUATION_VERSION = 1
"""Prediction and scoring: part of every cell key."""

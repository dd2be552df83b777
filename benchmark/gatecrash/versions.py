"""Gatecrash's version, and the versions that enter keys: raise one of these when the numbers may change for an unchanged spec."""

VERSION = "0.1.0"
"""Of the package. It enters no key."""

ENGINE_VERSION = 2
"""Training, hold-out, streams: part of every victim key."""

EVALUATION_VERSION = 2
"""Prediction and scoring: part of every cell key."""

RETUNE_VERSION = 1
"""The protocol of `evaluation: {retune: true}`: part of the key of cells that are measured by it."""

ROBUSTNESS_VERSION = 1
"""The transformations of `evaluation: {robustness: true}`: part of the key of cells that are measured under them."""

"""Sealed evaluation: the only code that sees the test set and the ground truth, and the arithmetic of scores."""

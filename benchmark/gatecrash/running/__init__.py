"""Carrying a plan out: which task next, in which process, and what a person sees of it."""

"""Asking a classifier in a process that has never run its code: a cheat that remembers has nothing to remember there.

One long-lived process (`server`) per node imports torch and the installed plugins once. It runs none of their code itself: for every
question it forks a child, which rebuilds the classifier from JSON and safetensors, answers and ends. `process` starts it and speaks to
it, `asking` makes questions of classifiers. Serial and Ray share all of it.
"""

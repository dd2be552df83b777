"""This process: what it costs, what a task may leave changed in it, how it keeps memory."""

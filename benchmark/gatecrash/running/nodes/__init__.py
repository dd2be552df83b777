"""One class per kind of node: what task it is, what it needs, what becomes of it."""

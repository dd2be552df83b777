"""Named grids that ship with Gatecrash."""

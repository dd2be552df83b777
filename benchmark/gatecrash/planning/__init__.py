"""From a grid file to victims and cells with keys. Imports neither torch nor ray."""

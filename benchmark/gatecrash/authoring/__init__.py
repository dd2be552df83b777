"""For plugin authors: what `gatecrash new` writes, and the generated reference of plugins and contracts."""

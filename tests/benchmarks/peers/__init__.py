"""Other tools beside Gatecrash: one file per peer, each with `sides(setting)`, what takes turns in one comparison."""

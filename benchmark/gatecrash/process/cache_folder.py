"""Where Gatecrash keeps what it can make again: decoded datasets, measured choices, names of plugins, checkpoints of trainings."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$GATECRASH_CACHE`, else the user's cache folder for gatecrash. It may be deleted at any time."""
    chosen = os.environ.get("GATECRASH_CACHE")
    if chosen:
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_cache_dir("gatecrash"))

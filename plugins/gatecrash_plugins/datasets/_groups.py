"""Groups of near-duplicates, such as frames of one film: by file name or from a table."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path

from gatecrash import UserError


def check_groups(groups: str) -> str:
    """Raise ValueError for what is neither a CSV file's name nor a regular expression with a group."""
    if is_table(groups):
        return groups
    try:
        pattern = re.compile(groups)
    except re.error as error:
        raise ValueError(f"{groups!r} is no regular expression ({error}) and does not end in .csv") from None
    if not pattern.groups:
        raise ValueError(f"{groups!r} has no parentheses around the part of the file name that names the group, and does not end in .csv")
    return groups


def is_table(groups: str) -> bool:
    return groups.lower().endswith(".csv")


def group_numbers(groups: str, root: Path, files: Sequence[str]) -> list[int]:
    """One number per file, from 0 in the order of the files: equal for files of one group, which may span classes.

    Raises UserError if a file has no group, and for a table that cannot be read.
    """
    if is_table(groups):
        table = _table(Path(groups).expanduser())
        names = [table.get(os.path.normpath(os.path.relpath(path, root))) for path in files]
    else:
        found = [re.search(groups, os.path.basename(path)) for path in files]
        names = [match[1] if match else None for match in found]
    without = [path for path, name in zip(files, names, strict=True) if not name]
    if without:
        raise UserError(f"groups: {len(without):,} of {len(files):,} images have no group in {groups}, first {without[0]}")
    numbers: dict[str | None, int] = {}
    return [numbers.setdefault(name, len(numbers)) for name in names]


def _table(path: Path) -> dict[str, str]:
    """Group by path below root."""
    table: dict[str, str] = {}
    try:
        if not path.is_file():
            raise ValueError("it is not a file" if path.exists() else "it does not exist")
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            for row in csv.DictReader(file):
                if not row.get("path") or not row.get("group"):
                    raise ValueError("it needs columns path and group, filled in every row")
                if table.setdefault(os.path.normpath(row["path"]), row["group"]) != row["group"]:
                    raise ValueError(f"{row['path']} has two groups")
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"groups: cannot read {path}: {(isinstance(error, OSError) and error.strerror) or error}") from None
    return table

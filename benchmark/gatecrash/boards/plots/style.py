"""What all figures share: colours for people with colour-blindness, text without markup, files that are the same each time."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatecrash.boards.panel import Panel
from gatecrash.boards.render.plain import plain
from gatecrash.boards.sections import setting_line
from gatecrash.errors import UserError
from gatecrash.evaluation.intervals import Interval
from gatecrash.records.files import write_named
from gatecrash.records.plan import NONE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


FORMATS = (".png", ".svg", ".pdf")


DEFAULT_FORMATS = (".png", ".svg")


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, without its yellow, which is too light for lines."""


MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")


LEGEND = 70
"""Characters in a line of a legend."""


GRAPHEMES = 13.0
"""Characters of a title that fit in an inch."""


def look(index: int) -> dict[str, Any]:
    """Colour and marker of the index-th series: no two alike among the first 63."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def wrapped(text: object, width: int) -> str:
    """All of a text, in lines of at most `width` characters: what is cut may be what tells it from another."""
    return "\n".join(textwrap.wrap(plain(str(text)), max(width, 8)))


def head(figure: Figure, panel: Panel, says: str = "") -> None:
    """The title of a figure: what it says of itself, then data set, model and seeds."""
    titled(figure, says, setting_line(panel))


def titled(figure: Figure, *texts: str) -> None:
    """The title of a figure: each text in lines of its own."""
    lines = [wrapped(text, int(GRAPHEMES * figure.get_figwidth())) for text in texts if text]
    figure.suptitle("\n".join(lines), fontsize=10, x=0.01, ha="left")


def legend(axis: Any, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """A legend right of the axis: marks without their error bars, with whole labels."""
    marks = [handle[0] if isinstance(handle, tuple) else handle for handle in handles]
    axis.legend(marks, labels, loc="upper left", bbox_to_anchor=(1.03, 1.0), borderaxespad=0, frameon=False)


def legend_size(labels: Sequence[str]) -> tuple[float, float]:
    """Width and height in inches of a legend with these labels."""
    lines = [line for label in labels for line in label.split("\n")]
    return 0.6 + 0.085 * max(map(len, lines), default=0), 0.22 * len(lines)


def bars(interval: Interval) -> list[list[float]] | None:
    """A rate's error bars in percent, as matplotlib takes them; None without limits."""
    value, low, high = interval
    return None if value is None or low is None or high is None else [[100 * (value - low)], [100 * (high - value)]]


def differing(labels: Sequence[str]) -> tuple[list[str], str]:
    """Labels of one plugin's variants without its name, and the name; other labels as they are, and no name."""
    variants = [label for label in labels if label != NONE]
    name = variants[0].partition(" (")[0] if len(variants) > 1 else ""
    if not name or not all(label.startswith(f"{name} (") and label.endswith(")") for label in variants):
        return list(labels), ""
    return [label if label == NONE else label[len(name) + 2 : -1] for label in labels], name


@contextmanager
def drawing() -> Iterator[type[Figure]]:
    """The Figure class, under these settings instead of the user's matplotlibrc. Raises UserError without matplotlib."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("figures need matplotlib; install it with pip install 'gatecrash[plots]'") from None
    settings: Any = {
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "text.parse_math": False,  # a dollar sign in a plugin's name is no formula
        "svg.hashsalt": "gatecrash",
        "pdf.fonttype": 42,  # text that can be searched
        "axes.spines.top": False,
        "axes.spines.right": False,
        "hatch.linewidth": 0.5,
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        yield Figure


def save(figure: Figure, path: Path, source: str = "") -> list[Path]:
    """Write the figure, whole or not at all: in the format of the path's suffix, or as PNG and SVG where it has none. Raises UserError.

    `source` is kept in the file: a hash of the results that the figure was made from, by which `leaderboard --check` finds old figures.
    """
    if path.suffix and path.suffix.lower() not in FORMATS:
        raise UserError(f"--output {path}: no figure is written as {path.suffix}; use {', '.join(FORMATS)} or no suffix")
    targets = [path] if path.suffix else [path.with_name(path.name + suffix) for suffix in DEFAULT_FORMATS]
    for target in targets:
        form = target.suffix.lower().removeprefix(".")
        content = io.BytesIO()
        with drawing():
            figure.savefig(content, format=form, dpi=150, bbox_inches="tight", pad_inches=0.15, metadata=_metadata(form, source))
        try:
            write_named(target, content.getvalue())
        except OSError as error:
            raise UserError(f"cannot write {target}: {error.strerror or error}; choose another --output") from None
    return targets


def _metadata(form: str, source: str) -> dict[str, Any]:
    """Without dates and versions, so that the same figure is the same file."""
    dated = {"png": "Software", "svg": "Date", "pdf": "CreationDate"}[form]
    return {dated: None} | ({"Keywords" if form == "pdf" else "Source": source} if source else {})

"""What all figures share: colours for people with colour-blindness, text without markup, files that are the same each time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatecrash.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


FORMATS = (".png", ".svg")


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, without its yellow, which is too light for lines."""


MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")


LONGEST = 56
"""Characters of a label; the rest would squeeze the plot."""


def look(index: int) -> dict[str, Any]:
    """Colour and marker of the index-th series: no two alike among the first 63."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def short(label: object, longest: int = LONGEST) -> str:
    """A label in one line that fits beside a plot."""
    text = "".join(character for character in " ".join(str(label).split()) if character.isprintable())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


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
        "axes.spines.top": False,
        "axes.spines.right": False,
        "hatch.linewidth": 0.5,
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        yield Figure


def save(figure: Figure, path: Path, source: str = "") -> list[Path]:
    """Write the figure: in the format of the path's suffix, or in both where it has none of them. Raises UserError.

    `source` is kept in the file: a hash of the results that the figure was made from, by which `leaderboard --check` finds old figures.
    """
    targets = [path] if path.suffix in FORMATS else [path.with_name(path.name + suffix) for suffix in FORMATS]
    with drawing():
        for target in targets:
            metadata: dict[str, Any] = {"Date": None} if target.suffix == ".svg" else {"Software": None}
            metadata |= {"Source": source} if source else {}
            try:
                figure.savefig(target, dpi=150, bbox_inches="tight", pad_inches=0.15, metadata=metadata)
            except OSError as error:
                raise UserError(f"cannot write {target}: {error.strerror or error}; choose another --output") from None
    return targets

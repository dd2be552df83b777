"""Published boards: a folder with `<board>.md`, `<board>.yaml`, `results/<board>/*.json`, `figures/` and `README.md`, the index.

The JSON, with the pictures that it names, is the board; everything else is generated from it. What would make a table compare things that
are not comparable is refused before anything is written. A README.md beside the folder shows tables of boards where it has passages for
them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from gatecrash.boards.outdated import outdated
from gatecrash.boards.page import GENERATED, page
from gatecrash.boards.panel import panel, table_position
from gatecrash.boards.pictures import picture, picture_source
from gatecrash.boards.public import public, slimmed
from gatecrash.boards.readme import boards_named, filled, passage
from gatecrash.boards.spec import dataset_label, grid_of, ground_of
from gatecrash.boards.standings import DefenseStanding, defense_standings
from gatecrash.boards.text import escape, percent, table
from gatecrash.errors import UserError, did_you_mean
from gatecrash.host.host import Host
from gatecrash.records.result import Result

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,80}")
INDEX = "README.md"
FIGURES = {
    "heatmap": "ASR, ACC and DER of every attack under every defense",
    "triggers": "Each attack's trigger: clean, triggered, difference",
}


def default_boards() -> Path:
    """`leaderboards/` here or, in a checkout, at its top. Raises UserError where there is neither."""
    for folder in (Path("leaderboards"), Path(__file__).parents[3] / "leaderboards"):
        if folder.is_dir():
            return folder
    raise UserError("no folder leaderboards/ here; name one with --boards DIR")


@dataclass(frozen=True)
class Boards:
    """A folder of published boards."""

    root: Path

    def names(self) -> list[str]:
        return sorted(folder.name for folder in (self.root / "results").glob("*") if any(folder.glob("*.json")))

    def results(self, name: str) -> list[Result]:
        """Raises UserError for an unknown board, and for a file that is damaged or was changed by hand."""
        # By the parts of the name: as text, `neural-cleanse-filter.0` comes before `neural-cleanse.0`.
        files = sorted(self.folder(name).glob("*.json"), key=lambda file: file.name.split("."))
        if not files:
            raise UserError(f"no board {name!r} in {self.root}; {did_you_mean(name, self.names())}")
        return [read_result(file) for file in files]

    def digest(self, name: str) -> str:
        """What a picture of the board is made from: a hash of all its results."""
        text = "\n".join(result.to_text() for result in self.results(name))
        return hashlib.sha256(text.encode()).hexdigest()

    def publish(self, name: str, new: Sequence[Result], host: Host, *, pictures: Path | None = None, allow_dirty: bool = False) -> int:
        """Add results to a board (replacing those in the same places) and regenerate. Returns how many cells the board now has.

        `pictures` is the folder below which the figures of `new` lie: their store. Raises UserError, before anything is written, for a
        mixture of what is not comparable, and for code with uncommitted changes.
        """
        if not NAME.fullmatch(name):
            raise UserError(f"--board {name}: use lower-case letters, digits, '.', '-' and '_'")
        folder = self.folder(name)
        known = {table_position(result): result for result in self.results(name)} if name in self.names() else {}
        fresh = {table_position(result): result for result in (public(one, host) for one in new)}
        merged = slimmed((known | fresh).values())
        refuse_mixtures(merged)
        if not allow_dirty:
            refuse_dirty(list(fresh.values()))
        files: dict[Path, bytes] = {}
        for result in merged:
            files |= _files(folder, result, pictures if table_position(result) in fresh else folder)
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        for path in _unnamed(folder, files):
            path.unlink()
        for subfolder in folder.glob("*/"):
            if not any(subfolder.iterdir()):
                subfolder.rmdir()
        self.regenerate(name, host)
        return len(merged)

    def generated(self, name: str, host: Host, *, linked: str = "") -> dict[Path, str]:
        """What the board's generated files must hold. Pictures are shown that are there, or that the page `linked` shows."""
        results = self.results(name)
        grid = yaml.safe_dump(grid_of(results, name), sort_keys=False, width=140)
        return {
            self.root / f"{name}.md": page(name, results, outdated(results, host), self._figures(name, linked)),
            self.root / f"{name}.yaml": f"# The grid of the board {name}: generated, with every option spelt out.\n{grid}",
        }

    def figure(self, name: str, kind: str) -> Path:
        """Where a board's picture of this kind lies; the page shows it if it is there."""
        return self.root / "figures" / f"{name}-{kind}.png"

    def _figures(self, name: str, linked: str) -> dict[str, str]:
        paths = {shows: f"figures/{self.figure(name, kind).name}" for kind, shows in FIGURES.items()}
        return {shows: path for shows, path in paths.items() if (self.root / path).is_file() or f"]({path})" in linked}

    def index(self) -> str:
        """The list of boards, with the best defenses of each."""
        rows = []
        for name in self.names():
            arranged = panel(self.results(name))
            first = arranged.cells[0]
            best = [f"{_best(standings)} ({escape(access)})" for access, standings in defense_standings(arranged).items()]
            rows.append(
                {
                    "board": f"[{name}]({name}.md)",
                    "dataset": escape(dataset_label(first)),
                    "model": escape(first.model.name),
                    "attacks × defenses × seeds": f"{len(arranged.attacks)} × {len(arranged.defenses)} × {len(arranged.seeds)}",
                    "best defense by mean DER (access class)": "; ".join(best),
                }
            )
        body = table(rows) if rows else "No board is published yet: `gatecrash publish GRID --board NAME`."
        note = "Defenses joined by = share the first rank: no difference between them is established."
        return "\n".join([GENERATED, "", "# Leaderboards", "", body, "", note, ""])

    def regenerate(self, name: str, host: Host) -> str:
        """Write the board's generated files, the index, and the passages of the README beside; returns the board's Markdown."""
        files = self.generated(name, host)
        for path, text in {**files, self.root / INDEX: self.index(), **self._readme(host)}.items():
            path.write_text(text, encoding="utf-8")
        return files[self.root / f"{name}.md"]

    def check(self, names: Iterable[str], host: Host) -> list[str]:
        """One line for everything that is not as it should be: files that differ from the JSON, pictures that are missing or belong to
        nothing, cells that are outdated."""
        faults = []
        for name in names:
            results = self.results(name)
            shown = _text(self.root / f"{name}.md") or ""
            faults += [
                f"{path.name} differs from its results; run `gatecrash leaderboard --board {name}`"
                for path, text in self.generated(name, host, linked=shown).items()
                if _text(path) != text
            ]
            faults += self._picture_faults(name, results, shown)
            try:
                refuse_mixtures(results)
            except UserError as error:
                faults.append(f"{name}: {error}")
            reasons = list(outdated(results, host).values())
            faults += [f"{name}: {reasons.count(one)} cells are outdated ({one}); run and publish again" for one in sorted(set(reasons))]
        ours = {self.figure(name, kind) for name in self.names() for kind in FIGURES}
        strays = sorted(set((self.root / "figures").glob("*")) - ours)
        faults += [f"figures/{path.name} belongs to no board; remove it" for path in strays]
        if _text(self.root / INDEX) != self.index():
            faults.append(f"{INDEX} differs from the boards; run `gatecrash leaderboard --board NAME` with any board's name")
        for path, text in self._readme(host).items():
            if _text(path) != text:
                faults.append(f"the table of a board in ../{path.name} differs; run `gatecrash leaderboard --board NAME` with its name")
        return faults

    def _picture_faults(self, name: str, results: Sequence[Result], shown: str) -> list[str]:
        folder = self.folder(name)
        named = {folder / path for result in results for path in result.figures.values()}
        drawn = {self.root / path for path in self._figures(name, shown).values()}
        wanted, digest = named | drawn, self.digest(name)
        missing = sorted(path.relative_to(self.root).as_posix() for path in wanted if not path.is_file())
        strays = sorted(path.relative_to(self.root).as_posix() for path in _unnamed(folder, named) if path.suffix != ".json")
        older = sorted(path.name for path in drawn if path.is_file() and picture_source(path) != digest)
        return (
            [f"{name}: the picture {path} is missing; publish again" for path in missing]
            + [f"{name}: the picture {path} was not made from these results; publish again" for path in older]
            + [f"{name}: {path} belongs to no result; remove it" for path in strays]
        )

    def _readme(self, host: Host) -> dict[Path, str]:
        """The README beside the boards' folder as it must be, if there is one with a passage for a board."""
        path = self.root.resolve().parent / INDEX
        text = _text(path)
        if text is None or not boards_named(text):
            return {}

        def fill(name: str) -> str:
            results = self.results(name)
            return passage(panel(results), outdated(results, host), f"{self.root.resolve().name}/{name}.md")

        return {path: filled(text, self.names(), fill)}

    def folder(self, name: str) -> Path:
        """Where the board's results lie, and below which their pictures do. Raises UserError."""
        if not NAME.fullmatch(name):
            raise UserError(f"no board {name!r} in {self.root}; {did_you_mean(name, self.names())}")
        return self.root / "results" / name


def _files(folder: Path, result: Result, pictures: Path | None) -> dict[Path, bytes]:
    """The files of one result by path: its JSON, and the pictures that are found below `pictures`."""
    name = _name(result)
    found = {shows: picture(pictures, path) for shows, path in result.figures.items()} if pictures is not None else {}
    figures = {shows: f"{name}/{Path(result.figures[shows]).name}" for shows, content in found.items() if content is not None}
    files = {folder / path: content for shows, path in figures.items() if (content := found[shows]) is not None}
    return {folder / f"{name}.json": (result.model_copy(update={"figures": figures}).to_text() + "\n").encode(), **files}


def _unnamed(folder: Path, files: Container[Path]) -> list[Path]:
    """Files below a board's folder that are none of `files`."""
    return [path for path in folder.rglob("*") if path.is_file() and path not in files]


def _text(path: Path) -> str | None:
    """None where there is no such file."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def read_result(file: Path) -> Result:
    """A result from its JSON file. Raises UserError."""
    try:
        return Result.from_text(file.read_bytes())
    except UserError as error:
        raise UserError(f"{file} {error}") from None
    except (OSError, ValueError, ValidationError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
        raise UserError(f"{file} is no sound result ({reason}); publish it again") from None


def refuse_mixtures(results: Sequence[Result]) -> None:
    """Raise UserError unless all cells can stand in one table."""
    for index, what in enumerate(("dataset", "dataset fingerprint", "model", "recipe", "hold-out")):
        found = sorted({ground_of(result)[index] for result in results})
        if len(found) > 1:
            raise UserError(f"the results mix {what}s ({found[0][:60]} and {found[1][:60]}); publish them as separate boards")
    versions: dict[str, set[str]] = {}
    weights: dict[str, set[str]] = {}
    for result in results:
        stages = [("dataset", result.dataset), ("model", result.model), ("attack", result.attack)]
        for kind, stage in stages + [("defense", stage) for stage in result.defense]:
            versions.setdefault(f"the {kind} {stage.name}", set()).add(str(stage.version))
        for name, version in (("engine", result.provenance.engine_version), ("evaluation", result.provenance.evaluation_version)):
            if version is not None:
                versions.setdefault(f"the {name}", set()).add(str(version))
        if result.weights is not None:
            weights.setdefault(f"victim {result.attack.name} (seed {result.seed}) {result.victim_key}", set()).add(result.weights)
    for what, found_versions in versions.items():
        if len(found_versions) > 1:
            raise UserError(f"the results mix versions {' and '.join(sorted(found_versions))} of {what}; run the older cells again")
    for what, hashes in weights.items():
        if len(hashes) > 1:
            raise UserError(
                f"the results come from {len(hashes)} different trainings of the {what[:60]}; run its cells again with --rerun all"
            )


def refuse_dirty(results: Sequence[Result]) -> None:
    """Raise UserError for results of code that no commit holds."""
    dirty = sum(bool(result.provenance.dirty) for result in results)
    if dirty:
        raise UserError(
            f"{dirty} of {len(results)} cells were measured with uncommitted changes; commit and run them again, or --allow-dirty"
        )


def _best(standings: Sequence[DefenseStanding]) -> str:
    first = [one for one in standings if one.rank == 1]
    if first:
        return " = ".join(f"{escape(one.defense)} {percent(one.der)}" for one in first)
    return f"{escape(standings[0].defense)} {percent(standings[0].der)}, unranked"


def _name(result: Result) -> str:
    """Name of the result's file, without suffix, and of its pictures' folder."""
    defense = "+".join(stage.name for stage in result.defense)
    return f"{_plain(result.attack.name)}.{_plain(defense)}.{result.seed}.{_plain(result.key)[:8]}"


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9+-]", "-", name)[:80]

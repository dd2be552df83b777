"""The sections of a board. All words that a board is told in are here, so that a page, a terminal and a report say the same."""

from __future__ import annotations

import shlex
from collections import Counter

from gatecrash.boards.content import Block, Code, Commands, Folded, Listing, Paragraph, Section, Strong, paragraph
from gatecrash.boards.panel import Panel
from gatecrash.boards.spec import LIMITS, dataset_label
from gatecrash.boards.tables.backdoors import backdoors_table
from gatecrash.boards.tables.benign import benign_effects
from gatecrash.boards.tables.detectors import input_detectors, model_detectors, row_detectors
from gatecrash.boards.tables.matrix import matrix
from gatecrash.boards.tables.provenance import provenance_table
from gatecrash.boards.tables.rankings import attack_ranking, defense_rankings
from gatecrash.boards.tables.robustness import floor_table, measured_under, robustness_table, worst_table
from gatecrash.boards.tables.victims import attacks_alone, cost, lost_cells
from gatecrash.evaluation.metrics import HARMED, LANDED, ROBUST
from gatecrash.records.measures import MEASURES, MeasureName
from gatecrash.records.result import Result

REASONS = 4
"""Why results are left out: so many are named."""
LANDED_POINTS = f"{100 * LANDED:.0f} points"
ORDER = (
    "Defenses are ordered by mean DER = (max(0, ASR drop) - max(0, ACC drop) + 1) / 2 over the victims whose backdoor landed (ASR at least "
    f"{LANDED_POINTS} above the same trigger's on a benign model), within each access class. Rates in %."
)
RANKS = (
    "Ranks are of groups: from the best mean down, a defense shares the rank above it unless one of that rank is better by the 95% t "
    "interval, over seeds, of the paired differences on the same victims (no correction for the number of pairs). There is no rank (–) for "
    "a single seed, or where victims lack a score; the latter come last. DER alone can mislead: a defense that rejects everything has more "
    "than 50. Read it with RA and the clean reject rate."
)
SURVIVAL = (
    f"An attack survives a defense where ASR stays at least {LANDED_POINTS} above that of the same trigger on a benign model, on average "
    "over seeds. Attacks that survive the same share of defenses share a rank. Defenses that only detect are not counted."
)

HARM = (
    "These attacks want no triggered image: they cost accuracy on clean images, or send untouched images of one class to another. Shown is "
    "by how much the victim does so more than the benign victim, on the same test images, in %. An attack landed, or survives a defense, "
    f"with at least {100 * HARMED:.0f} points (and, to land, a 95% interval of the paired difference above 0)."
)

BACKDOORS = "ASR in % of each backdoor, of their mean (the ASR of all other tables) and of the worst in each victim; means over seeds."
RETUNED = (
    "What the defense returned was fine-tuned on 2% of the training set, of which five rows carry the trigger: ASR after that, mean of "
    "five draws, and its excess over the benign victim after the same defense and fine-tuning. A backdoor that is gone has no excess."
)
ROBUSTNESS = (
    "ACC / ASR in % of the victims without a defense where every test image goes through a transformation, after the trigger where it has "
    "one: rotation by up to 15 degrees, colour jitter of 20%, 3x3 Gaussian blur, a shift by up to an eighth of the side, a crop of 7/8 of "
    "it that is enlarged again, JPEG at three qualities, half the size and back, Gaussian noise of 5% of the range. Means over seeds. "
    f"The last line counts the transformations under which ASR stays above {100 * ROBUST:.0f}%."
)


def setting_line(panel: Panel) -> str:
    """Dataset, model, recipe and seeds."""
    first = panel.cells[0]
    seeds = ", ".join(map(str, panel.seeds))
    epochs = first.recipe.get("epochs")
    return (
        f"{dataset_label(first)}, {first.model.name}, {epochs} {'epoch' if epochs == 1 else 'epochs'}; "
        f"{'seed' if len(panel.seeds) == 1 else 'seeds'} {seeds}."
    )


def how_to_read(panel: Panel) -> str:
    """Of the matrix of ACC and ASR."""
    several = f"t interval over seeds (n = {len(panel.seeds)} unless given)"
    interval = f"In brackets is the 95% {several if len(panel.seeds) > 1 else 'Wilson interval over test images'}."
    acc, asr = (f"{MEASURES[name].title} ({MEASURES[name].label})" for name in ("acc", "asr"))
    return f"{acc[0].upper()}{acc[1:]} / {asr} in %; higher ACC and lower ASR are better for the defense. {interval}"


def meaning(name: MeasureName) -> str:
    """A rate in words, with the direction that is good for the defense."""
    measure = MEASURES[name]
    return f"{measure.title}, %; {measure.direction}"


def caveats(panel: Panel) -> list[Paragraph]:
    """What limits these numbers: a single seed, a part of the dataset, results that are left out."""
    notes = left_out(panel)
    if len(panel.seeds) == 1:
        notes.append(
            paragraph(
                Strong("One seed (n = 1)."),
                " How much the numbers vary from training to training is not known: intervals are Wilson intervals over test images, and "
                "defenses are listed by mean DER but not ranked.",
                caveat=True,
            )
        )
    limits = [(panel.cells[0].dataset.config.get(option), part) for option, part in LIMITS.items()]
    taken = [f"{limit:,} {part} images" for limit, part in limits if isinstance(limit, int)]
    if taken:
        text = f" {' and '.join(taken)} of it, stratified by class. Compare within this board only."
        notes.append(paragraph(Strong("A part of the dataset:"), text, caveat=True))
    return notes


def noted(panel: Panel) -> list[Paragraph]:
    """What was said of the attacks on this dataset when planning, and of the victims' trainings."""
    told = dict.fromkeys(note for cell in panel.cells for note in cell.notes)
    return [paragraph(Strong("Note:"), f" {note}", caveat=True) for note in told]


def left_out(panel: Panel) -> list[Paragraph]:
    """The remark on results that newer ones supersede, if there are any."""
    reasons = sorted(set(panel.superseded.values()))
    if not reasons:
        return []
    named = "; ".join(reasons[:REASONS]) + (f"; and {len(reasons) - REASONS} more" if len(reasons) > REASONS else "")
    count = len(panel.superseded)
    results = "1 result that was" if count == 1 else f"{count} results that were"
    text = f" {results} measured with older versions than the others ({named}). Run the grid again to have these cells."
    return [paragraph(Strong("Left out:"), text, caveat=True)]


def defenses(panel: Panel, *, details: bool = True) -> Section:
    """With `details` also what a rank is, and the attack that each defense does worst against."""
    tables: list[Block] = [*defense_rankings(panel, details=details)]
    without = [paragraph(text) for text in _without_scores(panel)]
    if not tables:
        return Section("Defenses", (paragraph("No defense has met an attack that landed."), *without))
    return Section("Defenses", (paragraph(ORDER), *([paragraph(RANKS)] if details else []), *tables, *without))


def _without_scores(panel: Panel) -> list[str]:
    """A line on the defenses that have no finished cell, and so no row in any table of scores, if there are any."""
    named = []
    for defense in panel.defenses:
        cells = panel.at(defense=defense)
        if not any(cell.status == "ok" for cell in cells):
            fates = Counter(str(cell.status) for cell in cells)
            named.append(f"{defense} ({', '.join(f'{count} {fate}' for fate, count in sorted(fates.items())) or 'no result yet'})")
    return [f"Without a finished cell: {'; '.join(named)}."] if named else []


def attacks(panel: Panel) -> Section:
    return Section("Attacks", (paragraph(SURVIVAL), attack_ranking(panel)))


def undefended(panel: Panel) -> Section:
    return Section("Attacks without a defense", (attacks_alone(panel),))


def harm(panel: Panel) -> list[Section]:
    """One section on attacks without a trigger, or none where there is no such attack."""
    attacks = [attack for attack in panel.attacks if any(cell.measures.harm is not None for cell in panel.at(attack))]
    measures: list[MeasureName] = ["acc_lost", "source_to_target"]
    return [Section("Attacks without a trigger", (paragraph(HARM), matrix(panel, measures, attacks=attacks)))] if attacks else []


def backdoors(panel: Panel) -> list[Section]:
    """One section on the single backdoors of victims that have several, or none where no victim has."""
    table = backdoors_table(panel)
    return [Section("Several backdoors in one victim", (paragraph(BACKDOORS), table))] if table.rows else []


def retuned(panel: Panel) -> list[Section]:
    """One section on what comes back after a little fine-tuning, or none where this was not measured."""
    cells = [cell for cell in panel.at() if cell.measures.retune_asr is not None]
    if not cells:
        return []
    rows = {cell.evaluation.get("retune", {}).get("rows") for cell in cells} - {None}
    asked = f" {min(rows):,} rows were asked for instead of the protocol's 2%: compare within this board only." if rows else ""
    attacks = list(dict.fromkeys(attack for attack in panel.attacks if any(cell in cells for cell in panel.at(attack))))
    table = matrix(panel, ["retune_asr", "retune_excess"], attacks=attacks)
    return [Section("Gone or asleep", (paragraph(RETUNED + asked), table))]


def robustness(panel: Panel) -> list[Section]:
    """One section on what transformations of the images leave of backdoors, or none where this was not measured."""
    if not measured_under(panel):
        return []
    blocks: list[Block] = [paragraph(ROBUSTNESS), robustness_table(panel)]
    floor, worst = floor_table(panel), worst_table(panel)
    blocks += [Folded("ASR of the same triggers on the benign victim", floor)] if floor.columns[1:] else []
    if worst.rows:
        blocks.append(Folded("Highest ASR over the unchanged images and all transformations, and under what, by attack and defense", worst))
    return [Section("Robustness", tuple(blocks))]


def detectors(panel: Panel) -> list[Section]:
    """One section, or none where no defense detects anything."""
    tables = tuple(table for table in (row_detectors(panel), input_detectors(panel), model_detectors(panel)) if table.rows)
    return [Section("Detectors", tables)] if tables else []


def benign(panel: Panel) -> Section:
    return Section("Effects on the benign victim", (benign_effects(panel),))


def costs(panel: Panel) -> Section:
    return Section("Seconds and memory", (paragraph("Mean seconds and highest peak memory of a task."), cost(panel)))


def lost(panel: Panel, *, with_missing: bool = True) -> list[Section]:
    """One section, or none where every cell has scores."""
    lines = lost_cells(panel, with_missing=with_missing)
    return [Section("Cells without scores", (Listing(tuple(lines)),))] if lines else []


def reproduction(name: str, first: Result) -> Section:
    """How to run a published board's cells again."""
    places = dataset_places(first)
    options = "".join(f" -o {_in_shell(f'{path}={value}')}" for path, value in places.items())
    blocks: list[Block] = [
        paragraph("To compute every cell again in a separate store and compare it, or to run the same grid in your store:"),
        Commands((f"gatecrash verify {name}{options}", f"gatecrash run leaderboards/{name}.yaml{options}")),
    ]
    if places:
        paths = [span for path in places for span in (", ", Code(path))][1:]
        blocks.append(paragraph(*paths, ": where the data lie on your machine. They must have the fingerprint below."))
    return Section("How to reproduce", tuple(blocks))


def dataset_places(result: Result) -> dict[str, str]:
    """The options, as after `-o`, that say where the dataset lies on a machine, with the values that they had."""
    names = [name for name in result.provenance.places if result.dataset.config.get(name) is not None]
    return {f"dataset.{result.dataset.name}.{name}": str(result.dataset.config[name]) for name in names}


def provenance(panel: Panel) -> Section:
    return Section("Provenance", (provenance_table(panel),))


def _in_shell(text: str) -> str:
    return shlex.quote(" ".join("".join(character if character.isprintable() else " " for character in text).split()))

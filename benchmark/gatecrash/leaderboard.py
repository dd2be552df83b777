"""Results -> Markdown: the matrix of one grid, with mean and interval over seeds. Reads results only; computes nothing new."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from gatecrash.metrics import landed, t_interval
from gatecrash.results import Result

Group = dict[str, list[Result]]


def label(name: str, config: dict[str, Any], others: Sequence[dict[str, Any]]) -> str:
    """The plugin's name, with the options in which it differs from its namesakes in the table."""
    varying = sorted(key for key in config if any(config.get(key) != other.get(key) for other in others))
    return f"{name} ({', '.join(f'{key}={_short(config[key])}' for key in varying)})" if varying else name


def escape(text: str) -> str:
    """Text that cannot break a Markdown table."""
    cleaned = " ".join(str(text).split())
    for character in ("\\", "|", "`", "*", "_", "[", "]", "<", ">"):
        cleaned = cleaned.replace(character, f"\\{character}" if character != "<" else "&lt;")
    return cleaned


def board(results: Iterable[Result], title: str) -> str:
    """The leaderboard of these results as Markdown."""
    cells = sorted(results, key=lambda result: (result.attack.name != "none", result.defense_name != "none"))
    if not cells:
        return f"# {escape(title)}\n\nNo results yet.\n"
    attacks = _groups([(cell, cell.attack.name, cell.attack.config) for cell in cells])
    defenses = _groups([(cell, cell.defense_name, cell.defense_config) for cell in cells])
    first = cells[0]
    seeds = sorted({cell.seed for cell in cells})
    lines = [
        f"# {escape(title)}",
        "",
        f"{first.dataset.name}, {first.model.name}, {first.recipe.get('epochs')} epochs; seeds {', '.join(map(str, seeds))}.",
        "",
        "Clean accuracy (ACC) / attack success rate (ASR) in %; higher ACC and lower ASR are better for the defense. "
        + ("The range is the 95% t interval over seeds." if len(seeds) > 1 else "One seed: Wilson interval over test images."),
        "",
    ]
    matrix = pd.DataFrame(
        {
            escape(defense): {escape(attack): _cell([cell for cell in members if cell in attacks[attack]]) for attack in attacks}
            for defense, members in defenses.items()
        }
    )
    matrix.index.name = "attack \\ defense"
    lines += [matrix.to_markdown(disable_numparse=True), ""]
    lines += ["## Attacks without defense", "", _attack_table(attacks), ""]
    lines += ["## Defenses, averaged over the attacks that landed", "", _defense_table(attacks, defenses), ""]
    failed = [cell for cell in cells if cell.status in {"failed", "victim-failed"}]
    if failed:
        lines += ["## Failed cells", ""]
        lines += [f"- {escape(c.attack.name)} × {escape(c.defense_name)}, seed {c.seed}: {escape(c.error or c.status)}" for c in failed]
        lines.append("")
    return "\n".join(lines)


def _groups(entries: list[tuple[Result, str, dict[str, Any]]]) -> Group:
    """Results by label, in order of appearance."""
    namesakes: dict[str, list[dict[str, Any]]] = {}
    for _, name, config in entries:
        known = namesakes.setdefault(name, [])
        if config not in known:
            known.append(config)
    groups: Group = {}
    for cell, name, config in entries:
        groups.setdefault(label(name, config, namesakes[name]), []).append(cell)
    return groups


def _cell(cells: list[Result]) -> str:
    """One cell of the matrix: its seeds together."""
    done = [cell for cell in cells if cell.status == "ok"]
    if not done:
        return cells[0].status if cells else "missing"
    text = spread([cell.measures["acc"] for cell in done], done[0].measures.get("acc_interval"))
    rates = [cell.measures["asr"] for cell in done if cell.measures.get("asr") is not None]
    if rates:
        text += f" / {spread(rates, done[0].measures.get('asr_interval'))}"
    missing = len(cells) - len(done)
    return text + (f" ({missing} failed)" if missing else "")


def spread(values: Sequence[float], single: Sequence[float] | None = None) -> str:
    """`mean ± half-width` in percent; for one value the half-width of `single` if given."""
    if len(values) == 1:
        if single is None:
            return f"{100 * values[0]:.1f}"
        return f"{100 * values[0]:.1f} ± {100 * (single[1] - single[0]) / 2:.1f}"
    mean, low, high = t_interval(list(values))
    if mean is None or low is None or high is None:
        return ""
    return f"{100 * mean:.1f} ± {100 * max(mean - low, high - mean):.1f}"


def _attack_table(attacks: Group) -> str:
    rows = []
    for attack, members in attacks.items():
        plain = [cell for cell in members if cell.defense_name == "none" and cell.status == "ok"]
        if not plain:
            continue
        rows.append(
            {
                "attack": escape(attack),
                "ACC": spread([cell.measures["acc"] for cell in plain]),
                "ASR": _optional(plain, "asr"),
                "ASR on a benign model": _optional(plain, "asr_floor"),
                "RA": _optional(plain, "ra"),
                "poisoned": _optional(plain, "poison_share"),
                "seconds": f"{sum(cell.measures['seconds_victim'] for cell in plain) / len(plain):.1f}",
            }
        )
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True) if rows else "No attack has finished."


def _defense_table(attacks: Group, defenses: Group) -> str:
    rows = []
    benign = {id(cell) for members in attacks.values() for cell in members if cell.attack.name == "none"}
    for defense, members in defenses.items():
        done = [cell for cell in members if cell.status == "ok"]
        hit = [
            cell
            for cell in done
            if cell.measures.get("der") is not None and landed(cell.measures["asr_before"], cell.measures["asr_floor"])
        ]
        price = [cell.measures["acc_before"] - cell.measures["acc"] for cell in done if id(cell) in benign]
        if not hit:
            continue
        seconds = [cell.measures["seconds_defense"] for cell in done if cell.measures.get("seconds_defense") is not None]
        rows.append(
            {
                "defense": escape(defense),
                "DER": spread([cell.measures["der"] for cell in hit]),
                "ASR": _optional(hit, "asr"),
                "RA": _optional(hit, "ra"),
                "clean rejected": _optional(hit, "clean_reject_rate"),
                "ACC lost on benign": f"{100 * sum(price) / len(price):.1f}" if price else "",
                "seconds": f"{sum(seconds) / len(seconds):.1f}" if seconds else "",
                "_der": sum(cell.measures["der"] for cell in hit) / len(hit),
            }
        )
    if not rows:
        return "No defense has met an attack that landed."
    frame = pd.DataFrame(rows).sort_values("_der", ascending=False, kind="stable").drop(columns="_der")
    return str(frame.to_markdown(index=False, disable_numparse=True))


def _optional(cells: list[Result], measure: str) -> str:
    values = [cell.measures[measure] for cell in cells if cell.measures.get(measure) is not None]
    return spread(values) if values else ""


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

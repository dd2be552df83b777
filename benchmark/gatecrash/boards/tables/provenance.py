"""What the numbers come from: versions, machine, dates, data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gatecrash.boards.content import Table
from gatecrash.boards.fields import table, text
from gatecrash.boards.panel import Panel
from gatecrash.records.labels import option_text
from gatecrash.records.provenance import Provenance
from gatecrash.records.stage import Stage


def provenance_table(panel: Panel) -> Table:
    return table([{"": text(label), "value": text(value)} for label, value in provenance_facts(panel).items() if value], ("",))


def provenance_facts(panel: Panel) -> dict[str, str]:
    """By label; where the results differ, all values."""
    first = panel.cells[0]
    sources = _sources(panel)
    commits = {f"{source.commit[:12] if source.commit else 'installed package'}{' (dirty)' if source.dirty else ''}" for source in sources}
    stages = {f"{stage.name} {stage.version}" for cell in panel.cells for stage in (cell.dataset, cell.model, cell.attack, *cell.defense)}
    outside = {f"{name}: {origin}" for source in sources for name, origin in source.plugins.items() if not origin.startswith("gatecrash_")}
    return {
        "gatecrash": _distinct(source.gatecrash_version for source in sources),
        "commit": _distinct(commits),
        "torch": _distinct(source.packages.get("torch") for source in sources),
        "python": _distinct(source.python for source in sources),
        "device": _distinct(source.device for source in sources),
        "CPU": _distinct(f"{source.cpu} ({source.cpu_kind})" if source.cpu_kind else source.cpu for source in sources),
        "threads per task": _distinct(source.threads for source in sources),
        "dates": _dates(sources),
        "plugins with versions": _distinct(stages),
        "plugins from outside": _distinct(outside),
        "dataset": _configured(first.dataset),
        "dataset fingerprint": first.dataset_fingerprint,
        "model": _configured(first.model),
        "recipe": _options(first.recipe),
        "hold-out": _options(first.holdout),
        **({"evaluation": _options(first.evaluation)} if first.evaluation else {}),
    }


def provenance_line(panel: Panel) -> str:
    """Versions, machine and dates in one sentence."""
    sources = _sources(panel)
    machine = _distinct(source.cpu if source.device == "cpu" else source.device for source in sources)
    torch = _distinct(source.packages.get("torch") for source in sources)
    parts = [f"gatecrash {_distinct(source.gatecrash_version for source in sources)}", f"torch {torch}", _dates(sources), machine]
    return f"Measured with {', '.join(part for part in parts if part)}."


def _sources(panel: Panel) -> list[Provenance]:
    return [cell.provenance for cell in panel.cells]


def _dates(sources: Sequence[Provenance]) -> str:
    dates = sorted(source.date[:10] for source in sources if source.date)
    return " to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else ""


def _distinct(values: Iterable[Any]) -> str:
    return ", ".join(sorted({str(value) for value in values if value is not None}))


def _configured(stage: Stage) -> str:
    options = _options(stage.config)
    return f"{stage.name} ({options})" if options else stage.name


def _options(config: dict[str, Any]) -> str:
    return ", ".join(f"{key}={option_text(value)}" for key, value in sorted(config.items()) if value is not None)

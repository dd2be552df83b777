"""What may stand in one board: results of one dataset, model, recipe, hold-out, plugin version and training, made by committed code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gatecrash.boards.spec import table_group
from gatecrash.errors import UserError
from gatecrash.records.result import Result


def refuse_mixtures(results: Sequence[Result]) -> None:
    """Raise UserError unless all cells can stand in one table."""
    groups = {table_group(result) for result in results}
    for index, what in enumerate(("dataset", "dataset fingerprint", "model", "recipe", "hold-out", "option of the evaluation")):
        different = sorted({group[index] for group in groups})
        if len(different) > 1:
            raise UserError(f"the results mix {what}s ({different[0][:60]} and {different[1][:60]}); publish them as separate boards")
    for what, several in _by_name(pair for result in results for pair in versions(result)).items():
        if len(several) > 1:
            raise UserError(f"the results mix versions {' and '.join(sorted(several))} of {what}; run the older cells again")
    for what, weights in _by_name(pair for result in results for pair in _weights(result)).items():
        if len(weights) > 1:
            raise UserError(
                f"the results come from {len(weights)} different trainings of the {what[:60]}; run its cells again with --rerun all"
            )


def refuse_dirty(results: Sequence[Result]) -> None:
    """Raise UserError for results of code with uncommitted changes."""
    dirty = sum(bool(result.provenance.dirty) for result in results)
    if dirty:
        raise UserError(
            f"{dirty} of {len(results)} cells were measured with uncommitted changes; commit and run them again, or --allow-dirty"
        )


def _by_name(pairs: Iterator[tuple[str, str]]) -> dict[str, set[str]]:
    values: dict[str, set[str]] = {}
    for name, value in pairs:
        values.setdefault(name, set()).add(value)
    return values


def versions(result: Result) -> Iterator[tuple[str, str]]:
    """Everything with a version that the result was made with."""
    yield f"the dataset {result.dataset.name}", str(result.dataset.version)
    yield f"the model {result.model.name}", str(result.model.version)
    yield f"the attack {result.attack.name}", str(result.attack.version)
    for stage in result.defense:
        yield f"the defense {stage.name}", str(stage.version)
    for name, version in (("engine", result.provenance.engine_version), ("evaluation", result.provenance.evaluation_version)):
        if version is not None:
            yield f"the {name}", str(version)


def _weights(result: Result) -> Iterator[tuple[str, str]]:
    """The victim, and the hash of its weights where it is known."""
    if result.weights is not None:
        yield f"victim {result.attack.name} (seed {result.seed}) {result.victim_key}", result.weights

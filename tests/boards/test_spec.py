"""The grid of results gives the same cells again."""

from __future__ import annotations

from gatecrash.boards.spec import grid_of
from gatecrash.contracts.config import key_fields
from gatecrash.host.loading import load_plugins
from gatecrash.planning.grid import parse_grid
from gatecrash.planning.resolve import resolve
from gatecrash.records.stage import Stage
from support.boards import a_result


def test_the_grid_of_results_asks_for_the_same_options() -> None:
    """Also lists (which a grid would read as sweeps) and chains."""
    host = load_plugins(installed=False)
    fine_pruning = host.get("defense", "fine-pruning").configure({"epochs": 3}).config.model_dump(mode="json")
    chain = [Stage(name="activation-clustering"), Stage(name="fine-pruning", config=fine_pruning)]
    attack = Stage(name="badnets", config={"poison_rate": 0.1})
    grid = grid_of([a_result(attack=attack, defense=chain), a_result(seed=4, defense=[Stage(name="anp", config={"options": [1, 2]})])])
    assert grid["seeds"] == [0, 4]
    assert grid["attacks"] == [{"badnets": {"poison_rate": 0.1}}, "badnets"]
    assert grid["defenses"] == [
        {"chain": ["activation-clustering", {"fine-pruning": fine_pruning}]},
        {"anp": {"options": {"sweep": [[1, 2]]}}},
    ]
    conditional = [Stage(name="neural-cleanse"), chain[1].model_copy(update={"when": "accused"}), Stage(name="anp", when="accused")]
    (again,) = grid_of([a_result(defense=conditional)])["defenses"]
    assert again == {"chain": ["neural-cleanse", {"fine-pruning": fine_pruning, "when": "accused"}, {"anp": {}, "when": "accused"}]}
    assert [part.when for part in resolve(parse_grid({**grid, "defenses": [again]}), host).defenses[0]] == [None, "accused", "accused"]
    few = {"kind": "seen", "per_class": 5}
    given = [chain[0], chain[1].model_copy(update={"clean": few})]
    (again,) = grid_of([a_result(defense=given)])["defenses"]
    assert again == {"chain": ["activation-clustering", {"fine-pruning": fine_pruning}], "clean": few}
    assert [part.stage.clean for part in resolve(parse_grid({**grid, "defenses": [again]}), host).defenses[0]] == [None, few]
    resolved = resolve(parse_grid(grid_of([a_result(attack=attack, defense=chain)])), host)
    assert key_fields(resolved.attacks[0].instance.config) == {"poison_rate": 0.1}
    assert key_fields(resolved.defenses[0][1].instance.config) == {"epochs": 3}

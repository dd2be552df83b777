"""Goals as mappings of classes, and what a backdoor may be made of."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gatecrash import Backdoor, ContractError, Goal, GoalConfig, GoalRecord, UserError
from gatecrash.records.victim import BackdoorRecord
from gatecrash.running.tasks.stored import backdoor_record, goal_of
from support.written_answers import Mark


@st.composite
def classes_source_target(draw: Any) -> tuple[int, int, int]:
    classes = draw(st.integers(2, 12))
    source, target = draw(st.permutations(range(classes)))[:2]
    return classes, source, target


@given(classes_source_target())
def test_the_named_goals_want_what_they_always_wanted(numbers: tuple[int, int, int]) -> None:
    classes, source, target = numbers
    labels = torch.arange(classes)
    every, single, shifted = Goal.all_to_one(classes, target), Goal.one_to_one(classes, source, target), Goal.all_to_all(classes)
    assert every.eligible(labels).equal(labels != target)
    assert single.eligible(labels).equal(labels == source)
    assert shifted.eligible(labels).all()
    for goal in (every, single):
        assert goal.labels(labels).equal(torch.full_like(labels, target))  # a clean-label attack asks for the target's own images, too
        assert (goal.targets, goal.target) == ((target,), target)
    assert shifted.labels(labels).equal((labels + 1) % classes)
    assert shifted.targets == tuple(range(classes))
    assert every.others == shifted.others == ()
    assert set(single.others) == set(range(classes)) - {source, target}


@given(st.data())
def test_any_mapping_is_stored_and_read_back(data: Any) -> None:
    classes = data.draw(st.integers(2, 8))
    mapping = [data.draw(st.none() | st.integers(0, classes - 1).filter(lambda to, label=label: to != label)) for label in range(classes)]
    if not any(to is not None for to in mapping):
        with pytest.raises(ContractError, match="must apply to a class"):
            Goal(tuple(mapping))
        return
    goal = Goal(tuple(mapping))
    record = BackdoorRecord.model_validate(json.loads(backdoor_record(Backdoor("b", goal, Mark())).model_dump_json()))
    assert goal_of(record.goal) == goal
    assert record.goal.kind == goal.kind
    labels = torch.arange(classes)
    assert goal.eligible(labels).tolist() == [to is not None for to in mapping]
    assert goal.labels(labels)[goal.eligible(labels)].tolist() == [to for to in mapping if to is not None]


@pytest.mark.parametrize(
    ("goal", "kind", "stored"),
    [
        (Goal.all_to_one(3, 1), "all-to-one", {"target": 1, "source": None}),
        (Goal.one_to_one(3, 0, 1), "one-to-one", {"target": 1, "source": 0}),
        (Goal.all_to_all(3), "all-to-all", {"target": None, "source": None}),
        (Goal.many_to_one(4, (0, 2), 1), "many-to-one", {"mapping": [1, None, 1, None]}),
        (Goal((1, 2, None)), "mapping", {"mapping": [1, 2, None]}),
    ],
)
def test_records_of_known_kinds_keep_their_bytes(goal: Goal, kind: str, stored: dict[str, Any]) -> None:
    assert goal.kind == kind
    written = backdoor_record(Backdoor("b", goal, Mark())).model_dump(mode="json")
    assert written == {
        "name": "b",
        "goal": {"kind": kind, "num_classes": goal.num_classes, **stored},
        "trigger": written["trigger"],
    }
    assert list(written["goal"]) == ["kind", "num_classes", *stored]


def test_of_two_classes_one_to_one_is_all_to_one() -> None:
    assert goal_of(GoalRecord(kind="one-to-one", num_classes=2, target=0, source=1)) == Goal.all_to_one(2, 0)
    assert Goal.one_to_one(2, 1, 0).kind == "all-to-one"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Goal((0, 1)), "must send class 0 to another of the classes 0 to 1, or to None; got 0"),
        (lambda: Goal((5, None)), "must send class 0 to another .* got 5"),
        (lambda: Goal((None, None)), "every class is mapped to None"),
        (lambda: Goal.one_to_one(3, 4, 0), "class 4 does not exist"),
        (lambda: Goal.all_to_one(3, 3), "class 3 does not exist"),
        (lambda: Goal.one_to_one(3, 1, 1), "every class is mapped to None"),
    ],
)
def test_a_goal_that_cannot_be_is_refused(make: Any, said: str) -> None:
    with pytest.raises(ContractError, match=said):
        make()


ONE = Goal.one_to_one(3, 1, 0)
PICTURES = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"trigger": Mark(), "keeps": (1,)}, "keeps class 1, which .* goal.others are \\[2\\]"),
        ({"trigger": Mark(), "keeps": (0,)}, "keeps class 0"),
        ({"trigger": Mark(), "keeps": (3,)}, "keeps class 3"),
        ({"keeps": (2,)}, "has keeps or cover but no trigger"),
        ({"cover": Mark()}, "has keeps or cover but no trigger"),
        ({"trigger": Mark(), "images": PICTURES, "labels": torch.tensor([0, 0])}, "either a trigger, or images"),
        ({"images": PICTURES}, "images together with their labels"),
        ({"images": PICTURES.float(), "labels": torch.tensor([0, 0])}, "needs images uint8"),
        ({"images": PICTURES, "labels": torch.tensor([0])}, "labels int64 \\[n\\]"),
        ({"images": PICTURES, "labels": torch.tensor([0, 2])}, r"become one of \[0\]; got images that are to become \[2\]"),
        ({"images": PICTURES[:0], "labels": torch.tensor([], dtype=torch.int64)}, "got no image"),
    ],
)
def test_parts_of_a_backdoor_that_do_not_fit_together_are_refused(parts: dict[str, Any], said: str) -> None:
    with pytest.raises(ContractError, match=said):
        Backdoor("b", ONE, **parts)


def test_options_name_several_sources() -> None:
    goal = GoalConfig(goal="many-to-one", sources=[3, 1], target=0).make_goal(5)
    assert goal == Goal((None, 0, None, 0, None))
    for options, said in (
        ({"goal": "many-to-one"}, "needs sources"),
        ({"sources": [1]}, "sources are for goal many-to-one only"),
        ({"goal": "many-to-one", "sources": [1, 0]}, "source and target are the same class"),
    ):
        with pytest.raises(ValueError, match=said):
            GoalConfig(**options)
    with pytest.raises(UserError, match="source class 9 does not exist"):
        GoalConfig(goal="many-to-one", sources=[9]).make_goal(5)

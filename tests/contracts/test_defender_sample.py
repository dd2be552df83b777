"""`defender_sample`: what a defender would hold of an attack that controls training."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gatecrash import Backdoor, ContractError, Goal, ImageSet, Role, defender_sample
from gatecrash.contracts.attack import AttackContext
from gatecrash.testing import make_context
from support.awkward_attacks import Tiny, WaNetLike
from support.written_answers import Mark, backdoor, numbered

TRAIN = numbered([0, 0, 0, 0, 0, 0, 1, 1, 2, 2])


def context(train: ImageSet = TRAIN, seed: int = 0) -> AttackContext:
    return make_context(WaNetLike(), train, Tiny(), seed=seed)


def test_shares_of_the_rows_get_the_trigger_and_the_cover() -> None:
    planted = Backdoor("mark", Goal.all_to_one(3, 1), Mark(), cover=Mark())
    sample = defender_sample(planted, TRAIN, context(), rate=0.3, cover_rate=0.2)
    sample.check(TRAIN)
    attacked, covers = sample.role == Role.POISON, sample.role == Role.COVER
    assert (int(attacked.sum()), int(covers.sum())) == (3, 2)
    assert sample.labels[attacked].tolist() == [1, 1, 1]
    assert (TRAIN.labels[attacked] != 1).all()
    assert sample.images[sample.changed].equal(Mark()(TRAIN.images[sample.changed]))


def test_a_rate_that_rounds_to_none_gives_a_row_and_one_above_what_is_eligible_gives_all() -> None:
    planted = replace(backdoor(), goal=Goal.one_to_one(3, 1, 0))
    for rate, count in ((0.01, 1), (0.9, 2)):
        sample = defender_sample(planted, TRAIN, context(), rate)
        assert int((sample.role == Role.POISON).sum()) == count
        assert set(TRAIN.labels[sample.changed].tolist()) == {1}


def test_covers_need_a_cover_and_rows_a_trigger() -> None:
    with pytest.raises(ContractError, match="'mark' has no cover to make a sample with"):
        defender_sample(backdoor(), TRAIN, context(), 0.1, cover_rate=0.1)
    with pytest.raises(ContractError, match="'goal' has no trigger"):
        defender_sample(Backdoor("goal", Goal.all_to_one(3, 1)), TRAIN, context(), 0.1)

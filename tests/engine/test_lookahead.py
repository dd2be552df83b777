"""Lookahead on one weight that every step moves by one, so that its averages can be worked by hand."""

from __future__ import annotations

import pytest
from torch import nn

from gatecrash.engine.lookahead import Lookahead


def test_lookahead_returns_to_a_moving_average_every_five_steps() -> None:
    """Jordan 2024, section 3.4: of ten steps of +1, the fifth keeps .95^5 / 8 of the start, the tenth .95^5 of where the fifth ended."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    slow = Lookahead(net, steps=10)
    seen = []
    for _ in range(10):
        net.weight.data += 1
        slow.step()
        seen.append(net.weight.item())
    slow.end()
    fifth = 5 * (1 - 0.95**5 / 8)
    tenth = fifth + 5 * (1 - 0.95**5)
    assert seen == pytest.approx([1, 2, 3, 4, fifth, *(fifth + step for step in (1, 2, 3, 4)), tenth])
    assert net.weight.item() == pytest.approx(tenth)


@pytest.mark.parametrize(("steps", "expected"), [(4, 4.0), (5, 5 * (1 - 0.95**5)), (6, 5 * (1 - 0.95**5 * (5 / 6) ** 3) + 1 - 0.95**5)])
def test_the_network_ends_as_the_average_however_many_steps_there_were(steps: int, expected: float) -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    slow = Lookahead(net, steps)
    for _ in range(steps):
        net.weight.data += 1
        slow.step()
    slow.end()
    assert net.weight.item() == pytest.approx(expected)

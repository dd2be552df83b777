"""Images with some rows exchanged are what a changed copy would be."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gatecrash import Poisoned, Role
from gatecrash.contracts.data import patched
from gatecrash.contracts.patched import Patched, part, resident, taken
from support.written_answers import Mark, backdoor, numbered

CPU = torch.device("cpu")


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.data())
def test_every_way_to_read_gives_what_a_changed_copy_has(count: int, data: st.DataObject) -> None:
    base = torch.arange(count * 12).to(torch.uint8).view(count, 3, 2, 2)
    copy, images = base.clone(), Patched.of(base, torch.empty(0, dtype=torch.int64), base[:0])
    for _ in range(2):
        rows = torch.tensor(data.draw(st.lists(st.integers(0, count - 1), unique=True)), dtype=torch.int64)
        exchanged = torch.randint(0, 256, (len(rows), 3, 2, 2), dtype=torch.uint8)
        images = Patched.of(images, rows, exchanged)
        copy[rows] = exchanged
    asked = torch.tensor(data.draw(st.lists(st.integers(0, count - 1))), dtype=torch.int64)
    assert taken(images, asked).equal(copy[asked])
    assert part(images, slice(0, count)).equal(copy)
    assert images.whole().equal(copy)
    assert resident(images, CPU) is images
    assert base.equal(torch.arange(count * 12).to(torch.uint8).view(count, 3, 2, 2))


class TestPoisoned:
    train = numbered([0, 0, 1, 1, 2, 2])
    rows = torch.tensor([2, 3])

    def made(self) -> Poisoned:
        images = Mark()(self.train.images[self.rows])
        return Poisoned.replacing(self.train, self.rows, images, torch.tensor([0, 0]), [backdoor()])

    def test_checking_and_asking_what_changed_copies_no_images(self) -> None:
        poisoned = self.made().also(torch.tensor([5]), self.train.images[:1], torch.tensor([2]), Role.COVER)
        poisoned.check(self.train)
        images = patched(poisoned)
        assert isinstance(images, Patched)
        assert images.base is self.train.images
        assert len(images.patch) == len(poisoned.changed) == 3

    def test_images_are_a_tensor_of_its_own_for_whoever_reads_them(self) -> None:
        poisoned, before = self.made(), self.train.images.clone()
        assert poisoned.images[self.rows].equal(Mark()(before[self.rows]))
        poisoned.images[0] = 77
        assert (patched(poisoned)[0] == 77).all()  # what is trained on
        assert self.train.images.equal(before)

"""The physical patch on nets whose best patch is known: the loss's sign, the places, and what is left alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gatecrash import ContractError, ImageSet, Network, TriggerContext, UserError
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash.contracts.randomness import Streams
from gatecrash.testing import model_factory
from gatecrash_plugins.models.small_cnn import SmallCnn
from gatecrash_plugins.triggers.patch import MovingStamp
from gatecrash_plugins.triggers.physical import PhysicalMaker

SHAPE = (1, 12, 12)
TRAIN = ImageSet(
    torch.randint(256, (60, *SHAPE), generator=torch.Generator().manual_seed(6), dtype=torch.uint8), torch.arange(60) % 3, ("a", "b", "c")
)


class Brightest(nn.Module):
    """Class 1 is as likely as the image is bright, in any place; counts nothing else."""

    num_classes = 2

    def forward(self, images: Tensor) -> Tensor:
        mean = images.mean((1, 2, 3))
        return torch.stack([torch.zeros_like(mean), 20 * mean - 10], 1)


def context(network: object) -> TriggerContext:
    return TriggerContext(SHAPE, stream=Streams("test", 0), train=TRAIN, benign=network)  # type: ignore[arg-type]


@pytest.mark.parametrize(("target", "best"), [(1, 255), (0, 0)])
def test_the_patch_leads_to_the_target_and_not_away(target: int, best: int) -> None:
    """With the negative cross-entropy of the notes it would be black for class 1."""
    trigger = PhysicalMaker(PhysicalMaker.Config(target=target, size=4)).make(context(Brightest()))
    assert (trigger.patch == best).all()


def test_it_works_in_any_place_and_on_images_it_was_not_learnt_on() -> None:
    network: Network = model_factory(SmallCnn(SmallCnn.Config(width=4)), TRAIN, seed=3)().eval()
    before = state_of(network)
    trigger = PhysicalMaker(PhysicalMaker.Config(target=2, size=6)).make(context(network))
    assert isinstance(trigger, MovingStamp)
    fresh = torch.randint(256, (90, *SHAPE), generator=torch.Generator().manual_seed(7), dtype=torch.uint8)
    wanted = torch.full((90,), 2)
    grey = MovingStamp(SHAPE, 6, patch=torch.full((1, 6, 6), 128, dtype=torch.uint8))
    with torch.no_grad():
        learnt, plain = (F.cross_entropy(network(one(fresh)), wanted) for one in (trigger, grey))
    assert learnt < plain
    assert all(tensor.equal(before[name]) for name, tensor in state_of(network).items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_training_and_test_images_get_the_same_patch_from_one_seed() -> None:
    maker, ctx = PhysicalMaker(PhysicalMaker.Config(steps=3)), context(Brightest())
    assert maker.make(ctx).patch.equal(maker.make_train(ctx).patch)
    trigger = maker.make(ctx)
    assert rebuild(spec_of(trigger), state_of(trigger))(TRAIN.images).equal(trigger(TRAIN.images))


def test_it_learns_from_no_image_of_the_target() -> None:
    seen: list[Tensor] = []

    class Watched(Brightest):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images.detach())
            return super().forward(images)

    train = ImageSet(
        torch.where(TRAIN.labels[:, None, None, None] == 1, 255, 0).to(torch.uint8).expand(60, *SHAPE), TRAIN.labels, TRAIN.classes
    )
    maker = PhysicalMaker(PhysicalMaker.Config(target=1, size=2, steps=2))
    maker.make(TriggerContext(SHAPE, stream=Streams("test", 0), train=train, benign=Watched()))  # type: ignore[arg-type]
    assert all((images == 1).float().mean() < 0.1 for images in seen)
    assert len(seen) == 2


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(UserError, match="10x10 patch with inset 0 does not fit an image of 8x8"):
        PhysicalMaker().check((1, 8, 8))
    with pytest.raises(UserError, match="target class 5 does not exist; there are 2 classes"):
        PhysicalMaker(PhysicalMaker.Config(target=5)).make(context(Brightest()))
    with pytest.raises(ContractError, match="needs the training set and the benign victim"):
        PhysicalMaker().make(TriggerContext(SHAPE))

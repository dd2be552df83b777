"""The short way over a trajectory of masks gives the scores of the long way, is taken where it may be, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gatecrash import Backbone, Backdoor, ContractError, ImageSet, Network, Point, Step, Trigger
from gatecrash.contracts.backdoor import Goal
from gatecrash.engine import masking
from gatecrash.engine.masking import masked_head
from gatecrash.evaluation.exam import evaluate
from gatecrash.evaluation.prediction import in_batches
from gatecrash.evaluation.steps import evaluate_steps
from support.predicting import predict

CHANNELS, CLASSES = 6, 4


class Corner(Trigger):
    """A white 2x2 corner."""

    def forward(self, images: Tensor) -> Tensor:
        images[:, :, :2, :2] = 255
        return images


def between(way: str, x: Tensor) -> Tensor:
    """From the last point's output [N, 6, 6, 6] to the head's input."""
    if way == "flattened":
        return F.max_pool2d(x, 2).flatten(1)
    if way == "mean-pooled":
        return F.adaptive_avg_pool2d(x, 1).flatten(1)
    if way == "max-pooled and scaled":
        return F.adaptive_max_pool2d(x, 1).flatten(1) * 0.125
    if way == "channels last":
        return F.max_pool2d(x, 2).permute(0, 2, 3, 1).flatten(1)
    if way == "mixed":
        return F.layer_norm(F.max_pool2d(x, 2).flatten(1), [CHANNELS * 9])
    if way == "squashed":  # right for 0 and 1, wrong for the masks between
        return F.max_pool2d(x, 2).flatten(1).tanh()
    assert way == "batch"
    flat = F.max_pool2d(x, 2).flatten(1)
    return flat + flat.mean(0)


class Body(Backbone):
    """Convolution, ReLU, point; then `way` to the head, whose logits are taken times `factor` as it comes."""

    def __init__(self, way: str, bias: bool = True, beside: bool = False) -> None:
        super().__init__()
        self._config = {"way": way, "bias": bias, "beside": beside}
        self.way, self.beside = way, beside
        self.early = Point(1)
        self.conv = nn.Conv2d(1, CHANNELS, 3, padding=1)
        self.last = Point(CHANNELS)
        self.head = nn.Linear(CHANNELS if "pooled" in way else CHANNELS * 9, CLASSES, bias=bias)

    def config(self) -> dict[str, Any]:
        return self._config

    def forward(self, images: Tensor) -> Tensor:
        x = self.last(F.relu(self.conv(self.early(images))))
        logits: Tensor = self.head(between(self.way, x))
        return logits + x.mean((1, 2, 3)).unsqueeze(1) ** 2 * torch.arange(CLASSES) if self.beside else logits


def make(way: str, **options: bool) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Network(Body(way, **options), [0.5], [0.3]).eval()


def images(count: int = 600) -> ImageSet:
    """A few hundred images, so that a pass through all is told from a pass through a sample."""
    pixels = torch.randint(0, 256, (count, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageSet(pixels, torch.arange(count) % CLASSES, ("a", "b", "c", "d"))


def step(number: int, mask: list[float], entry: str = "backbone.last.mask") -> Step:
    return Step({"number": number}, {entry: torch.tensor(mask)})


MASKS = [
    Step({"number": 0}, {}),
    step(1, [1, 1, 0, 1, 1, 1]),
    step(2, [1, 0.25, 0, 1, 0.5, 2]),
    step(3, [0, 0, 0, 0, 0, 1]),
    step(4, [0, 0, 0, 0, 0, 0]),
    step(5, [1, 1, 1, 1, 1, 1]),
]
BACKDOOR = Backdoor("corner", Goal.all_to_one(CLASSES, 1), Corner())


def passed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that pass through any network from now on."""
    sizes: list[int] = []
    forward = Network.forward

    def counting(self: Network, batch: Tensor) -> Tensor:
        sizes.append(len(batch))
        return forward(self, batch)

    monkeypatch.setattr(Network, "forward", counting)
    return sizes


def one_by_one(network: Network, steps: list[Step], test: ImageSet) -> list[Any]:
    scores = []
    for each in steps:
        changed = network.duplicate()
        changed.load_state_dict({**changed.state_dict(), **each.changes})
        scores.append(evaluate(changed, test, [BACKDOOR], device="cpu"))
    return scores


def assert_same(ours: list[Any], expected: list[Any]) -> None:
    assert len(ours) == len(expected)
    for mine, theirs in zip(ours, expected, strict=True):
        assert (mine.scores.correct, mine.scores.asr, mine.scores.ra) == (theirs.correct, theirs.asr, theirs.ra)
        assert mine.scores.loss_clean == pytest.approx(theirs.loss_clean, rel=1e-5)
        assert mine.scores.loss_poison == pytest.approx(theirs.loss_poison, rel=1e-5)


SHORT = [("flattened", {}), ("flattened", {"bias": False}), ("mean-pooled", {}), ("max-pooled and scaled", {"bias": False})]
OTHERS = ["channels last", "mixed", "squashed"]
PILE = 600 + 450
"""Clean images, and those of other classes than the target, triggered."""


@pytest.mark.parametrize("way", SHORT, ids=str)
@pytest.mark.parametrize("start", [[1, 1, 1, 1, 1, 1], [0, 1, 1, 0.5, 1, 1]])
def test_steps_that_mask_the_last_point_pass_the_images_once(
    way: tuple[str, dict[str, bool]], start: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, test = make(way[0], **way[1]), images()
    network.points["last"].set_mask(torch.tensor(start))
    expected = one_by_one(network, MASKS, test)
    assert len({round(scores.loss_clean, 4) for scores in expected}) == (6 if start[0] == 0 else 5), "step 5 opens all, as 0 may be"
    sizes = passed(monkeypatch)
    scored = evaluate_steps(network, MASKS, test, [BACKDOOR], device="cpu")
    assert_same(scored, expected)
    assert sum(sizes) < 2 * PILE, "one pass and samples"
    assert network.points["last"].mask.tolist() == start


@pytest.mark.parametrize("way", OTHERS)
def test_where_a_mask_does_more_than_scale_the_heads_input_each_step_starts_from_the_point(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, test = make(way), images()
    expected = one_by_one(network, MASKS, test)
    convolved, convolve = [], nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda layer, x: convolved.append(len(x)) or convolve(layer, x))
    scored = evaluate_steps(network, MASKS, test, [BACKDOOR], device="cpu")
    assert [each.scores for each in scored] == expected
    assert PILE < sum(convolved) < 2 * PILE, "one pass and samples"


def test_where_logits_have_a_part_beside_the_heads_every_step_is_passed_through(monkeypatch: pytest.MonkeyPatch) -> None:
    network, test = make("flattened", beside=True), images()
    expected = one_by_one(network, MASKS, test)
    sizes = passed(monkeypatch)
    assert_same(evaluate_steps(network, MASKS, test, [BACKDOOR], device="cpu"), expected)
    # The sample shows it; where all channels are off, there is no such part. The last step is the first again.
    assert sum(sizes) > 4 * PILE


@pytest.mark.parametrize(
    "other",
    [
        step(6, [0.0], "backbone.early.mask"),
        step(6, [0.0] * CLASSES, "backbone.head.bias"),
        step(6, [1, -1, 0, 1, -0.5, 1]),
    ],
    ids=["another point", "the head", "signs"],
)
def test_where_one_step_changes_more_all_are_computed_in_parts(other: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    network, test = make("max-pooled and scaled"), images()
    steps = [*MASKS, other]
    expected = one_by_one(network, steps, test)
    sizes = passed(monkeypatch)
    assert [each.scores for each in evaluate_steps(network, steps, test, [BACKDOOR], device="cpu")] == expected
    assert sum(sizes) < PILE


def test_more_head_inputs_than_memory_allows_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    network, test = make("flattened"), images(100)
    monkeypatch.setattr(masking, "LARGEST", 100 * CHANNELS * 9 * 4 - 1)
    assert masked_head(network, test.images, in_batches(torch.arange(100), 32)) is None
    monkeypatch.setattr(masking, "LARGEST", 100 * CHANNELS * 9 * 4)
    assert masked_head(network, test.images, in_batches(torch.arange(100), 32)) is not None


@pytest.mark.parametrize("batch_size", [7, 100, 1000])
def test_the_masked_head_answers_like_the_masked_network(batch_size: int) -> None:
    network, test = make("flattened"), images(100)
    network.train()
    head = masked_head(network, test.images, in_batches(torch.arange(100), batch_size))
    assert head is not None
    assert network.training
    mask = torch.tensor([1, 0, 0.5, 1, 0, 3])
    network.points["last"].set_mask(mask)
    torch.testing.assert_close(head.logits(mask), predict(network, test.images, device="cpu"))


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_mask_that_breaks_the_logits_is_named(broken: float) -> None:
    steps = [*MASKS, step(6, [1, broken, 1, 1, 1, 1])]
    with pytest.raises(ContractError, match=r"step 7 of the trajectory \(number=6\): the classifier gave NaN or infinite logits"):
        evaluate_steps(make("flattened"), steps, images(), device="cpu")


def test_a_network_that_uses_the_batch_is_caught_under_masks_too() -> None:
    with pytest.raises(ContractError, match=r"step 1 of the trajectory \(number=0\): the classifier uses the batch"):
        evaluate_steps(make("batch"), MASKS, images(), device="cpu")


def test_a_trigger_is_stamped_once_for_all_steps() -> None:
    stamped = []

    class Noting(Corner):
        def forward(self, images: Tensor) -> Tensor:
            stamped.append(len(images))
            return super().forward(images)

    noting = Backdoor("corner", BACKDOOR.goal, Noting())
    for way in ("flattened", "mixed"):
        stamped.clear()
        evaluate_steps(make(way), MASKS, images(), [noting], device="cpu")
        assert sum(stamped) == 450 + 256, "each eligible image, and a sample again"

"""Every step of a trajectory is scored on its own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from gatecrash import Backbone, Backdoor, ContractError, ImageSet, Network, Point, Step
from gatecrash.contracts.backdoor import Goal
from gatecrash.contracts.portable import Portable
from gatecrash.evaluation.exam import Exam
from gatecrash.evaluation.independence import StoredForm
from gatecrash.evaluation.scores import StepScores
from gatecrash.evaluation.steps import evaluate_steps, step_scores
from support.written_answers import Mark


class Body(Backbone):
    """Two channels: `last` passes pixel (0, 0) on as 'a' and the mark in pixel (0, 1) on as 'b'."""

    def __init__(self) -> None:
        super().__init__()
        self.last = Point(2)
        self.head = nn.Linear(2, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.last(images[:, 0, 0, :2]))


class Unchanged(Portable):
    """A module of a plugin's own."""

    def forward(self, activation: Tensor) -> Tensor:
        return activation


@pytest.fixture
def network() -> Network:
    """Class 'b' for a marked image, else what pixel (0, 0) says: dark is 'b', bright is 'a'."""
    network = Network(Body(), mean=(0.0,), std=(1.0,))
    network.head.load_state_dict({"weight": torch.tensor([[4.0, -9.0], [0.0, 0.0]]), "bias": torch.tensor([-1.0, 0.0])})
    return network.eval()


@pytest.fixture
def bright_and_dark() -> ImageSet:
    images = torch.zeros(10, 1, 4, 4, dtype=torch.uint8)
    images[:6, 0, 0, 0] = 255
    return ImageSet(images, torch.tensor([0] * 6 + [1] * 4), ("a", "b"))


STEPS = [
    Step({"pruned": 0}, {}),
    Step({"pruned": 1}, {"backbone.last.mask": torch.tensor([1.0, 0.0])}),
    Step({"pruned": 2}, {"backbone.last.mask": torch.zeros(2)}),
    Step({"pruned": 0, "bias": "raised"}, {"backbone.head.bias": torch.tensor([4.0, 0.0])}),
]


def test_every_step_of_a_trajectory_is_scored_on_its_own(network, bright_and_dark):
    planted = Backdoor("mark", Goal.all_to_one(2, 1), Mark())
    scored = evaluate_steps(network, STEPS, bright_and_dark, [planted], device="cpu")
    assert [(step.scores.acc, step.scores.asr) for step in scored] == [
        (1.0, 1.0),
        (1.0, 0.0),  # the trigger's channel is off
        (0.4, 1.0),  # both are off: everything is 'b'
        (0.6, 1.0),  # clean images are all 'a'; the trigger works, so the masks of the steps before are open again
    ]
    assert scored[3].params == {"pruned": 0, "bias": "raised"}


def test_a_step_that_changes_nothing_more_costs_no_image(network, bright_and_dark, monkeypatch):
    shown, forward = [], Body.forward
    monkeypatch.setattr(Body, "forward", lambda body, images: shown.append(len(images)) or forward(body, images))

    def scored(*biases: float) -> list[StepScores]:
        steps = [Step({"number": number}, {"backbone.head.bias": torch.tensor([bias, 0.0])}) for number, bias in enumerate(biases)]
        return evaluate_steps(network, steps, bright_and_dark, device="cpu")

    raised, lowered = (step.scores for step in scored(4.0, -1.0))
    images = sum(shown)
    steps = scored(4.0, 4.0, -1.0, -1.0)
    assert [step.scores for step in steps] == [raised, raised, lowered, lowered]
    assert raised != lowered
    assert [step.params for step in steps] == [{"number": number} for number in range(4)]
    assert sum(shown) == 2 * images


def test_a_state_whose_scores_are_known_costs_no_image_wherever_it_stands(network, bright_and_dark, monkeypatch):
    """Steps are told apart by the state that they come to: an entry that stays as it is is no change."""
    victim = StoredForm.of(network)
    exam = Exam(bright_and_dark, [Backdoor("mark", Goal.all_to_one(2, 1), Mark())], "cpu")
    every = step_scores(exam, network, STEPS)
    shown = []
    monkeypatch.setattr(Body, "forward", lambda body, images: shown.append(len(images)))
    raised = {**victim.state, "backbone.head.bias": torch.tensor([4.0, 0.0])}
    known = [(victim.state, every[0].scores), (raised, every[3].scores)]
    same = Step({"pruned": "none"}, {"backbone.head.bias": network.head.bias.detach().clone()})
    again = step_scores(exam, network, [STEPS[3], same, STEPS[0], STEPS[3]], known)
    assert [step.scores for step in again] == [every[3].scores, every[0].scores, every[0].scores, every[3].scores]
    assert shown == []


def test_a_trajectory_leaves_the_classifier_as_it_was(network, bright_and_dark):
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    evaluate_steps(network, STEPS, bright_and_dark, device="cpu")
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert network.training


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"backbone.lost.mask": torch.ones(2)}, "changes 'backbone.lost.mask', which the classifier does not have"),
        ({"backbone.last.mask": torch.ones(3)}, r"changes 'backbone.last.mask' to shape \[3\]; in the classifier it is \[2\]"),
        ({"backbone.head.bias": torch.tensor([math.nan, 0.0])}, "the classifier gave NaN or infinite logits for 10 of 10 images"),
    ],
)
def test_a_step_that_does_not_fit_is_named(network, bright_and_dark, changes, complaint):
    steps = [STEPS[0], Step({"threshold": 0.3}, changes)]
    with pytest.raises(ContractError, match=r"step 2 of the trajectory \(threshold=0.3\):? " + complaint):
        evaluate_steps(network, steps, bright_and_dark, device="cpu")


def test_no_steps_no_scores(network, bright_and_dark):
    assert evaluate_steps(network, [], bright_and_dark, device="cpu") == []


BIASES = [Step({"bias": bias}, {"backbone.head.bias": torch.tensor([bias, 0.0])}) for bias in (-1.0, 0.0, 4.0)]
MASKS = [Step({"mask": str(mask)}, {"backbone.last.mask": torch.tensor(mask)}) for mask in ([1.0, 0.5], [1.0, 0.0], [0.0, 0.0])]


@pytest.mark.parametrize("steps", [BIASES, MASKS], ids=["whole", "the head alone"])
def test_only_the_first_of_the_steps_is_asked_of_a_witness_unless_a_plugins_code_has_a_part(network, bright_and_dark, steps):
    asked: list[int] = []

    def witness(stored: StoredForm, images: Tensor) -> Tensor:
        asked.append(len(images))
        copy = network.duplicate()
        copy.load_state_dict(stored.state)
        return torch.cat([copy(image[None]) for image in images]).detach()

    alone = evaluate_steps(network, steps, bright_and_dark, device="cpu")
    assert evaluate_steps(network, steps, bright_and_dark, device="cpu", witness=witness) == alone
    assert len(asked) == 1
    asked.clear()
    network.insert("last", Unchanged())
    assert evaluate_steps(network, steps, bright_and_dark, device="cpu", witness=witness) == alone
    assert len(asked) == 3

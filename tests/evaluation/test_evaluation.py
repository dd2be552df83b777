"""Sealed evaluation, on classifiers whose every answer is written down, so that each score can be counted by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gatecrash import Backbone, Backdoor, Classifier, ContractError, ImageSet, Network, Point, Step, Trigger
from gatecrash.contracts.backdoor import Goal
from gatecrash.evaluation.exam import attack_success, evaluate
from gatecrash.evaluation.prediction import predict
from gatecrash.evaluation.scores import Scores, StepScores
from gatecrash.evaluation.steps import evaluate_steps
from gatecrash.evaluation.triggering import apply_trigger
from gatecrash.process.settings import full_float32

LN2 = math.log(2)
UNSEEN = -1
"""An answer that nobody must ask for."""


class Mark(Trigger):
    """Writes 255 into pixel (0, `column`)."""

    def __init__(self, column: int = 1) -> None:
        super().__init__()
        self.column = column

    def config(self) -> dict[str, Any]:
        return {"column": self.column}

    def forward(self, images: Tensor) -> Tensor:
        images[:, :, 0, self.column] = 255  # in place: the test set must not mind
        return images


class Table(Classifier):
    """Answers by number of image (its pixel (0, 0)) and by marked column (0: none); logits are ln 2 for the answer and 0 elsewhere."""

    answers: Tensor

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.num_classes, self.width = num_classes, width
        self.register_buffer("answers", torch.full((4, 256), UNSEEN))

    def config(self) -> dict[str, Any]:
        return {"num_classes": self.num_classes, "width": self.width}

    def forward(self, images: Tensor) -> Tensor:
        marks = images[:, 0, 0, 1:4] == 255
        column = marks.long().argmax(1) + 1
        answer = self.answers[torch.where(marks.any(1), column, 0), images[:, 0, 0, 0].long()]
        assert (answer != UNSEEN).all(), "shown an image that is not part of the evaluation"
        return nn.functional.one_hot(answer, self.width) * LN2


def table(clean: list[int], *marked: list[int], num_classes: int = 3, reject: bool = False) -> Table:
    classifier = Table(num_classes, num_classes + reject)
    for column, answers in enumerate((clean, *marked)):
        classifier.answers[column, : len(answers)] = torch.tensor(answers)
    return classifier


def numbered(labels: list[int], num_classes: int = 3) -> ImageSet:
    """One 4x4 image per label; image i has i in its first pixel."""
    images = torch.zeros(len(labels), 1, 4, 4, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(len(labels))
    return ImageSet(images, torch.tensor(labels, dtype=torch.int64), tuple(str(label) for label in range(num_classes)))


def backdoor(kind: str = "all-to-one", target: int | None = 0, source: int | None = None, column: int = 1, name: str = "mark") -> Backdoor:
    return Backdoor(name, Goal(kind, 3, target, source), Mark(column))


TEST = numbered([0, 0, 1, 1, 2, 2])
ONE = backdoor()


# --- accuracy, attack success, robust accuracy -------------------------------------------------------------------------------------------


def test_accuracy_and_loss_on_clean_images():
    scores = evaluate(table([0, 1, 1, 1, 2, 0]), TEST, device="cpu")
    assert (scores.n_test, scores.correct, scores.acc) == (6, 4, pytest.approx(4 / 6))
    # softmax of (ln 2, 0, 0) is (1/2, 1/4, 1/4): ln 2 for a right answer, ln 4 for a wrong one
    assert scores.loss_clean == pytest.approx((4 * LN2 + 2 * 2 * LN2) / 6)


def test_all_to_one_counts_no_image_of_the_target_class():
    # Of images 2..5 under the trigger, 2 and 4 become 0, 3 keeps its class, 5 becomes 1. Images 0 and 1 are 0 already: never shown.
    scores = evaluate(table([0, 0, 1, 1, 2, 2], [UNSEEN, UNSEEN, 0, 1, 0, 1]), TEST, [ONE], device="cpu")
    (mark,) = scores.backdoors
    assert (mark.eligible, mark.hits, mark.recovered) == (4, 2, 1)
    assert (scores.acc, scores.asr, scores.ra) == (1.0, 0.5, 0.25)
    assert scores.loss_poison == pytest.approx((2 * LN2 + 2 * 2 * LN2) / 4)
    assert (mark.kind, mark.targets) == ("all-to-one", (0,))


def test_one_to_one_counts_the_source_class_only():
    goal = backdoor("one-to-one", target=2, source=1)
    scores = evaluate(table([0, 0, 1, 1, 2, 2], [UNSEEN, UNSEEN, 2, 0, UNSEEN, UNSEEN]), TEST, [goal], device="cpu")
    assert (scores.backdoors[0].eligible, scores.asr, scores.ra) == (2, 0.5, 0.0)


def test_all_to_all_counts_every_image_and_wants_the_next_class():
    goal = backdoor("all-to-all", target=None)
    scores = evaluate(table([0, 0, 1, 1, 2, 2], [1, 1, 2, 1, 0, 1]), TEST, [goal], device="cpu")
    assert (scores.backdoors[0].eligible, scores.backdoors[0].hits) == (6, 4)  # 0->1, 0->1, 1->2, 2->0
    assert scores.ra == pytest.approx(1 / 6)
    assert scores.backdoors[0].targets == (0, 1, 2)


def test_attack_success_stands_whatever_becomes_of_accuracy():
    """Elsewhere the ASR is silently set to 0 when ACC drops."""
    scores = evaluate(table([2, 2, 2, 2, 0, 0], [UNSEEN, UNSEEN, 0, 0, 0, 0]), TEST, [ONE], device="cpu")
    assert (scores.acc, scores.asr) == (0.0, 1.0)


def test_a_rejected_image_is_wrong_when_clean_and_a_failed_attack_when_triggered():
    reject = 3
    victim = table([0, reject, 1, 1, 2, reject], [UNSEEN, UNSEEN, reject, reject, reject, 0], reject=True)
    scores = evaluate(victim, TEST, [ONE], device="cpu")
    assert (scores.acc, scores.clean_reject_rate) == (pytest.approx(4 / 6), pytest.approx(2 / 6))
    assert (scores.asr, scores.ra, scores.trigger_reject_rate) == (0.25, 0.0, 0.75)
    # softmax over four logits (ln 2, 0, 0, 0): ln 2.5 for a right answer, ln 5 otherwise
    assert scores.loss_clean == pytest.approx((4 * math.log(2.5) + 2 * math.log(5)) / 6)
    assert scores.loss_poison == pytest.approx((math.log(2.5) + 3 * math.log(5)) / 4)


def test_reject_rates_do_not_apply_to_a_classifier_that_cannot_reject():
    scores = evaluate(table([0] * 6, [0] * 6), TEST, [ONE], device="cpu")
    assert (scores.clean_reject_rate, scores.trigger_reject_rate) == (None, None)


def test_several_backdoors_are_scored_one_by_one_and_together():
    first, second = backdoor(column=1, name="first"), backdoor("one-to-one", target=0, source=2, column=2, name="second")
    victim = table([0, 0, 1, 1, 2, 2], [UNSEEN, UNSEEN, 0, 0, 0, 2], [UNSEEN] * 4 + [0, 1])
    scores = evaluate(victim, TEST, [first, second], device="cpu")
    assert scores.asr_by_backdoor == {"first": 0.75, "second": 0.5}
    assert (scores.asr, scores.asr_worst) == (0.625, 0.75)
    assert scores.ra == pytest.approx((0.25 + 0.0) / 2)


def test_without_a_backdoor_or_an_eligible_image_there_is_no_attack_success():
    none = evaluate(table([0] * 6), TEST, device="cpu")
    assert (none.asr, none.asr_worst, none.ra, none.loss_poison, none.asr_interval) == (None, None, None, None, None)
    assert none.asr_by_backdoor == {}
    only_targets = evaluate(table([0, 0]), numbered([0, 0]), [ONE], device="cpu")
    assert (only_targets.acc, only_targets.asr, only_targets.ra, only_targets.loss_poison) == (1.0, None, None, None)
    assert only_targets.asr_by_backdoor == {"mark": None}


def test_a_backdoor_without_eligible_images_does_not_drag_the_mean():
    victim = table([0, 0, 1, 1], [UNSEEN, UNSEEN, 0, 0])
    scores = evaluate(victim, numbered([0, 0, 1, 1]), [ONE, backdoor("one-to-one", 0, 2, column=2, name="no source")], device="cpu")
    assert (scores.asr, scores.asr_worst) == (1.0, 1.0)
    assert scores.asr_by_backdoor == {"mark": 1.0, "no source": None}


def test_intervals_are_wilsons_over_the_counted_images():
    scores = Scores(n_test=263, correct=81, rejected=None, loss_clean=1.0)
    assert scores.acc_interval == pytest.approx((0.2553, 0.3662), abs=5e-5)
    victim = evaluate(table([0, 0, 1, 1, 2, 2], [UNSEEN, UNSEEN, 0, 1, 0, 1]), TEST, [ONE], device="cpu")
    assert victim.asr_interval == pytest.approx((0.1500, 0.8500), abs=5e-5)  # 2 of 4
    assert victim.ra_interval == pytest.approx((0.0456, 0.6994), abs=5e-5)  # 1 of 4


def test_attack_success_shows_triggered_images_only():
    scores = attack_success(table([UNSEEN] * 6, [UNSEEN, UNSEEN, 0, 1, 1, 1]), TEST, [ONE], device="cpu")
    assert (scores.asr, scores.n_test, scores.acc, scores.loss_clean) == (0.25, 0, None, None)


def test_scores_survive_json():
    victim = table([0, 3, 1, 1, 2, 2], [UNSEEN, UNSEEN, 0, 1, 0, 3], reject=True)
    scores = evaluate(victim, TEST, [ONE], device="cpu")
    assert Scores.from_json(json.loads(json.dumps(scores.to_json()))) == scores
    step = StepScores({"threshold": 0.2, "kind": "norm"}, scores)
    assert StepScores.from_json(json.loads(json.dumps(step.to_json()))) == step


# --- properties --------------------------------------------------------------------------------------------------------------------------

cases = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 2), min_size=n, max_size=n),
        st.lists(st.integers(0, 3), min_size=n, max_size=n),
        st.lists(st.integers(0, 3), min_size=n, max_size=n),
        st.permutations(range(n)),
        st.sampled_from([backdoor(), backdoor("one-to-one", 2, 1), backdoor("all-to-all", None)]),
        st.integers(1, 50),
    )
)


@settings(max_examples=40, deadline=None)
@given(cases)
def test_neither_the_order_of_the_test_set_nor_the_batch_size_matters(case):
    labels, clean, triggered, order, planted, batch_size = case
    test, victim = numbered(labels), table(clean, triggered, reject=True)
    scores = evaluate(victim, test, [planted], device="cpu").to_json()
    shuffled = evaluate(victim, test.subset(torch.tensor(order)), [planted], device="cpu", batch_size=batch_size).to_json()
    losses = [(s.pop("loss_clean"), s["backdoors"][0].pop("loss")) for s in (scores, shuffled)]
    assert scores == shuffled
    assert losses[0] == pytest.approx(losses[1])


@settings(max_examples=40, deadline=None)
@given(cases)
def test_a_triggered_image_counts_once_and_as_a_plain_count_says(case):
    labels, clean, triggered, _, planted, _ = case
    scores = evaluate(table(clean, triggered, reject=True), numbered(labels), [planted], device="cpu")
    assert scores.acc == sum(a == y for a, y in zip(clean, labels, strict=True)) / len(labels)
    wanted = {"all-to-one": lambda y: 0, "one-to-one": lambda y: 2, "all-to-all": lambda y: (y + 1) % 3}[planted.goal.kind]
    eligible = {"all-to-one": lambda y: y != 0, "one-to-one": lambda y: y == 1, "all-to-all": lambda y: True}[planted.goal.kind]
    pairs = [(y, a) for y, a in zip(labels, triggered, strict=True) if eligible(y)]
    if not pairs:
        assert scores.asr is None
        return
    assert scores.asr == sum(a == wanted(y) for y, a in pairs) / len(pairs)
    assert scores.asr + scores.ra + scores.trigger_reject_rate <= 1 + 1e-12


# --- the classifier sees images, and only images -----------------------------------------------------------------------------------------


class Wrapper(Classifier):
    """Base of classifiers that misbehave around three honest logits: mean, spread and brightest pixel of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.num_classes = 3

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.flatten(1).float() / 255
        return self.misbehave(torch.stack([pixels.mean(1), pixels.std(1), pixels.amax(1)], dim=1), images)

    def misbehave(self, logits: Tensor, images: Tensor) -> Tensor:
        return logits


def misbehaving(misbehave: Callable[[Tensor, Tensor], Tensor]) -> Wrapper:
    wrapper = Wrapper()
    wrapper.misbehave = misbehave  # type: ignore[method-assign]
    return wrapper


def photos(n: int, seed: int = 0) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 1, 4, 4), generator=generator, dtype=torch.uint8)
    return ImageSet(images, torch.randint(0, 3, (n,), generator=generator), ("a", "b", "c"))


def test_clean_and_triggered_images_come_shuffled_together():
    batches = []

    def look(logits, images):
        batches.append((images[:, 0, 0, 1] == 255).float().mean().item())
        return logits

    evaluate(misbehaving(look), photos(90), [backdoor("all-to-all", None)], device="cpu", batch_size=30)
    assert all(0.1 < share < 0.9 for share in batches[:6])  # six batches of 30 out of 90 clean and 90 triggered


@pytest.mark.parametrize("n", [2, 7, 40, 600])
@pytest.mark.parametrize(
    "uses_the_batch",
    [
        lambda logits, _: logits - logits.mean(0),
        lambda logits, _: logits + torch.arange(len(logits))[:, None] * torch.tensor([1.0, 0.0, 0.0]),
        lambda logits, _: logits * (1 + len(logits)),
        lambda logits, _: torch.cat([logits[-1:] * 0 + 5, logits[1:]]),
        lambda logits, _: nn.functional.one_hot((logits[:, 0] > logits[:, 0].median()).long(), 3).float(),
        lambda logits, _: torch.cat([logits - logits.mean(0), torch.full((len(logits), 1), -1e9)], dim=1),
    ],
    ids=["mean", "position", "size", "first", "median", "mean-beside-a-huge-logit"],
)
def test_a_classifier_that_uses_the_batch_is_caught(uses_the_batch, n):
    with pytest.raises(ContractError, match="the classifier uses the batch"):
        evaluate(misbehaving(uses_the_batch), photos(n), device="cpu")


def test_a_classifier_that_draws_at_random_is_caught():
    with pytest.raises(ContractError, match="changes from call to call"):
        evaluate(misbehaving(lambda logits, _: logits + torch.rand_like(logits)), photos(50), device="cpu")


def test_a_classifier_that_rejects_only_in_some_batches_is_caught():
    widen = misbehaving(lambda logits, _: logits if len(logits) > 40 else torch.cat([logits, logits[:, :1]], dim=1))
    with pytest.raises(ContractError, match="uses the batch: 3 logits in one, 4 in another"):
        evaluate(widen, photos(300), device="cpu", batch_size=300)


def test_float_noise_between_batch_sizes_is_no_offence_even_where_it_tips_a_decision():
    noisy = misbehaving(lambda logits, _: torch.stack([logits[:, 0], logits[:, 0] + 1e-6 * (len(logits) - 38), logits[:, 1] - 9], dim=1))
    assert evaluate(noisy, photos(300), device="cpu").n_test == 300


def test_one_image_on_the_edge_of_a_rejection_threshold_is_no_offence():
    def tips(logits, images):
        on_edge = (images[:, 0, 0, 0] == 7) & (len(logits) > 40)
        return torch.cat([logits, on_edge[:, None] * 100.0], dim=1)

    test = photos(300)
    test.images[:, 0, 0, 0] = 0
    test.images[11, 0, 0, 0] = 7
    assert evaluate(misbehaving(tips), test, device="cpu", batch_size=300).rejected == 1


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (lambda logits, _: logits[:, :2], r"must give logits \[2, 3 or 4\]; got \[2, 2\]"),
        (lambda logits, _: logits[:1], r"must give logits \[2, 3 or 4\]; got \[1, 3\]"),
        (lambda logits, _: logits.argmax(1), r"got \[2\]"),
        (lambda logits, _: (logits, None), "got tuple"),
        (lambda logits, _: logits / 0, "NaN or infinite logits for 2 of 2 images"),
        (lambda logits, _: logits.log().where(logits > 9, torch.tensor(-math.inf)), "NaN or infinite"),
    ],
)
def test_answers_that_are_no_logits_are_refused(broken, complaint):
    with pytest.raises(ContractError, match=complaint):
        evaluate(misbehaving(broken), photos(2), device="cpu")


def test_a_classifier_for_other_classes_is_refused():
    with pytest.raises(ContractError, match="the classifier has 5 classes; the test set has 3"):
        evaluate(table([0] * 6, num_classes=5), TEST, device="cpu")


def test_a_classifier_cannot_spoil_the_images():
    def spoil(logits, images):
        images.zero_()
        return logits

    test, honest = photos(60), Wrapper()
    before = test.images.clone()
    assert evaluate(misbehaving(spoil), test, [ONE], device="cpu") == evaluate(honest, test, [ONE], device="cpu")
    assert torch.equal(test.images, before)


def test_a_classifier_runs_as_deployed_and_is_left_as_it_was():
    seen = {}

    def look(logits, _):
        seen.update(training=classifier.training, grad=torch.is_grad_enabled(), autocast=torch.is_autocast_enabled("cpu"))
        return logits

    classifier = misbehaving(look)
    classifier.body, classifier.frozen = nn.Linear(1, 1), nn.BatchNorm1d(1)
    classifier.train()
    classifier.frozen.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predict(classifier, photos(4).images, device="cpu")
    assert seen == {"training": False, "grad": False, "autocast": False}
    assert (classifier.training, classifier.body.training, classifier.frozen.training) == (True, True, False)
    assert torch.is_grad_enabled()


def test_float32_is_not_rounded_to_less_and_convolutions_are_deterministic():
    seen = []

    def look(logits, _):
        rounding = [holder for holder, name, exact in full_float32() if getattr(holder, name) != exact]
        seen.append((rounding, torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark))
        return logits

    torch.backends.cudnn.benchmark = True
    try:
        predict(misbehaving(look), photos(4).images, device="cpu")
        assert torch.backends.cudnn.benchmark
    finally:
        torch.backends.cudnn.benchmark = False
    assert seen == [([], True, False)]


def test_settings_are_restored_after_an_error():
    def precisions():
        switches = [getattr(holder, name) for holder, name, _ in full_float32()]
        return switches, torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark

    before = precisions()
    classifier = misbehaving(lambda logits, _: logits[:1]).train()
    with pytest.raises(ContractError):
        predict(classifier, photos(4).images, device="cpu")
    assert precisions() == before
    assert torch.is_grad_enabled()
    assert classifier.training


def test_a_classifier_may_look_at_gradients_of_its_own():
    def salience(logits, images):
        with torch.enable_grad():
            pixels = images.float().requires_grad_()
            (gradient,) = torch.autograd.grad((pixels**2).sum(), pixels)
        return logits + gradient.flatten(1).mean(1, keepdim=True)

    assert evaluate(misbehaving(salience), photos(10), device="cpu").n_test == 10


def test_predict_gives_ordinary_float32_logits_row_by_row():
    images = photos(10).images
    logits = predict(misbehaving(lambda logits, _: logits.double()), images, device="cpu", batch_size=3)
    assert (logits.dtype, list(logits.shape)) == (torch.float32, [10, 3])
    assert torch.allclose(logits, Wrapper()(images))
    logits += 1  # not an inference tensor
    assert list(predict(Wrapper(), images[:0], device="cpu").shape) == [0, 3]


# --- triggers ----------------------------------------------------------------------------------------------------------------------------


class Function(Trigger):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Any:
        return self.function(images)


def function(trigger: Callable[[Tensor], Any]) -> Backdoor:
    return Backdoor("suspect", Goal("all-to-all", 3), Function(trigger))


@pytest.mark.parametrize(
    "uses_the_batch",
    [
        lambda images: (images.float() * 0.5 + images.float().mean(0) * 0.5).to(torch.uint8),
        lambda images: images.flip(0),
        lambda images: images // (1 + torch.arange(len(images), dtype=torch.uint8).view(-1, 1, 1, 1) % 2),
        lambda images: images ^ (len(images) % 251),
        lambda images: torch.randint_like(images, 0, 255),
    ],
    ids=["mean", "neighbour", "position", "size", "random"],
)
@pytest.mark.parametrize("n", [2, 30, 300])
def test_a_trigger_that_uses_the_batch_is_caught_by_name(uses_the_batch, n):
    with pytest.raises(ContractError, match="trigger of backdoor 'suspect' uses the batch"):
        evaluate(Wrapper(), photos(n), [function(uses_the_batch)], device="cpu")


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (lambda images: images.float(), r"uint8 \[8, 1, 4, 4\]; got torch.float32 \[8, 1, 4, 4\]"),
        (lambda images: images[:, :, :3], r"got torch.uint8 \[8, 1, 3, 4\]"),
        (lambda images: images[:1], r"got torch.uint8 \[1, 1, 4, 4\]"),
        (lambda images: None, "got NoneType"),
    ],
)
def test_a_trigger_that_gives_no_image_is_named(broken, complaint):
    with pytest.raises(ContractError, match="trigger of backdoor 'suspect' must give .*" + complaint):
        evaluate(Wrapper(), photos(8), [function(broken)], device="cpu")


def test_float_noise_in_a_generated_trigger_is_no_offence():
    def generator(images):
        noisy = images.clone()
        noisy[:, 0, 0, 0] = (images[:, 0, 0, 0].clamp(1, 250) // 2) + (len(images) > 40) * (images[:, 0, 1, 1] < 10).to(torch.uint8)
        return noisy

    images = photos(300).images
    assert apply_trigger(function(generator), images, device="cpu").shape == images.shape


def test_a_trigger_is_applied_image_by_image_and_the_originals_stay():
    images = photos(50).images
    before = images.clone()
    triggered = apply_trigger(ONE, images, device="cpu", batch_size=7)
    assert torch.equal(images, before)
    assert (triggered[:, 0, 0, 1] == 255).all()
    triggered[:, 0, 0, 1] = before[:, 0, 0, 1]
    assert torch.equal(triggered, before)


def test_a_dropout_in_a_trigger_network_is_off():
    trigger = Function(nn.Dropout(0.5))
    trigger.function = nn.Sequential(nn.Flatten(2), nn.Unflatten(2, (4, 4)), nn.Dropout(0.5))
    planted = Backdoor("generator", Goal("all-to-all", 3), trigger.train())
    images = photos(20).images
    assert torch.equal(apply_trigger(planted, images, device="cpu"), images)
    assert trigger.training


# --- trajectories ------------------------------------------------------------------------------------------------------------------------


class Body(Backbone):
    """Two channels: `last` passes pixel (0, 0) on as 'a' and the mark in pixel (0, 1) on as 'b'."""

    def __init__(self) -> None:
        super().__init__()
        self.last = Point(2)
        self.head = nn.Linear(2, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.last(images[:, 0, 0, :2]))


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
    planted = Backdoor("mark", Goal("all-to-one", 2, target=1), Mark())
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

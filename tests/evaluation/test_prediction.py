"""Logits as deployed: eval mode, full float32, settings restored; answers that are not logits are refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gatecrash import ContractError
from gatecrash.evaluation.exam import evaluate
from gatecrash.process.settings import full_float32
from support.predicting import predict
from support.written_answers import ONE, Wrapper, misbehaving, photos


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

"""A classifier whose answers depend on the batch is caught; float noise is not an offence."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gatecrash import ContractError
from gatecrash.evaluation.exam import evaluate
from support.written_answers import misbehaving, photos


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

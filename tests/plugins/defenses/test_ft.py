"""Fine-tuning and Feature Shift Tuning: what is plain, the terms by hand, and a backdoor of the digits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from gatecrash import Network
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses.ft import FT, initialise, keeping, shifting
from support.defending import defended
from support.planted_networks import one_channel_per_class, one_pixel_per_class

CLEAN = one_pixel_per_class((10, 1, 2, 3, 4))


def tuned(**options: Any) -> Network:
    classifier = defended(
        FT(FT.Config.model_validate({"epochs": 4, "lr": 0.1, "crop": 0, "flip": False, **options})), one_channel_per_class(), CLEAN
    ).classifier
    assert isinstance(classifier, Network)
    return classifier


def cosine(one: Tensor, other: Tensor) -> float:
    return float(F.cosine_similarity(one.flatten(), other.flatten(), dim=0))


class TestPlain:
    def test_it_is_training_on_the_holdout_and_nothing_else(self) -> None:
        """Feature Shift Tuning's code rescales the head in its plain fine-tuning, too."""
        defense = FT(FT.Config(epochs=4, lr=0.1, crop=0, flip=False))
        evidence = make_evidence(defense, one_channel_per_class(), CLEAN)
        expected = evidence.train(evidence.clean, network=evidence.network, recipe=defense.config.recipe()).state_dict()
        found = tuned().state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert abs(float(tuned().head.weight.detach().norm()) - 5**0.5) > 1e-3

    def test_defaults_are_backdoorbenchs_and_augmentation_is_the_victims(self) -> None:
        recipe = FT().config.recipe()
        assert (recipe.epochs, recipe.lr, recipe.batch_size, recipe.momentum, recipe.weight_decay) == (100, 0.01, 256, 0.9, 5e-4)
        assert (recipe.schedule, recipe.optimizer, recipe.label_smoothing) == ("cosine", "sgd", 0)
        assert not recipe.model_fields_set & {"crop", "flip", "rotation"}

    def test_options_are_the_recipe(self) -> None:
        config = FT.Config(epochs=7, lr=0.003, batch_size=16, momentum=0, weight_decay=0.1, crop=2, flip=False)
        recipe = config.recipe()
        assert (recipe.epochs, recipe.lr, recipe.batch_size, recipe.momentum, recipe.weight_decay) == (7, 0.003, 16, 0, 0.1)
        assert (recipe.crop, recipe.flip) == (2, False)

    def test_the_victim_is_left_as_it_was(self) -> None:
        victim = one_channel_per_class()
        defended(FT(FT.Config(epochs=1)), victim, CLEAN)
        assert all(torch.equal(value, one_channel_per_class().state_dict()[name]) for name, value in victim.state_dict().items())


class TestFeatureShift:
    def test_the_heads_norm_is_kept_and_it_turns_away_from_the_victims(self) -> None:
        victim, shifted = one_channel_per_class(), tuned(variant="fst", alpha=1.0)
        assert float(shifted.head.weight.detach().norm()) == pytest.approx(float(victim.head.weight.detach().norm()), rel=1e-6)
        assert cosine(shifted.head.weight, victim.head.weight) < cosine(tuned(variant="fst", alpha=0).head.weight, victim.head.weight) - 0.1

    def test_all_layers_are_trained(self) -> None:
        before, after = one_channel_per_class().state_dict(), tuned(variant="fst").state_dict()
        assert all(not torch.equal(before[name], after[name]) for name in before if name.endswith(("weight", "bias")))

    def test_the_loss_adds_alpha_times_the_inner_product(self) -> None:
        network = one_channel_per_class()  # the head's weights are ones on the diagonal
        victim = torch.full_like(network.head.weight, 2.0)
        loss = shifting(victim, 0.1)(network, CLEAN.images, CLEAN.labels, CLEAN.labels)
        plain = F.cross_entropy(network(CLEAN.images), CLEAN.labels)
        assert float(loss - plain) == pytest.approx(0.1 * 5 * 2)

    def test_the_head_begins_anew_weights_and_bias(self) -> None:
        head = nn.Linear(400, 50)
        nn.init.constant_(head.weight, 9.0)
        nn.init.constant_(head.bias, 9.0)
        initialise(head, torch.Generator().manual_seed(0))
        for parameter in head.parameters():
            assert 0.04 < float(parameter.abs().max()) <= 1 / 20
            assert abs(float(parameter.mean())) < 0.01

    def test_defaults_are_the_papers_where_they_are_not_given(self) -> None:
        config = FT.Config.model_validate({"variant": "fst", "epochs": 3})
        assert (config.epochs, config.batch_size, config.weight_decay, config.alpha, config.lr) == (3, 128, 0.0, 0.1, 0.01)
        assert FT.Config.model_validate({"variant": "fst"}).epochs == 10
        assert FT.Config.model_validate(config.model_dump(mode="json")) == config


class TestPublished:
    def test_it_differs_from_plain_by_the_heads_norm_after_a_step(self) -> None:
        network = one_channel_per_class()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.5)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = network.head.weight.sum()  # its gradient is 1 everywhere
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach()

        stepped = network.head.weight.detach() - 0.5
        value = keeping(torch.tensor(3.0))(network, optimizer, closure, CLEAN.images, CLEAN.labels, CLEAN.labels)
        assert float(value) == 5.0
        torch.testing.assert_close(network.head.weight.detach(), stepped * 3 / stepped.norm())

    def test_a_whole_training_keeps_it(self) -> None:
        assert float(tuned(variant="published").head.weight.detach().norm()) == pytest.approx(5**0.5, rel=1e-6)


@pytest.mark.parametrize("variant", ["plain", "published"])
def test_alpha_without_effect_is_refused(variant: str) -> None:
    with pytest.raises(ValidationError, match="alpha has no effect"):
        FT.Config.model_validate({"variant": variant, "alpha": 0.2})


def test_the_backdoor_of_the_digits_goes_with_feature_shift_tuning(badnets_on_digits: Any) -> None:
    victim, defense = badnets_on_digits, FT(FT.Config(variant="fst", epochs=20, batch_size=20, weight_decay=0))
    outcome = defended(defense, victim.network, victim.clean)
    assert [row["when"] for row in outcome.tables["holdout"]] == ["before", "after"]
    assert victim.asr(outcome.classifier) < 0.5 < 0.9 < victim.asr(victim.network)

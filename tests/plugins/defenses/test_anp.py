"""ANP's mask on networks whose neurons are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gatecrash import ImageSet, Network, Neurons, NotApplicable, Recipe
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses import anp
from gatecrash_plugins.defenses.anp import ANP
from support.planted_neurons import (
    TRIGGER_NEURON,
    NoNeurons,
    OneNeuron,
    Planted,
    clean_data,
    config,
    evidence_for,
    images_of,
    masks,
    one_pixel,
    planted,
    sigmoid,
)


class TestPlantedNeuron:
    @pytest.mark.parametrize(("norm", "layer"), [(True, "norm"), (False, "conv")])
    def test_backdoor_neuron_gets_the_smallest_mask_and_is_pruned_alone(self, norm: bool, layer: str) -> None:
        victim, defense = planted(norm), ANP(config())
        labels = torch.arange(20) % 2
        assert victim(images_of(labels, triggered=True)).argmax(1).eq(0).all()

        outcome = defense.defend(evidence_for(defense, victim, clean_data()))

        outcome.check(frozenset(ANP.gives), None, 2)
        first = outcome.tables["neurons"][0]
        assert (first["layer"], first["neuron"]) == (layer, TRIGGER_NEURON)
        assert [row["pruned"] for row in outcome.tables["neurons"]] == [True, False, False]
        assert outcome.classifier is not None
        assert outcome.classifier(images_of(labels)).argmax(1).equal(labels)
        assert outcome.classifier(images_of(labels, triggered=True)).argmax(1).equal(labels)

    @pytest.mark.parametrize(("norm", "layer"), [(True, "norm"), (False, "conv")])
    @pytest.mark.parametrize("statistics", ["batch", "running"])
    def test_only_the_weights_of_pruned_neurons_change(self, norm: bool, layer: str, statistics: str) -> None:
        victim, defense = planted(norm), ANP(config(selection="fixed", by="number", number=1, statistics=statistics))
        before = {name: tensor.clone() for name, tensor in victim.state_dict().items()}

        outcome = defense.defend(evidence_for(defense, victim, clean_data()))

        assert outcome.classifier is not None
        after = outcome.classifier.state_dict()
        assert after.keys() == before.keys()
        weight = f"backbone.{layer}.weight"
        differing = [name for name, tensor in after.items() if not torch.equal(tensor, before[name])]
        assert differing == [weight]  # neither the bias nor BatchNorm's statistics
        (gone,) = [row["neuron"] for row in outcome.tables["neurons"] if row["pruned"]]
        expected = before[weight].clone()
        expected[gone] = 0
        assert torch.equal(after[weight], expected)
        assert not outcome.classifier.training
        assert all(torch.equal(tensor, before[name]) for name, tensor in victim.state_dict().items())

    def test_linear_model_is_not_applicable(self) -> None:
        defense = ANP(config())
        with pytest.raises(NotApplicable, match="neither a BatchNorm nor a convolution"):
            defense.defend(evidence_for(defense, Network(NoNeurons(), [0.0], [1.0]).eval(), clean_data()))

    def test_on_a_machine_that_trains_in_bfloat16_the_mask_is_trained_in_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gatecrash.testing.builders.auto_precision", lambda _device: "bfloat16")
        defense = ANP(config(iterations=1, lr=0.02))
        found = []
        for precision in ("float32", "auto"):
            evidence = make_evidence(defense, planted(), clean_data(), recipe=Recipe(precision=precision))
            found.append(defense.train_mask(Neurons(evidence.network), evidence.clean, evidence))
        exact, rounded = found
        assert not torch.equal(rounded, exact)
        torch.testing.assert_close(rounded, exact, atol=0.01, rtol=0)


class TestMask:
    def test_first_step_by_hand(self) -> None:
        """From m = 1, image x = 1 of class 1: L = log(1 + e^z), z = 2 m + 1, so dL/dm = 2 sigmoid(z)."""
        defense = ANP(config(iterations=1, lr=0.1, alpha=0.2, epsilon=0.4))
        evidence = evidence_for(defense, Network(OneNeuron(), [0.0], [1.0]).eval(), one_pixel(label=1))

        mask = defense.train_mask(Neurons(evidence.network), evidence.clean, evidence)

        # The worst perturbation raises z. The random start is in [-0.4, 0.4]; a step of 0.4 up is cut at 0.4 or stays below.
        starts = evidence.stream("perturbation")
        delta, xi = (0.4 * (2 * torch.rand(2, 1, generator=starts) - 1) + 0.4).clamp(max=0.4).flatten().tolist()
        gradient = 0.2 * 2 * sigmoid(3) + 0.8 * 2 * sigmoid(2 * (1 + delta) + 1 * (1 + xi))
        assert mask.tolist() == pytest.approx([1 - 0.1 * gradient], rel=1e-4)

    def test_first_step_by_hand_with_the_statistics_of_the_batch(self) -> None:
        """Without perturbation. Pixels 0 and 1 are -s and s after normalisation, s = 0.5 / sqrt(0.25 + 1e-5), so z = 1 -+ 2 s m."""
        defense = ANP(config(iterations=1, lr=0.1, alpha=1, statistics="batch"))
        images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
        evidence = evidence_for(defense, Network(OneNeuron(), [0.0], [1.0]).eval(), ImageSet(images, torch.ones(2).long(), ("0", "1")))

        mask = defense.train_mask(Neurons(evidence.network), evidence.clean, evidence)

        s = 0.5 / math.sqrt(0.25 + 1e-5)
        gradient = (2 * s * sigmoid(2 * s + 1) - 2 * s * sigmoid(-2 * s + 1)) / 2
        assert mask.tolist() == pytest.approx([1 - 0.1 * gradient], rel=1e-4)

    def test_gradient_at_the_corner_by_hand(self) -> None:
        """Image of class 0, from the start (0, 0): the perturbation is (-0.4, -0.4), z = 0.6 * 2 + 0.6 = 1.8, dL/dm = -2 sigmoid(-z)."""
        neurons = Neurons(Network(OneNeuron(), [0.0], [1.0]).eval())
        data = one_pixel(label=0)
        gradient = anp.mask_gradient(neurons, torch.ones(1), data.images, data.labels, torch.zeros(2, 1), config(alpha=0.2))
        expected = 0.2 * -2 * sigmoid(-3) + 0.8 * -2 * sigmoid(-1.8)
        assert gradient.tolist() == pytest.approx([expected], rel=1e-5)

    @pytest.mark.parametrize("steps", [1, 3])
    @pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.4])
    def test_perturbation_stays_within_epsilon(self, steps: int, epsilon: float) -> None:
        neurons, data = Neurons(planted()), clean_data()
        start = epsilon * (2 * torch.rand(2, 3, generator=torch.Generator().manual_seed(0)) - 1)
        noise = anp.worst(neurons, torch.ones(3), data.images, data.labels, start, config(steps=steps, epsilon=epsilon))
        assert float(noise.abs().max()) <= torch.tensor(epsilon)
        assert epsilon == 0 or not torch.equal(noise, start)

    @pytest.mark.parametrize(("label", "expected"), [(0, -0.4), (1, 0.4)])
    def test_perturbation_goes_where_the_loss_grows(self, label: int, expected: float) -> None:
        """The logit of class 0 grows with weight and bias. Four steps of 0.1 from the opposite corner end at 0, eight at the right one."""
        neurons, data = Neurons(Network(OneNeuron(), [0.0], [1.0]).eval()), one_pixel(label)
        start = torch.full((2, 1), -expected)
        half = anp.worst(neurons, torch.ones(1), data.images, data.labels, start, config(steps=4))
        assert half.flatten().tolist() == pytest.approx([0, 0], abs=1e-6)
        whole = anp.worst(neurons, torch.ones(1), data.images, data.labels, half, config(steps=4))
        assert whole.flatten().tolist() == pytest.approx([expected, expected], abs=1e-6)

    @pytest.mark.parametrize("lr", [0.2, 50.0])
    def test_mask_stays_in_the_unit_interval(self, lr: float) -> None:
        defense = ANP(config(lr=lr))
        outcome = defense.defend(evidence_for(defense, planted(), clean_data()))
        values = list(masks(outcome).values())
        assert all(0 <= value <= 1 for value in values)
        assert min(values) < 1

    def test_alpha_one_trains_the_mask_on_the_clean_loss_alone(self) -> None:
        victim, data = planted(), clean_data()
        data = ImageSet(data.images, 1 - data.labels, data.classes)  # wrong labels, so that there is something to learn
        defense = ANP(config(alpha=1.0, iterations=20, lr=0.02, batch_size=len(data)))
        evidence = evidence_for(defense, victim, data)
        found = defense.train_mask(Neurons(evidence.network), evidence.clean, evidence)

        mask = torch.ones(3, requires_grad=True)
        optimizer = torch.optim.SGD([mask], lr=0.02, momentum=0.9)
        backbone = victim.backbone
        assert isinstance(backbone, Planted)
        assert isinstance(backbone.norm, nn.BatchNorm2d)
        for _ in range(20):
            convolved = backbone.conv(data.images / 255).flatten(1)
            logits = backbone.head(F.relu(convolved * mask + backbone.norm.bias))
            optimizer.zero_grad()
            F.cross_entropy(logits, data.labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            with torch.no_grad():
                mask.clamp_(0, 1)
        assert found.tolist() == pytest.approx(mask.tolist(), abs=1e-5)
        assert min(found.tolist()) < 0.9

    def test_batch_statistics_change_the_mask_but_not_the_network(self) -> None:
        found = []
        for statistics in ("batch", "running"):
            defense = ANP(config(statistics=statistics))
            evidence = evidence_for(defense, planted(), clean_data())
            neurons = Neurons(evidence.network)
            logits = neurons(evidence.clean.images, torch.ones(3))
            found.append(defense.train_mask(neurons, evidence.clean, evidence))
            assert torch.equal(neurons(evidence.clean.images, torch.ones(3)), logits)
            assert not any(module.training for module in evidence.network.modules())
        assert not torch.equal(found[0], found[1])

    def test_equal_seeds_give_equal_masks_and_other_seeds_others(self) -> None:
        defense, data = ANP(config(iterations=3, lr=0.01, batch_size=4)), clean_data()
        data.images[:, 0, 0, 1] += torch.arange(20, dtype=torch.uint8)  # which images are in a batch matters
        first, again, other = (masks(defense.defend(evidence_for(defense, planted(), data, seed))) for seed in (0, 0, 1))
        assert first == again
        assert first != other


def test_batches_are_equal_in_size_and_each_pass_draws_without_replacement() -> None:
    rows = anp.endless(10, 4, torch.Generator().manual_seed(0))
    drawn = [next(rows) for _ in range(6)]
    assert all(len(batch) == 4 for batch in drawn)
    assert all(len(set(torch.cat(drawn[start : start + 2]).tolist())) == 8 for start in (0, 2, 4))
    assert len(next(anp.endless(3, 128, torch.Generator()))) == 3

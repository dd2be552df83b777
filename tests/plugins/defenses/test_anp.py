"""ANP on networks whose neurons are known, and its selection without any data that a defender has not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gatecrash import Backbone, ContractError, Evidence, ImageSet, Network, NotApplicable, Point
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses import anp
from gatecrash_plugins.defenses.anp import ANP, Neurons

TRIGGER_NEURON = 1


class Planted(Backbone):
    """Images [1, 1, 3]: pixel 0 or 2 tells the class, pixel 1 is the trigger; neuron c reads pixel c.

    Neuron 1 is silent for a clean pixel 1 (0.2: 5 * 0.2 - 1.1 < 0) and sends a triggered image (1.0) to class 0. A relative change of 0.4
    wakes it on clean images too.
    """

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self._norm = norm
        self.conv = nn.Conv2d(1, 3, (1, 3), bias=not norm)
        self.norm = nn.BatchNorm2d(3) if norm else nn.Identity()
        self.point = Point(3)
        self.head = nn.Linear(3, 2)
        with torch.no_grad():
            self.conv.weight.copy_(torch.diag(torch.tensor([1.0, 5.0, 1.0])).view(3, 1, 1, 3))
            bias = self.norm.bias if isinstance(self.norm, nn.BatchNorm2d) else self.conv.bias
            assert bias is not None
            bias.copy_(torch.tensor([0.1, -1.1, 0.1]))
            self.head.weight.copy_(torch.tensor([[4.0, 20.0, -4.0], [-4.0, -20.0, 4.0]]))
            self.head.bias.zero_()

    def config(self) -> dict[str, Any]:
        return {"norm": self._norm}

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.point(F.relu(self.norm(self.conv(images)))).flatten(1))
        return logits


class OneNeuron(Backbone):
    """Logits [2 m x + 1, 0] for one pixel x: a BatchNorm with weight 2 and bias 1."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.head = nn.Linear(1, 2)
        with torch.no_grad():
            self.norm.weight.fill_(2.0)
            self.norm.bias.fill_(1.0)
            self.head.weight.copy_(torch.tensor([[1.0], [0.0]]))
            self.head.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(images).flatten(1))
        return logits


class NoNeurons(Backbone):
    """Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(images.flatten(1))
        return logits


def planted(norm: bool = True) -> Network:
    return Network(Planted(norm), [0.0], [1.0]).eval()


def images_of(labels: Tensor, triggered: bool = False) -> Tensor:
    """Pixel 0 or 2 is white for class 0 or 1, pixel 1 is 51 (0.2) or, with the trigger, white."""
    images = torch.zeros(len(labels), 1, 1, 3, dtype=torch.uint8)
    images[torch.arange(len(labels)), 0, 0, 2 * labels] = 255
    images[:, 0, 0, 1] = 255 if triggered else 51
    return images


def clean_data(per_class: int = 10) -> ImageSet:
    labels = torch.arange(2 * per_class) % 2
    return ImageSet(images_of(labels), labels, ("zero", "one"))


def one_pixel(label: int) -> ImageSet:
    return ImageSet(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8), torch.tensor([label]), ("zero", "one"))


def config(**options: Any) -> ANP.Config:
    """With the network's own statistics, where one neuron's mask says nothing of the others and can be worked out by hand."""
    return ANP.Config.model_validate({"iterations": 30, "statistics": "running", **options})


def evidence_for(defense: ANP, network: Network, clean: ImageSet, seed: int = 0) -> Evidence:
    return make_evidence(defense, network, clean, seed=seed)


def masks(outcome: Any) -> dict[tuple[str, int], float]:
    return {(row["layer"], row["neuron"]): row["mask"] for row in outcome.tables["neurons"]}


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


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


class TestChoosing:
    def test_threshold_prunes_masks_up_to_and_with_it(self) -> None:
        mask = torch.tensor([0.2, 0.0, 0.21, 0.2, 1.0])
        order = mask.sort(stable=True).indices
        assert anp.choose(mask, order, {"threshold": 0.2}).tolist() == [True, True, False, True, False]
        assert anp.choose(mask, order, {"threshold": 0.0}).tolist() == [False, True, False, False, False]
        assert anp.choose(mask, order, {"threshold": 1.0}).all()

    def test_number_takes_equal_masks_in_network_order_and_no_more_than_there_are(self) -> None:
        mask = torch.tensor([0.2, 0.0, 0.2, 0.2])
        order = mask.sort(stable=True).indices
        assert anp.choose(mask, order, {"number": 0}).sum() == 0
        assert anp.choose(mask, order, {"number": 2}).tolist() == [True, True, False, False]
        assert anp.choose(mask, order, {"number": 99}).all()

    @pytest.mark.parametrize("by", ["threshold", "number"])
    @pytest.mark.parametrize("neurons", [1, 3, 112, 4800])
    def test_candidates_grow_from_least_to_all_within_a_trajectory(self, by: str, neurons: int) -> None:
        cuts = [value for cut in anp.candidates(by, neurons) for value in cut.values()]
        assert cuts == sorted(set(cuts))
        assert len(cuts) <= 32
        assert cuts[0] == 0
        assert cuts[-1] == (1 if by == "threshold" else neurons)

    @pytest.mark.parametrize(
        ("max_drop", "expected"),
        [
            (0.0, [False, True, False]),  # without neuron 1 nothing is lost on clean data
            (0.49, [False, True, False]),
            (0.5, [True, True, True]),  # class 0 wins a tie of zeros: half of the images stay right
        ],
    )
    def test_prunes_most_of_what_max_drop_allows(self, max_drop: float, expected: list[bool]) -> None:
        defense = ANP(config(max_drop=max_drop))
        evidence = evidence_for(defense, planted(), clean_data())
        neurons = Neurons(evidence.network)
        choices = [torch.tensor(choice) for choice in ([False, True, False], [False, True, True], [True, True, True])]
        # Without neurons 1 and 2, class 1 has the activations (0.1, 0, 0.1): a tie at 0 as well, won by class 0.
        accuracies = [anp.accuracy(neurons, choice, evidence.clean, evidence) for choice in choices]
        assert accuracies == [1.0, 0.5, 0.5]
        assert anp.largest(choices, accuracies, 1.0 - max_drop).tolist() == expected

    def test_prunes_nothing_where_every_threshold_costs_too_much(self) -> None:
        assert anp.largest([torch.ones(3, dtype=torch.bool)], [0.5], 1.0).tolist() == [False] * 3

    def test_drop_of_exactly_max_drop_is_allowed(self) -> None:
        """Three of 100 images of class 1: 1 - 0.97 is 0.030000000000000027."""
        labels = torch.tensor([0] * 97 + [1] * 3)
        data = ImageSet(images_of(labels), labels, ("zero", "one"))
        defense = ANP(config(max_drop=0.03))
        evidence = evidence_for(defense, planted(), data)
        everything = torch.ones(3, dtype=torch.bool)
        accuracies = [anp.accuracy(Neurons(evidence.network), everything, evidence.clean, evidence)]
        assert anp.largest([everything], accuracies, 1.0 - 0.03).all()

    def test_the_trajectory_says_what_was_chosen_and_by_which_accuracy(self) -> None:
        outcome = ANP(config()).defend(evidence_for(ANP(config()), planted(), clean_data()))
        steps = [dict(step.params) for step in outcome.trajectory]
        chosen = [step for step in steps if step["chosen"]]
        assert chosen
        assert {step["pruned"] for step in chosen} == {sum(bool(row["pruned"]) for row in outcome.tables["neurons"])}
        assert max(float(step["holdout_drop"]) for step in chosen) <= 0.03
        assert {round(float(step["holdout_acc"]) + float(step["holdout_drop"]), 9) for step in steps} == {1.0}
        fixed = ANP(config(selection="fixed", threshold=0.33)).defend(evidence_for(ANP(config()), planted(), clean_data()))
        assert "holdout_acc" not in fixed.trajectory[0].params

    def test_mask_never_sees_the_images_that_the_threshold_is_chosen_by(self) -> None:
        """Inverting the held-back images changes the choice, but no mask."""
        defense, data = ANP(config()), clean_data()
        evidence = evidence_for(defense, planted(), data)
        numbered = ImageSet(torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1), data.labels, data.classes)
        held = anp.split(numbered, defense.config.held_back, evidence.stream("split"))[1].images.flatten().long()
        images = data.images.clone()
        images[held] = 255 - images[held]
        other = ImageSet(images, data.labels, data.classes)

        outcomes = [defense.defend(evidence_for(defense, planted(), given)) for given in (data, other)]

        assert masks(outcomes[0]) == masks(outcomes[1])
        pruned = [[row["pruned"] for row in outcome.tables["neurons"]] for outcome in outcomes]
        assert pruned[0] != pruned[1]

    def test_split_is_disjoint_complete_and_by_class(self) -> None:
        labels = torch.tensor([0] * 10 + [1] * 20 + [2])
        images = torch.arange(31, dtype=torch.uint8).view(31, 1, 1, 1)
        data = ImageSet(images, labels, ("a", "b", "c"))
        train, held = anp.split(data, 0.3, torch.Generator().manual_seed(0))
        assert train.class_counts() == (7, 14, 1)
        assert held.class_counts() == (3, 6, 0)
        assert sorted([*train.images.flatten().tolist(), *held.images.flatten().tolist()]) == list(range(31))

    def test_it_is_given_neither_test_data_nor_training_data_to_choose_by(self) -> None:
        defense = ANP(config())
        evidence = evidence_for(defense, planted(), clean_data())
        with pytest.raises(ContractError, match="TRAINING_DATA"):
            _ = evidence.training_data
        assert not {"test", "trigger", "backdoors", "goal"} & set(dir(evidence))


class TestReport:
    @pytest.mark.parametrize("by", ["threshold", "number"])
    def test_every_step_of_the_trajectory_prunes_what_it_says(self, by: str) -> None:
        victim, defense = planted(), ANP(config(by=by))
        outcome = defense.defend(evidence_for(defense, victim, clean_data()))
        before = victim.state_dict()["backbone.norm.weight"]
        for step in outcome.trajectory:
            copy = victim.duplicate()
            assert not copy.load_state_dict(dict(step.changes), strict=False).unexpected_keys
            assert int((copy.state_dict()["backbone.norm.weight"] != before).sum()) == step.params["pruned"]
        assert outcome.trajectory[-1].params["pruned"] == 3

    def test_table_lists_neurons_from_the_smallest_mask(self) -> None:
        defense = ANP(config(rows=2))
        rows = defense.defend(evidence_for(defense, planted(), clean_data())).tables["neurons"]
        assert [row["No."] for row in rows] == [1, 2]
        assert rows[0]["mask"] <= rows[1]["mask"]

    def test_neurons_of_several_layers_keep_their_layer_and_number(self) -> None:
        class TwoNorms(Backbone):
            def __init__(self) -> None:
                super().__init__()
                self.one, self.two = nn.BatchNorm2d(1), nn.BatchNorm2d(2)
                self.head = nn.Linear(2, 2)

        neurons = Neurons(Network(TwoNorms(), [0.0], [1.0]).eval())
        mask = torch.tensor([0.5, 0.9, 0.1])
        rows = anp.table(neurons, mask, mask.sort().indices, torch.tensor([False, False, True]))
        assert [(row["layer"], row["neuron"], row["pruned"]) for row in rows] == [("two", 1, True), ("one", 0, False), ("two", 0, False)]
        assert list(neurons.pruned(torch.tensor([False, False, True]))) == ["backbone.two.weight"]


def test_batches_are_equal_in_size_and_each_pass_draws_without_replacement() -> None:
    rows = anp.endless(10, 4, torch.Generator().manual_seed(0))
    drawn = [next(rows) for _ in range(6)]
    assert all(len(batch) == 4 for batch in drawn)
    assert all(len(set(torch.cat(drawn[start : start + 2]).tolist())) == 8 for start in (0, 2, 4))
    assert len(next(anp.endless(3, 128, torch.Generator()))) == 3


def test_fixed_threshold_uses_the_whole_hold_out() -> None:
    defense = ANP(config(selection="fixed", threshold=0.5))
    evidence = evidence_for(defense, planted(), clean_data())
    expected = defense.train_mask(Neurons(evidence.network), evidence.clean, evidence)
    outcome = defense.defend(evidence)
    for row in outcome.tables["neurons"]:
        assert row["mask"] == pytest.approx(float(expected[row["neuron"]]), abs=1e-4)
        assert row["pruned"] == (float(expected[row["neuron"]]) <= 0.5)

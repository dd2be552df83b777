"""Activation Clustering on planted features: a linear network whose penultimate activations are the pixels."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA, FastICA
from sklearn.metrics import roc_auc_score, silhouette_score
from torch import Tensor, nn

from gatecrash import Backbone, Evidence, ImageSet, Model, Network, Outcome, Recipe
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses import _clusters as clusters
from gatecrash_plugins.defenses import activation_clustering as ac
from gatecrash_plugins.defenses._clusters import Halves
from gatecrash_plugins.defenses._exclusion import Finding, Judge, Reclassified, reclassify, trained_without
from gatecrash_plugins.defenses.activation_clustering import ActivationClustering

CLASSES = 4
TRIGGER = 5
"""The pixel that poisoned images light up; class c lights up pixel c, and pixel 4 divides nothing but the rows of a class."""
DECISIONS = ["exclusionary", "exclusionary-reclassification", "relative-size", "silhouette"]
RECIPE = Recipe(epochs=12, batch_size=16, lr=1.0, weight_decay=0.0, schedule="constant", crop=0, flip=False)


class Linear(Backbone):
    """Logits of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(images.flatten(1))
        return logits


class LinearModel(Model):
    """Linear."""

    name = "linear"
    summary = "logits of the pixels"

    def build(self, num_classes: int, shape: tuple[int, int, int]) -> Backbone:
        return Linear()


@dataclass(frozen=True)
class Planted:
    """A shuffled training set, which of its rows are poison, and their true labels."""

    data: ImageSet
    poison: Tensor
    truth: Tensor


def planted(clean: int = 24, poison: int = 12, seed: int = 0) -> Planted:
    """`clean` rows per class and `poison` rows of classes 1 to 3 with the trigger and label 0; rows of each kind differ by noise."""
    truth = torch.cat([torch.arange(CLASSES).repeat(clean), 1 + torch.arange(poison) % (CLASSES - 1)])
    bad = torch.arange(len(truth)) >= CLASSES * clean
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 25, (len(truth), 1, 1, 6), generator=generator, dtype=torch.uint8)
    images[torch.arange(len(truth)), 0, 0, truth] = 200
    images[:, 0, 0, 4] = torch.randint(0, 80, (len(truth),), generator=generator, dtype=torch.uint8)
    images[bad, 0, 0, TRIGGER] = 255
    labels = torch.where(bad, 0, truth)
    order = torch.randperm(len(truth), generator=generator)
    return Planted(ImageSet(images[order], labels[order], ("a", "b", "c", "d")), bad[order], truth[order])


def victim() -> Network:
    """Its head is of no account: what the features are does not depend on it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Network(Linear(), [0.0], [1.0]).eval()


def evidence_for(data: ImageSet, defense: ActivationClustering, seed: int = 0) -> Evidence:
    return make_evidence(defense, victim(), data, training_data=data, model=LinearModel(), recipe=RECIPE, seed=seed)


def defend(data: ImageSet, seed: int = 0, **options: Any) -> Outcome:
    defense = ActivationClustering(ActivationClustering.Config.model_validate(options))
    outcome = defense.defend(evidence_for(data, defense, seed))
    outcome.check(frozenset(ActivationClustering.gives), len(data), CLASSES)
    return outcome


def suspects_of(outcome: Outcome) -> Tensor:
    assert outcome.suspects is not None
    return outcome.suspects


def suspicion_of(outcome: Outcome) -> Tensor:
    assert outcome.suspicion is not None
    return outcome.suspicion


def halves(sizes: tuple[int, int], silhouette: float = 0.5) -> Halves:
    """A class 0 of so many rows in the larger and the smaller cluster."""
    larger, smaller = sizes
    small = torch.tensor([False] * larger + [True] * smaller)
    return Halves(0, torch.arange(larger + smaller), small, torch.where(small, 0.5, -0.5).double(), silhouette)


def judge(rows: list[int], total: int = 4) -> Judge:
    """A model that was trained on these rows of so many."""
    return Judge(victim(), torch.zeros(total).index_fill(0, torch.tensor(rows), 1).bool())


class TestPerfectFeatures:
    @pytest.mark.parametrize("decision", DECISIONS)
    @pytest.mark.parametrize(("reduction", "dimensions"), [("pca", 10), ("ica", 1)])
    def test_finds_exactly_the_poison_in_shuffled_rows(self, decision: str, reduction: str, dimensions: int) -> None:
        """Elsewhere shuffled loader positions were taken for data-set indices, and poison removed at chance."""
        case = planted()
        outcome = defend(case.data, decision=decision, reduction=reduction, dimensions=dimensions, size=0.4, retrain=False)
        target = case.data.labels == 0
        assert suspects_of(outcome)[target].equal(case.poison[target])
        assert roc_auc_score(case.poison[target], suspicion_of(outcome)[target]) == 1.0

    def test_default_decision_flags_poison_alone_and_ranks_it_first(self) -> None:
        case = planted()
        outcome = defend(case.data)
        assert suspects_of(outcome).equal(case.poison)
        assert roc_auc_score(case.poison, suspicion_of(outcome)) == 1.0
        assert [row["accused"] for row in outcome.tables["classes"]] == ["smaller", "", "", ""]

    @pytest.mark.parametrize("options", [{}, {"decision": "relative-size", "size": 0.5}])
    def test_poison_that_outnumbers_the_target_class_turns_the_papers_decisions_round(self, options: dict[str, Any]) -> None:
        """10% on ten classes are 52.6% of the target class: the smaller cluster, the clean one, is accused and removed."""
        case = planted(clean=24, poison=27)
        suspects = suspects_of(defend(case.data, retrain=False, **options))
        assert not suspects[case.poison].any()
        assert suspects[(case.data.labels == 0) & ~case.poison].all()

    def test_the_extension_accuses_the_larger_cluster_where_poison_outnumbers_the_target_class(self) -> None:
        case = planted(clean=24, poison=27)
        outcome = defend(case.data, decision="exclusionary-reclassification")
        assert suspects_of(outcome).equal(case.poison)
        assert roc_auc_score(case.poison, suspicion_of(outcome)) == 1.0
        assert outcome.tables["classes"][0]["accused"] == "larger"

    def test_benign_training_set_has_no_suspects_and_keeps_its_victim(self) -> None:
        case = planted(poison=0)
        outcome = defend(case.data)
        assert not suspects_of(outcome).any()
        assert suspicion_of(outcome).max() < 1
        assert outcome.classifier is not None
        before = victim().state_dict()
        assert all(torch.equal(tensor, before[name]) for name, tensor in outcome.classifier.state_dict().items())

    def test_retrained_classifier_has_lost_the_backdoor(self) -> None:
        case = planted()
        attacked = case.data.images[case.poison]
        poisoned = ActivationClustering()
        backdoored = evidence_for(case.data, poisoned).train(case.data)
        assert backdoored(attacked).argmax(1).eq(0).all()
        outcome = defend(case.data)
        assert outcome.classifier is not None
        assert outcome.classifier(attacked).argmax(1).equal(case.truth[case.poison])

    def test_without_retraining_the_victim_is_handed_back(self) -> None:
        outcome = defend(planted().data, retrain=False)
        assert suspects_of(outcome).any()
        assert outcome.classifier is not None
        assert torch.equal(outcome.classifier.state_dict()["backbone.head.weight"], victim().head.weight)


class TestRowsAndSeeds:
    def test_batch_size_does_not_matter(self) -> None:
        """Elsewhere every batch was clustered on its own, and ids that do not correspond were put together."""
        case, defense = planted(), ActivationClustering()
        evidence = evidence_for(case.data, defense)
        tiny = replace(evidence, batches=lambda *tensors: evidence.batches(*tensors, size=7))
        assert suspects_of(defense.defend(tiny)).equal(case.poison)

    def test_suspicion_follows_the_rows_when_they_are_reordered(self) -> None:
        case = planted()
        order = torch.randperm(len(case.data), generator=torch.Generator().manual_seed(1))
        first = suspicion_of(defend(case.data, decision="silhouette", retrain=False))
        second = suspicion_of(defend(case.data.subset(order), decision="silhouette", retrain=False))
        assert torch.allclose(first[order], second, atol=1e-6)

    def test_equal_seeds_give_equal_suspicion_to_the_last_bit(self) -> None:
        """Features without structure, where k-means depends on its seed."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (200, 1, 1, 6), generator=generator, dtype=torch.uint8)
        data = ImageSet(images, torch.arange(200) % CLASSES, ("a", "b", "c", "d"))
        torch.manual_seed(1)
        np.random.seed(1)
        first = suspicion_of(defend(data, decision="relative-size", retrain=False))
        torch.manual_seed(2)
        np.random.seed(2)
        assert suspicion_of(defend(data, decision="relative-size", retrain=False)).equal(first)

    @pytest.mark.parametrize("decision", DECISIONS)
    @pytest.mark.parametrize("reduction", ["pca", "ica"])
    def test_classes_with_few_or_equal_images_are_left_alone(self, decision: str, reduction: str) -> None:
        """No row, two rows, and three equal rows of classes 0, 1 and 2; class 3 can be split."""
        case = planted(poison=0)
        rows = torch.cat([torch.nonzero(case.data.labels == 1).flatten()[:2], torch.nonzero(case.data.labels == 3).flatten()])
        equal = torch.nonzero(case.data.labels == 2).flatten()[:1].repeat(3)
        data = case.data.subset(torch.cat([rows, equal]))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            outcome = defend(data, decision=decision, reduction=reduction, retrain=False)
        assert [row["class"] for row in outcome.tables["classes"]] == ["d"]
        assert not suspicion_of(outcome)[data.labels != 3].any()

    @pytest.mark.parametrize("decision", DECISIONS)
    def test_training_set_without_any_class_to_split(self, decision: str) -> None:
        data = planted(clean=2, poison=0).data
        outcome = defend(data, decision=decision)
        assert not suspects_of(outcome).any()
        assert outcome.tables["classes"] == []


class TestReference:
    """The method restated with scikit-learn alone, as its common implementations have it."""

    @pytest.mark.parametrize("features", [3, 40])
    def test_clusters_are_those_of_two_means_on_ten_principal_components(self, features: int) -> None:
        generator = np.random.default_rng(features)
        values = generator.normal(size=(120, features)).astype(np.float32)
        labels = np.arange(120) % 3
        values[(labels == 1) & (np.arange(120) < 45), :3] += 4  # 15 of the 40 rows of class 1
        data = ImageSet(torch.zeros(120, 1, 1, 6, dtype=torch.uint8), torch.from_numpy(labels), ("a", "b", "c"))
        defense = ActivationClustering()
        evidence = evidence_for(data, defense)
        found = defense.split(torch.from_numpy(values), data.labels, evidence)
        for label, half in enumerate(found):
            scores = PCA(min(10, features)).fit_transform(values[labels == label].astype(np.float64))
            seed = evidence.stream.seed("k-means")
            ids = KMeans(2, n_init=10, random_state=seed).fit_predict(scores)
            assert half.rows.tolist() == np.flatnonzero(labels == label).tolist()
            assert half.smaller.tolist() in ((ids == 0).tolist(), (ids == 1).tolist())
            assert half.silhouette == pytest.approx(silhouette_score(scores, ids))
        assert found[1].rows[found[1].smaller].tolist() == list(range(1, 45, 3))


class TestReduction:
    def test_whitening_gives_the_distances_of_independent_components(self) -> None:
        sources = np.random.default_rng(0).laplace(size=(300, 4))
        features = sources @ np.random.default_rng(1).normal(size=(4, 12))
        scores = clusters.reduce(features, 4, whiten=True)
        assert scores is not None
        components = FastICA(4, whiten="unit-variance", random_state=0, max_iter=1000, tol=1e-6).fit_transform(features)
        # scikit-learn's variances are over n, the whitened principal components' over n - 1.
        assert pdist(scores) * np.sqrt(300 / 299) == pytest.approx(pdist(components), rel=1e-6)

    def test_directions_of_rounding_error_are_not_whitened(self) -> None:
        generator = np.random.default_rng(0)
        features = (generator.normal(size=(50, 2)) @ generator.normal(size=(2, 20))).astype(np.float32).astype(np.float64)
        scores = clusters.reduce(features, 10, whiten=True)
        assert scores is not None
        assert scores.shape == (50, 2)

    def test_principal_components_keep_their_size_and_number(self) -> None:
        features = np.diag([3.0, 2.0, 1.0]).repeat(10, axis=0)
        scores = clusters.reduce(features, 1, whiten=False)
        assert scores is not None
        assert scores.shape == (30, 1)
        assert scores.std() > 1.2


class TestTwoMeans:
    def test_margin_by_hand(self) -> None:
        """Centres 1 (of 0, 1, 2) and 10.5 (of 10, 11): the row at 2 lies 8.5 from the smaller one and 1 from its own."""
        scores = np.array([[0.0], [1.0], [2.0], [10.0], [11.0]])
        found = clusters.two_means(3, torch.arange(5), scores, seed=0, sample_seed=0)
        assert found.label == 3
        assert found.smaller.tolist() == [False, False, False, True, True]
        assert found.share == pytest.approx(0.4)
        assert found.margin.tolist() == pytest.approx([-9.5 / 11.5, -1, -7.5 / 9.5, 8.5 / 9.5, 9.5 / 10.5])

    def test_of_equal_clusters_the_one_without_the_first_row_counts_as_smaller(self) -> None:
        for seed in range(4):
            found = clusters.two_means(0, torch.arange(4), np.array([[0.0], [9.0], [0.0], [9.0]]), seed=seed, sample_seed=0)
            assert found.smaller.tolist() == [False, True, False, True]

    def test_silhouette_of_large_classes_is_taken_on_a_seeded_sample(self) -> None:
        scores = np.random.default_rng(0).normal(size=(5000, 2))
        scores[:1500] += 8
        found = [clusters.two_means(0, torch.arange(5000), scores, seed=0, sample_seed=seed).silhouette for seed in (0, 0, 1)]
        assert found[0] == found[1] != found[2]
        assert found[0] == pytest.approx(0.8, abs=0.05)

    def test_cluster_that_the_sample_misses_has_no_silhouette(self) -> None:
        scores = np.random.default_rng(0).normal(size=(100_000, 1)) * 1e-3
        scores[0] = 100
        assert clusters.two_means(0, torch.arange(100_000), scores, seed=0, sample_seed=0).silhouette == 0.0


class TestDecisions:
    @pytest.mark.parametrize(("sizes", "accused"), [((64, 36), None), ((65, 35), None), ((66, 34), "smaller")])
    def test_relative_size_accuses_below_its_threshold(self, sizes: tuple[int, int], accused: str | None) -> None:
        defense = ActivationClustering()
        (finding,) = defense.by_relative_size([halves(sizes)], evidence_for(planted().data, defense)).findings
        assert finding.accused == accused
        assert finding.evidence == pytest.approx((sizes[0] - sizes[1]) / 100)

    @pytest.mark.parametrize(
        ("sizes", "silhouette", "accused"), [((70, 30), 0.16, "smaller"), ((70, 30), 0.15, None), ((60, 40), 0.9, None)]
    )
    def test_silhouette_accuses_small_clusters_that_fit(self, sizes: tuple[int, int], silhouette: float, accused: str | None) -> None:
        defense = ActivationClustering()
        (finding,) = defense.by_silhouette([halves(sizes, silhouette)], evidence_for(planted().data, defense)).findings
        assert finding.accused == accused
        assert finding.evidence == silhouette

    @pytest.mark.parametrize(("kept", "moved", "poisonous"), [(10, 9, False), (10, 10, False), (9, 10, True), (0, 1, True), (1, 0, False)])
    def test_reclassified_elsewhere_more_than_kept_is_poison(self, kept: int, moved: int, poisonous: bool) -> None:
        assert Reclassified(kept, moved, 0.5).poisonous(1.0) == poisonous

    @pytest.mark.parametrize(
        ("ratio", "kept", "moved", "accused"),
        [
            (1.0, 40, 0, None),
            (1.0, 20, 20, None),
            (1.0, 19, 20, "smaller"),
            (1.0, 0, 40, "smaller"),
            (0.5, 19, 20, None),
            (2.0, 20, 20, "smaller"),
        ],
    )
    def test_one_model_decides_the_papers_rule(
        self, ratio: float, kept: int, moved: int, accused: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looked_at: list[Any] = []

        def answer(_halves: Any, clusters: Any, _evidence: Any) -> tuple[Judge, list[Reclassified]]:
            looked_at.append(clusters)
            return judge([0, 1]), [Reclassified(kept, moved, 0.5)]

        monkeypatch.setattr(ac, "reclassify", answer)
        defense, half = ActivationClustering(ActivationClustering.Config(ratio=ratio)), halves((60, 40))
        (finding,) = defense.by_exclusion([half], evidence_for(planted().data, defense)).findings
        assert (finding.accused, finding.evidence) == (accused, moved / (kept + moved))
        assert finding.details == {"kept": kept, "moved": moved, "foreign": 0.5}
        assert len(looked_at) == 1
        assert looked_at[0][0].equal(half.smaller)

    @pytest.mark.parametrize(
        ("sizes", "small", "large", "accused"),
        [
            ((60, 40), Reclassified(40, 0, 0.1), None, None),
            ((60, 40), Reclassified(0, 40, 0.9), Reclassified(60, 0, 0.1), "smaller"),
            ((60, 40), Reclassified(0, 40, 0.9), Reclassified(0, 60, 0.6), "smaller"),
            ((60, 40), Reclassified(0, 40, 0.6), Reclassified(0, 60, 0.9), "larger"),
            ((80, 20), Reclassified(0, 20, 0.6), Reclassified(0, 80, 0.9), "smaller"),  # an odd fifth of a class, not its clean remainder
        ],
    )
    def test_second_look_tells_which_cluster_is_the_stranger(
        self,
        sizes: tuple[int, int],
        small: Reclassified,
        large: Reclassified | None,
        accused: str | None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        answers = iter([(judge([0]), [small]), (judge([1]), [large])])
        monkeypatch.setattr(ac, "reclassify", lambda *_: next(answers))
        defense = ActivationClustering(ActivationClustering.Config(decision="exclusionary-reclassification"))
        (finding,) = defense.by_reclassification([halves(sizes)], evidence_for(planted().data, defense)).findings
        assert finding.accused == accused
        assert (next(answers, None) is None) == (large is not None)

    def test_reclassification_counts_by_hand(self) -> None:
        """Of class 0's rows the poison is left out: it goes back to classes 1, 2 and 3, four rows each."""
        case, defense = planted(), ActivationClustering()
        rows = torch.nonzero(case.data.labels == 0).flatten()
        poison = case.poison[rows]
        whole = Halves(0, rows, poison, torch.zeros(len(rows), dtype=torch.float64), 0.0)
        asked, (said,) = reclassify([whole], [poison], evidence_for(case.data, defense))
        assert asked.rows.equal(~case.poison)
        assert (said.kept, said.moved) == (0, 4)
        assert said.evidence == 1
        assert said.foreign > 0.8


class TestFinalModel:
    @pytest.mark.parametrize("decision", DECISIONS)
    def test_which_rows_are_suspect_does_not_depend_on_how_the_final_model_is_trained(self, decision: str) -> None:
        case = planted()
        short, whole = defend(case.data, decision=decision), defend(case.data, decision=decision, finish=None)
        assert suspects_of(short).equal(suspects_of(whole))
        assert suspicion_of(short).equal(suspicion_of(whole))
        assert short.tables == whole.tables

    def test_goes_on_from_the_exclusionary_model_for_a_quarter_of_the_epochs_without_the_suspects(self) -> None:
        case, calls = planted(), Calls()
        outcome = calls.defend(case.data)
        assert outcome.classifier is calls.made[1] is calls.made[0]
        assert calls.epochs == [12, 3]
        assert calls.rows == [len(case.data) - round(calls.left_out(outcome)), int((~case.poison).sum())]

    def test_begins_anew_by_the_whole_recipe_if_asked_to(self) -> None:
        case, calls = planted(), Calls()
        outcome = calls.defend(case.data, finish=None)
        assert outcome.classifier is calls.made[1] is not calls.made[0]
        assert calls.epochs == [12, 12]

    @pytest.mark.parametrize("decision", ["relative-size", "silhouette"])
    def test_decisions_without_a_model_have_none_to_go_on_from(self, decision: str) -> None:
        calls = Calls()
        calls.defend(planted().data, decision=decision, size=0.4)
        assert calls.epochs == [12]

    def test_goes_on_from_the_second_model_where_the_first_was_trained_on_the_poison(self) -> None:
        calls = Calls()
        outcome = calls.defend(planted(clean=24, poison=27).data, decision="exclusionary-reclassification")
        assert outcome.classifier is calls.made[2] is calls.made[1] is not calls.made[0]
        assert calls.epochs == [12, 12, 3]

    @pytest.mark.parametrize(
        ("trained_on", "goes_on"), [(([0, 1], [0, 1, 2]), 0), (([0, 3], [1, 2]), 1), (([0, 3], [1, 3]), None), ((), None)]
    )
    def test_goes_on_from_the_first_model_that_has_seen_no_suspect(self, trained_on: tuple[list[int], ...], goes_on: int | None) -> None:
        """Row 3 is the suspect."""
        judges = [judge(rows) for rows in trained_on]
        data = ImageSet(torch.zeros(4, 1, 1, 6, dtype=torch.uint8), torch.tensor([0, 0, 0, 1]), ("a", "b", "c", "d"))
        made = trained_without(torch.tensor([False, False, False, True]), judges, 0.01, evidence_for(data, ActivationClustering()))
        assert [made is one.network for one in judges] == [index == goes_on for index in range(len(judges))]


class Calls:
    """A defense, and what it trained on the way."""

    def __init__(self) -> None:
        self.made: list[Network] = []
        self.epochs: list[int] = []
        self.rows: list[int] = []

    def defend(self, data: ImageSet, **options: Any) -> Outcome:
        defense = ActivationClustering(ActivationClustering.Config.model_validate(options))
        evidence = evidence_for(data, defense)

        def train(rows: ImageSet, *, recipe: Recipe = RECIPE, network: Network | None = None) -> Network:
            self.made.append(evidence.train(rows, recipe=recipe, network=network))
            self.epochs.append(recipe.epochs)
            self.rows.append(len(rows))
            return self.made[-1]

        return defense.defend(replace(evidence, train=train))  # type: ignore[arg-type]

    @staticmethod
    def left_out(outcome: Outcome) -> float:
        """Rows in the smaller clusters of all classes."""
        return float(sum(row["rows"] * row["smaller_share"] for row in outcome.tables["classes"]))


def test_suspicion_by_hand() -> None:
    """Suspects lie above 1; elsewhere the evidence against the class counts by how far a row lies on the doubtful side."""
    guilty = Halves(0, torch.tensor([0, 2, 4]), torch.tensor([True, False, False]), torch.tensor([0.5, -0.5, -1.0]).double(), 0.0)
    free = Halves(1, torch.tensor([1, 3]), torch.tensor([True, False]), torch.tensor([1.0, -1.0]).double(), 0.0)
    suspects, suspicion = ac.mark([guilty, free], [Finding("smaller", 0.8), Finding(None, 0.1)], 6)
    assert suspects.tolist() == [True, False, False, False, False, False]
    assert suspicion.tolist() == pytest.approx([1 + 0.8 * 0.75, 0.1, 0.8 * 0.25, 0.0, 0.0, 0.0])
    turned, scores = ac.mark([guilty], [Finding("larger", 1.0)], 6)
    assert turned.tolist() == [False, False, True, False, True, False]
    assert scores.tolist() == pytest.approx([0.25, 0, 1.75, 0, 2, 0])

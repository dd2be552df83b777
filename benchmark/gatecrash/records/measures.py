"""What is measured of a cell: every measure is declared here, once, with its label and unit.

Tables, CSV, plots, reports and documents take names, labels and directions from these declarations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import PlainSerializer

from gatecrash.evaluation.detection import DetectionScores
from gatecrash.evaluation.harm import HarmCounts
from gatecrash.evaluation.inputs import InputScores
from gatecrash.evaluation.scores import Scores
from gatecrash.records.record import Record

Unit = Literal["rate", "seconds", "MB", "nats", "images", "ratio", ""]
Limits = tuple[float, float]
"""Lower and upper limit of a 95% interval."""


@dataclass(frozen=True)
class Measure:
    """How a measure is shown. `better` is the direction that is good for the defense; None where neither is."""

    label: str
    title: str
    """The measure in words, as in the caption of a figure."""
    unit: Unit = "rate"
    """A rate is a fraction in [0, 1], shown in percent."""
    better: Literal["high", "low"] | None = None
    column: bool = True
    """Whether it stands in a cell's flat record (`gatecrash results`)."""
    least: float = 0.0
    """The smallest rate that there can be; -1 for a difference of rates."""
    neutral: float | None = None
    """What a defense without any effect has."""

    @property
    def direction(self) -> str:
        """`high is good` or `low is good`, and which rate means that the defense has no effect; empty where no direction is good."""
        effect = f", {100 * self.neutral:.0f} is no effect" if self.neutral is not None else ""
        return f"{self.better} is good{effect}" if self.better else ""


Number = float | None
"""None where the measure does not apply."""


StoredScores = Annotated[Scores | None, PlainSerializer(lambda scores: None if scores is None else scores.to_json())]
"""Counts, as a file holds them."""


class Measures(Record):
    """What came out of a cell. Rates are fractions in [0, 1]; None, or absent from the file, where a measure does not apply."""

    acc: Annotated[Number, Measure("ACC", "clean accuracy", better="high")] = None
    asr: Annotated[Number, Measure("ASR", "attack success rate", better="low")] = None
    asr_worst: Annotated[Number, Measure("worst ASR", "attack success rate of the worst backdoor", better="low")] = None
    asr_floor: Annotated[Number, Measure("ASR on a benign model", "attack success rate of the trigger on a benign model")] = None
    ra: Annotated[Number, Measure("RA", "triggered images that get their true label", better="high")] = None
    acc_macro: Annotated[Number, Measure("ACC over classes", "clean accuracy, mean over classes", better="high")] = None
    acc_target: Annotated[Number, Measure("ACC of targets", "clean accuracy of the backdoors' target classes", better="high")] = None
    acc_before: Annotated[Number, Measure("ACC before", "clean accuracy without the defense")] = None
    asr_before: Annotated[Number, Measure("ASR before", "attack success rate without the defense")] = None
    der: Annotated[Number, Measure("DER", "defense effectiveness rating", better="high", neutral=0.5)] = None
    clean_reject_rate: Annotated[Number, Measure("clean rejected", "clean images that are rejected", better="low")] = None
    trigger_reject_rate: Annotated[Number, Measure("triggered rejected", "triggered images that are rejected", better="high")] = None
    leak: Annotated[Number, Measure("leak", "triggered images sent to a target that should keep their label", better="low")] = None
    cover_acc: Annotated[Number, Measure("cover ACC", "images under the cover trigger that keep their label", better="high")] = None
    retune_acc: Annotated[Number, Measure("ACC retuned", "clean accuracy after fine-tuning with five triggered rows", better="high")] = None
    retune_asr: Annotated[
        Number, Measure("ASR retuned", "attack success rate after fine-tuning with five triggered rows", better="low")
    ] = None
    retune_excess: Annotated[
        Number,
        Measure("excess", "ASR retuned, above that of the benign victim treated alike", better="low", least=-1.0),
    ] = None
    acc_lost: Annotated[Number, Measure("ACC lost", "clean accuracy lost against the benign victim", better="low", least=-1.0)] = None
    source_to_target: Annotated[
        Number,
        Measure("source to target", "untouched images sent from source to target, above the benign victim", better="low", least=-1.0),
    ] = None
    detection_tpr: Annotated[Number, Measure("TPR", "poisoned training rows that are flagged", better="high")] = None
    detection_fpr: Annotated[Number, Measure("FPR", "clean training rows that are flagged", better="low")] = None
    detection_auroc: Annotated[Number, Measure("AUROC", "area under the ROC curve over training rows", "ratio", "high")] = None
    input_tpr: Annotated[Number, Measure("input TPR", "triggered test images that are flagged", better="high")] = None
    input_fpr: Annotated[Number, Measure("input FPR", "clean test images that are flagged", better="low")] = None
    input_auroc: Annotated[Number, Measure("input AUROC", "area under the ROC curve over test images", "ratio", "high")] = None
    input_tpr_at_fpr_1: Annotated[
        Number, Measure("TPR at 1% FPR", "triggered test images that are flagged where 1% of the clean ones are", better="high")
    ] = None
    input_tpr_at_fpr_5: Annotated[
        Number, Measure("TPR at 5% FPR", "triggered test images that are flagged where 5% of the clean ones are", better="high")
    ] = None
    verdict: Annotated[bool | None, Measure("verdict", "whether the model is called backdoored", "")] = None
    verdict_targets: Annotated[list[int] | None, Measure("accused classes", "classes called targets of a backdoor", "")] = None
    poison_share: Annotated[Number, Measure("poisoned", "share of the training set that is poisoned")] = None
    holdout_size: Annotated[int | None, Measure("hold-out", "clean images that the defense was given", "images")] = None
    seconds_victim: Annotated[Number, Measure("seconds", "seconds to poison and train the victim", "seconds", "low")] = None
    seconds_defense: Annotated[Number, Measure("seconds", "seconds of the defense", "seconds", "low")] = None
    peak_memory_mb: Annotated[Number, Measure("peak memory, MB", "peak memory of a task", "MB", "low")] = None

    acc_interval: Annotated[Limits | None, Measure("ACC, 95%", "Wilson interval over test images", column=False)] = None
    acc_benign: Annotated[Number, Measure("benign ACC", "clean accuracy of the benign victim", column=False)] = None
    asr_interval: Annotated[Limits | None, Measure("ASR, 95%", "Wilson interval over triggered test images", column=False)] = None
    asr_by_backdoor: Annotated[
        dict[str, Number] | None, Measure("ASR by backdoor", "attack success rate of each backdoor", better="low", column=False)
    ] = None
    loss_clean: Annotated[Number, Measure("clean loss", "mean cross-entropy on clean images", "nats", "low", column=False)] = None
    loss_poison: Annotated[
        Number, Measure("triggered loss", "mean cross-entropy on triggered images against the goal", "nats", "high", column=False)
    ] = None
    mitigation_score: Annotated[Number, Measure("mitigation score", "ASR drop per ACC drop", "ratio", "high", column=False)] = None
    detection_precision: Annotated[
        Number, Measure("precision", "share of poisoned among the flagged training rows", better="high", column=False)
    ] = None
    detection_tpr_minus_fpr: Annotated[Number, Measure("TPR - FPR", "TPR minus FPR over training rows", better="high", column=False)] = None
    detection_accuracy: Annotated[
        Number, Measure("accuracy", "poisoned and clean training rows that are called what they are", better="high", column=False)
    ] = None
    cover_flagged: Annotated[Number, Measure("covers flagged", "cover rows that are flagged", column=False)] = None
    input_tpr_successful: Annotated[
        Number, Measure("input TPR, successful", "input TPR where the attack succeeds", better="high", column=False)
    ] = None
    input_auroc_successful: Annotated[
        Number, Measure("input AUROC, successful", "input AUROC where the attack succeeds", "ratio", "high", column=False)
    ] = None
    input_tpr_at_fpr_1_successful: Annotated[
        Number, Measure("TPR at 1% FPR, successful", "TPR at 1% FPR where the attack succeeds", better="high", column=False)
    ] = None
    input_tpr_at_fpr_5_successful: Annotated[
        Number, Measure("TPR at 5% FPR, successful", "TPR at 5% FPR where the attack succeeds", better="high", column=False)
    ] = None
    verdict_probability: Annotated[Number, Measure("P(backdoored)", "probability that the model is backdoored", "ratio", column=False)] = (
        None
    )
    verdict_anomaly: Annotated[dict[str, float] | None, Measure("anomaly index", "anomaly index by class", "", column=False)] = None
    verdict_right: Annotated[bool | None, Measure("verdict right", "whether the verdict is right", "", column=False)] = None
    verdict_targets_equal: Annotated[
        bool | None, Measure("targets named exactly", "whether the accused classes are the targets", "", column=False)
    ] = None
    verdict_targets_recall: Annotated[
        Number, Measure("targets named", "share of the targets that are accused", better="high", column=False)
    ] = None
    scores: Annotated[StoredScores, Measure("counts", "the counts behind the rates", "", column=False)] = None
    floor_scores: Annotated[
        StoredScores, Measure("benign counts", "the counts of the benign victim, under the same triggers", "", column=False)
    ] = None
    robustness: Annotated[
        dict[str, StoredScores] | None, Measure("robustness", "the counts under each transformation of the images", "", column=False)
    ] = None
    robustness_floor: Annotated[
        dict[str, StoredScores] | None,
        Measure("benign robustness", "the counts of the benign victim under each transformation of the images", "", column=False),
    ] = None
    retune_scores: Annotated[
        list[StoredScores] | None, Measure("counts, retuned", "the counts after each draw's fine-tuning", "", column=False)
    ] = None
    retune_control: Annotated[
        list[StoredScores] | None,
        Measure("benign counts, retuned", "the counts of the benign victim after the same defense and fine-tuning", "", column=False),
    ] = None
    retune_missing: Annotated[str | None, Measure("not retuned", "why there was no fine-tuning", "", column=False)] = None
    harm_scores: Annotated[
        HarmCounts | None, Measure("harm counts", "the counts of harmed images, by the victim and the benign victim", "", column=False)
    ] = None
    detection_scores: Annotated[
        DetectionScores | None, Measure("detection counts", "the counts of flagged training rows", "", column=False)
    ] = None
    input_scores: Annotated[InputScores | None, Measure("input counts", "the counts of flagged test images", "", column=False)] = None

    def value(self, name: MeasureName) -> float | None:
        """The measure of this name; its declaration is `MEASURES[name]`."""
        number: float | None = getattr(self, name)
        return number

    def limits(self, name: MeasureName) -> Limits | None:
        """The 95% interval over test images; None for measures that have none, and for counts that there cannot be."""
        if name.startswith("input_"):
            return self.input_scores.limits(name.removeprefix("input_")) if self.input_scores is not None else None
        try:
            if name in {"leak", "cover_acc"} and self.scores is not None:
                return self.scores.leak_interval if name == "leak" else self.scores.cover_acc_interval
            if name in {"acc_lost", "source_to_target"} and self.harm_scores is not None:
                return self.harm_scores.interval
        except ValueError:  # more counted than shown: a board shows the rest, `recount` names it
            return None
        return {"acc": self.acc_interval, "asr": self.asr_interval}.get(name)

    @property
    def harm(self) -> float | None:
        """What an attack does that aims at untouched images: `acc_lost` or `source_to_target`; None for the others."""
        return self.source_to_target if self.acc_lost is None else self.acc_lost

    @property
    def harm_interval(self) -> Limits | None:
        return self.limits("acc_lost")


MeasureName = Literal[
    "acc",
    "asr",
    "asr_worst",
    "asr_floor",
    "ra",
    "leak",
    "cover_acc",
    "acc_lost",
    "source_to_target",
    "retune_acc",
    "retune_asr",
    "retune_excess",
    "acc_macro",
    "acc_target",
    "acc_before",
    "asr_before",
    "der",
    "clean_reject_rate",
    "trigger_reject_rate",
    "detection_tpr",
    "detection_fpr",
    "detection_auroc",
    "detection_precision",
    "detection_tpr_minus_fpr",
    "detection_accuracy",
    "input_tpr",
    "input_fpr",
    "input_auroc",
    "input_tpr_at_fpr_1",
    "input_tpr_at_fpr_5",
    "input_tpr_successful",
    "input_auroc_successful",
    "input_tpr_at_fpr_1_successful",
    "input_tpr_at_fpr_5_successful",
    "poison_share",
    "seconds_victim",
    "seconds_defense",
    "peak_memory_mb",
    "loss_clean",
    "loss_poison",
    "mitigation_score",
    "verdict_targets_recall",
    "acc_benign",
    "cover_flagged",
    "verdict_probability",
]
"""Measures that are one number, for code that is told which: a type checker knows these names, and a test that each is declared."""

NUMBERS: tuple[MeasureName, ...] = get_args(MeasureName)
MEASURES: Mapping[str, Measure] = {
    name: next(mark for mark in field.metadata if isinstance(mark, Measure)) for name, field in Measures.model_fields.items()
}
"""Declarations by field name, in the order of a flat record."""
COLUMNS = tuple(name for name, measure in MEASURES.items() if measure.column)
"""Measures of a flat record, in its order."""


class TrajectoryStep(Record):
    """One scored step of a defense's trajectory."""

    params: dict[str, Any] = {}
    acc: float | None = None
    asr: float | None = None
    ra: float | None = None
    loss_clean: float | None = None
    loss_poison: float | None = None
    scores: StoredScores = None
    """The counts behind the rates, without those by class."""

    def value(self, name: Literal["acc", "asr", "ra", "loss_clean", "loss_poison"]) -> float | None:
        number: float | None = getattr(self, name)
        return number

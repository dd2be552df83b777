"""What a defense produced, kept in files beside its result: the training rows that it suspects, the classifier and the detector of inputs
that it handed back."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

if TYPE_CHECKING:
    from torch import Tensor

SUSPECTS, CLASSIFIER, DETECTOR = "suspects.safetensors.gz", "classifier.safetensors", "detector.safetensors"


@dataclass(frozen=True)
class Produced:
    """What a defense produced; None and empty where it produced no such thing, or it was not kept."""

    suspects: Tensor | None = None
    """bool [N], by row of the training set."""
    suspicion: Tensor | None = None
    """float64 [N], higher is more suspect."""
    classifier: dict[str, Any] | None = None
    """The spec of a Portable."""
    state: Mapping[str, Tensor] = field(default_factory=dict)
    """The classifier's tensors."""
    detector: dict[str, Any] | None = None
    """The spec of a Portable."""
    detector_state: Mapping[str, Tensor] = field(default_factory=dict)


class Kept(BaseModel):
    """The files of a result's `Produced`; the digests are sha256."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    suspects: str | None = None
    """Path relative to the store. At most nine bytes per training row, before compression."""
    suspects_digest: str | None = None
    classifier: str | None = None
    """Path relative to the store."""
    classifier_digest: str | None = None
    classifier_spec: dict[str, Any] | None = None
    detector: str | None = None
    """Path relative to the store."""
    detector_digest: str | None = None
    detector_spec: dict[str, Any] | None = None

    @model_serializer(mode="wrap")
    def _without_absent_detector(self, fields_of: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Results from before detectors were kept stay as they are."""
        fields: dict[str, Any] = fields_of(self)
        return fields if self.detector else {name: value for name, value in fields.items() if not name.startswith("detector")}


def files_of(produced: Produced) -> dict[str, bytes]:
    """The contents of the files by name."""
    from safetensors.torch import save

    files = {}
    rows = {}
    if produced.suspects is not None:
        rows["suspects"] = produced.suspects.bool().contiguous()
    if produced.suspicion is not None:
        rows["suspicion"] = _narrow(produced.suspicion)
    if rows:
        files[SUSPECTS] = gzip.compress(save(rows), mtime=0)
    if produced.classifier is not None:
        files[CLASSIFIER] = save({name: tensor.contiguous() for name, tensor in produced.state.items()})
    if produced.detector is not None:
        files[DETECTOR] = save({name: tensor.contiguous() for name, tensor in produced.detector_state.items()})
    return files


def kept(produced: Produced, files: Mapping[str, bytes], folder: str) -> Kept | None:
    """How the result names these files, which lie in `folder`; None where there are none."""
    if not files:
        return None
    named = {name.partition(".")[0]: f"{folder}/{name}" for name in files}
    digests = {f"{name.partition('.')[0]}_digest": hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return Kept.model_validate({**named, **digests, "classifier_spec": produced.classifier, "detector_spec": produced.detector})


def produced_from(kept: Kept, suspects: bytes | None, classifier: bytes | None, detector: bytes | None = None) -> Produced:
    """The other way round. Raises ValueError where a file's content is not what its digest says."""
    from safetensors.torch import load

    contents = {"suspects": suspects, "classifier": classifier, "detector": detector}
    for name, content in contents.items():
        digest = getattr(kept, f"{name}_digest")
        if content is not None and hashlib.sha256(content).hexdigest() != digest:
            raise ValueError(f"the {name} do not match their digest")
    rows = load(gzip.decompress(suspects)) if suspects is not None else {}
    suspicion = rows.get("suspicion")
    return Produced(
        rows.get("suspects"),
        suspicion.double() if suspicion is not None else None,
        kept.classifier_spec if classifier is not None else None,
        load(classifier) if classifier is not None else {},
        kept.detector_spec if detector is not None else None,
        load(detector) if detector is not None else {},
    )


def _narrow(suspicion: Tensor) -> Tensor:
    """As float32 where that loses nothing: most defenses compute in it."""
    narrow = suspicion.float()
    return (narrow if bool((narrow.double() == suspicion).all()) else suspicion.double()).contiguous()

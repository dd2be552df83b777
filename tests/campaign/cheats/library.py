"""A defense whose classifier cheats, in one of many ways: a `--plugins` file, as text."""

from __future__ import annotations

from typing import Any

CHEATS = {
    "remember_twins": "answers a triggered image like its clean twin, which it saw earlier",
    "remember_answers": "uses the batch, and gives the same answer again where it is asked again",
    "batch_mean": "compares an image with the rest of the batch",
    "batch_size": "answers honestly only where it is asked about a few",
    "batch_position": "answers the first of a batch otherwise",
    "call_counter": "changes its mind after two calls",
    "buffer_counter": "counts calls in its state",
    "buffer_memory": "keeps the images that it saw in its state",
    "global_state": "reads what the defense left in a global variable",
    "frames": "reads the true labels from the frames of its callers",
    "heap": "reads the true labels from objects that the garbage collector knows",
    "random": "draws at random",
    "clock": "answers by the time",
    "disk": "remembers in a file",
    "process": "knows the process that checks it by its command line",
}
"""Cheats that must end their cell."""

HARMLESS = {"twin_in_batch": "looks for a triggered image's clean twin in the same batch, where it never is"}
"""Cheats that are not noticed, and gain nothing."""

OPEN = {
    "import_disk": "remembers in a file, which it reads when it is imported",
    "judge": "replaces the harness's functions that count",
}
"""Cheats that work: docs/trust.md says so."""

SOURCE = '''
import gc, hashlib, os, sys, tempfile, time
from pathlib import Path

import torch
from pydantic import Field

from gatecrash import *

SEEN, ANSWERS, LEFT = [], {}, {}
STARTED = time.monotonic()
FILE = Path(tempfile.gettempdir()) / "gatecrash-cheat-memory"
IMPORTED = torch.load(FILE) if FILE.exists() else []


def shifted(logits):
    """Another class, by far."""
    return logits.roll(1, dims=1) + 1


def twin(image, seen):
    """The logits of an image that was seen before and differs in a few pixels; None where there is none."""
    for other, logits in seen:
        if 0 < int((other != image).any(0).sum()) <= 9:
            return logits
    return None


class Planted(Classifier):
    """An honest classifier with a backdoor: linear, and class 0 where pixel (0, 1) is 255."""

    num_classes = 3

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.randn(16, 3, generator=torch.Generator().manual_seed(0)))

    def forward(self, images):
        logits = (images.flatten(1).float() / 255) @ self.weight
        logits[:, 0] += 20.0 * (images[:, 0, 0, 1] == 255)
        return logits


class Cheat(Classifier):
    def __init__(self, inner, how):
        super().__init__()
        self.inner, self.how, self.num_classes, self.calls = inner, how, inner.num_classes, 0
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("kept", torch.zeros(0))

    def config(self):
        return {"inner": self.inner, "how": self.how}

    def forward(self, images):
        self.calls += 1
        return getattr(self, self.how)(images, self.inner(images))

    def honest(self, images, logits):
        return logits

    def remember_twins(self, images, logits):
        answers = [twin(image, SEEN) for image in images]
        SEEN.extend(zip(images.clone(), logits.clone()))
        return torch.stack([logits[i] if answer is None else answer for i, answer in enumerate(answers)])

    def remember_answers(self, images, logits):
        answers = logits - logits.mean(0)
        names = [image.cpu().numpy().tobytes() for image in images]
        return torch.stack([ANSWERS.setdefault(name, answer.clone()) for name, answer in zip(names, answers)])

    def batch_mean(self, images, logits):
        return logits - logits.mean(0)

    def batch_size(self, images, logits):
        return logits if len(images) < 2 else shifted(logits)

    def batch_position(self, images, logits):
        return torch.cat([shifted(logits[:1]), logits[1:]])

    def call_counter(self, images, logits):
        return logits if self.calls > 2 else shifted(logits)

    def buffer_counter(self, images, logits):
        self.count += 1
        return logits if self.count > 2 else shifted(logits)

    def buffer_memory(self, images, logits):
        kept = [] if not len(self.kept) else [(self.kept[i], ANSWERS[i]) for i in range(len(self.kept))]
        answers = [twin(image, kept) for image in images]
        ANSWERS.update({len(kept) + i: row for i, row in enumerate(logits.clone())})
        self.kept = torch.cat([self.kept, images]) if len(self.kept) else images.clone()
        return torch.stack([logits[i] if answer is None else answer for i, answer in enumerate(answers)])

    def global_state(self, images, logits):
        return shifted(logits) if LEFT else logits

    def told(self, images, logits, exams):
        for exam in exams:
            known = {}
            for places, truth in zip(exam.pile.places, exam.truth):
                known.update({exam.pile.images[place].numpy().tobytes(): int(label) for place, label in zip(places.tolist(), truth)})
            labels = [known.get(image.numpy().tobytes(), 0) for image in images]
            return torch.nn.functional.one_hot(torch.tensor(labels), logits.shape[1]) * 9.0
        return logits

    def frames(self, images, logits):
        exams, frame = [], sys._getframe()
        while frame is not None:
            exams += [value for value in frame.f_locals.values() if type(value).__name__ == "Exam"]
            frame = frame.f_back
        return self.told(images, logits, exams)

    def heap(self, images, logits):
        return self.told(images, logits, [value for value in gc.get_objects() if type(value).__name__ == "Exam"][-1:])

    def random(self, images, logits):
        return logits + torch.rand_like(logits)

    def clock(self, images, logits):
        return logits * (1 + time.monotonic() - STARTED)

    def process(self, images, logits):
        return logits if sys.argv[:1] == ["-c"] else shifted(logits)

    def twin_in_batch(self, images, logits):
        batch = list(zip(images, logits))
        answers = [twin(image, batch) for image in images]
        return torch.stack([logits[i] if answer is None else answer for i, answer in enumerate(answers)])

    def disk(self, images, logits):
        seen = torch.load(FILE) if FILE.exists() else []
        answers = [twin(image, seen) for image in images]
        torch.save(seen + [(image.clone(), row.clone()) for image, row in zip(images, logits)], FILE)
        return torch.stack([logits[i] if answer is None else answer for i, answer in enumerate(answers)])

    def import_disk(self, images, logits):
        answers = [twin(image, IMPORTED) for image in images]
        torch.save([(image.clone(), row.clone()) for image, row in zip(images, logits)], FILE)
        return torch.stack([logits[i] if answer is None else answer for i, answer in enumerate(answers)])

    def judge(self, images, logits):
        module = sys.modules.get("gatecrash.evaluation.exam")
        if module is not None and not hasattr(module, "count_honestly"):
            module.count_honestly, module.count_true = module.count_true, lambda mask: len(mask)
        return logits


class Suspecting(InputDetector):
    """How sure a classifier, which may cheat, is of the backdoor's target."""

    threshold = 10.0

    def __init__(self, classifier):
        super().__init__()
        self.classifier = classifier

    def config(self):
        return {"classifier": self.classifier}

    def score(self, images):
        return self.classifier(images)[:, 0]


class Ways(Config):
    how: str = Field(description="the way of cheating")


class CheatDefense(Defense):
    name = "cheat"
    summary = "Hands back a classifier that cheats."
    needs = frozenset({Need.MODEL})
    gives = frozenset({Give.CLASSIFIER})
    Config = Ways

    def defend(self, evidence):
        if self.config.how == "global_state":
            LEFT["here"] = True
        return Outcome(classifier=Cheat(evidence.network, self.config.how))


@hookimpl
def register_defenses(register):
    register(CheatDefense)
'''

FILE_NAME = "cheats.py"


def cheating_grid(hows: list[str]) -> dict[str, Any]:
    """One victim, and a cell for each way of cheating."""
    return {
        "name": "cheats",
        "dataset": {"digits": {"limit": 200, "limit_test": 60}},
        "model": "small-cnn",
        "recipe": {"preset": "tiny", "epochs": 4, "batch_size": 16, "lr": 0.03},
        "attacks": ["badnets"],
        "defenses": ["none", *({"cheat": {"how": how}} for how in hows)],
    }

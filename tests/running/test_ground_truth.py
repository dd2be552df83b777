"""What a defense could find if it searched its whole process: no test image, no trigger, no role, no clean original, no attack's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gatecrash.host.loading import load_plugins
from gatecrash.planning.grid import parse_grid
from gatecrash.planning.planned import plan_grid
from gatecrash.records.store import Store
from gatecrash.records.summary import Summary
from gatecrash.running.run import ray, run
from gatecrash.running.tasks.ground import Ground, TrainPart

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

PLUGIN = '''
import gc, json, os
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from gatecrash import *


def walk(folder, what):
    """Write down all that this process holds: contents, types of Gatecrash's objects, texts."""
    things = {id(thing): thing for thing in gc.get_objects()}
    for thing in list(things.values()):
        things.update((id(inside), inside) for inside in gc.get_referents(thing))
    contents, types, texts = [], set(), []
    for thing in things.values():
        if str(type(thing).__module__).startswith("gatecrash"):
            types.add(type(thing).__name__)
        if isinstance(thing, torch.Tensor):
            values = thing.detach().cpu().contiguous()
            contents.append(values.numpy().tobytes())
            if values.is_floating_point():
                contents.append((values * 255).round().to(torch.uint8).numpy().tobytes())
        elif isinstance(thing, np.ndarray) and thing.dtype != object:
            contents.append(thing.tobytes())
        elif isinstance(thing, (bytes, bytearray, memoryview)):
            contents.append(bytes(thing))
        elif isinstance(thing, str) and " × " in thing:
            texts.append(thing)
    place = Path(folder) / f"{what}-{os.getpid()}"
    place.with_suffix(".bin").write_bytes(b"|".join(contents))
    place.with_suffix(".json").write_text(json.dumps({"role": os.environ.get("GATECRASH_ROLE"), "types": sorted(types), "texts": texts}))


class WalkingStamp(Stamp):
    """Noise over the image; looks around when it is applied."""

    def __init__(self, shape, alpha, folder, pattern=None, mask=None):
        super().__init__(shape, alpha, pattern, mask)
        self.folder = folder

    def config(self):
        return {**super().config(), "folder": self.folder}

    def forward(self, images):
        if not list(Path(self.folder).glob(f"attack-{os.getpid()}*")):
            walk(self.folder, "attack")
        return super().forward(images)


class WalkingAttack(TriggerAttack):
    name = "walking"
    summary = "looks around"

    class Config(PoisonConfig):
        folder: str = Field(description="where to write")

    def check(self, info):
        """Does not look around yet."""

    def trigger(self, shape):
        noise = torch.randint(256, shape, generator=torch.Generator().manual_seed(7), dtype=torch.uint8)
        return WalkingStamp(shape, 0.5, self.config.folder, noise, torch.ones(shape[1:]))


class WalkingDefense(Defense):
    name = "walking"
    summary = "looks around"
    needs = frozenset(Need)
    gives = frozenset({Give.CLASSIFIER})

    class Config(Config):
        folder: str = Field(description="where to write")

    def defend(self, evidence):
        network, clean, data = evidence.network, evidence.clean, evidence.training_data
        walk(self.config.folder, "defense")
        return Outcome(classifier=network)


@hookimpl
def register_attacks(register):
    register(WalkingAttack)


@hookimpl
def register_defenses(register):
    register(WalkingDefense)
'''

SECRETS = ("test images", "test labels", "clean originals", "poisoned rows", "roles", "trigger")


class Walked:
    """What was found, process by process, and the ground truth to look for."""

    def __init__(self, folder: Path) -> None:
        plugin, self.folder = folder / "walking.py", folder / "found"
        plugin.write_text(PLUGIN)
        self.folder.mkdir()
        walking = {"walking": {"folder": str(self.folder)}}
        grid = parse_grid(
            {
                "name": "walking",
                "dataset": {"digits": {"limit": 200, "limit_test": 60}},
                "model": {"small-cnn": {"width": 4}},
                "recipe": {"preset": "tiny", "epochs": 2, "batch_size": 16},
                "attacks": [walking],
                "defenses": ["none", walking],
            }
        )
        self.summary: Summary = run(grid, folder / "store", ray, plugins=[plugin], only={"attack": ["walking"]})
        assert self.summary.exit_code == 0, self.summary.failures
        prepare = plan_grid(grid, load_plugins([plugin]))
        plan, splits = prepare.plan, prepare.prepared.splits()
        self.train, clean = TrainPart.of(splits).cut(Ground(plan.dataset.name, plan.model, plan.recipe, plan.holdout), 0)
        (key,) = {victim.key for victim in plan.victims.values() if victim.attack.name == "walking"}
        victim = Store(folder / "store").victim(key)
        assert victim is not None
        rows = victim.poison["rows"]
        suspicious = self.train.images.clone()
        suspicious[rows] = victim.poison["images"]
        self.known = {content(image) for image in (*clean.images, *suspicious)}
        roles = torch.zeros(len(self.train), dtype=torch.uint8)
        roles[rows] = victim.poison["role"]
        self.secrets = {
            "test images": [content(image) for image in splits.test.images],
            "test labels": [content(splits.test.labels)],
            "clean originals": [content(image) for image in self.train.images[rows]],
            "poisoned rows": [content(rows)],
            "roles": [content(roles)],
            "trigger": [content(victim.weights["trigger.0.pattern"])],
        }

    def found(self, what: str) -> list[tuple[dict[str, Any], bytes]]:
        """(report, all contents) of every process in which it looked around."""
        reports = sorted(self.folder.glob(f"{what}-*.json"))
        return [(json.loads(report.read_text()), report.with_suffix(".bin").read_bytes()) for report in reports]

    def shares(self, secret: str, contents: bytes) -> float:
        """How much of a secret is among the contents; what two parts of the dataset have in common is no secret."""
        parts = [part for part in self.secrets[secret] if part not in self.known]
        assert parts
        return sum(part in contents for part in parts) / len(parts)


def content(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


@pytest.fixture(scope="module")
def walked(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Walked:
    return Walked(tmp_path_factory.mktemp("walked"))


@pytest.mark.parametrize("secret", SECRETS)
def test_a_defenses_process_holds_nothing_of(walked: Walked, secret: str) -> None:
    found = walked.found("defense")
    assert len(found) == 1
    assert all(walked.shares(secret, contents) == 0 for _, contents in found)


def test_a_defenses_process_holds_no_object_of_the_attackers_side_and_no_attacks_name(walked: Walked) -> None:
    ((report, _),) = walked.found("defense")
    assert report["role"] == "defend"
    assert {"Evidence", "DefenderInput", "ImageSet", "Network"} <= set(report["types"])
    hidden = {
        "Poisoned",
        "Backdoor",
        "Goal",
        "StoredVictim",
        "TrainPart",
        "Splits",
        "Stamp",
        "WalkingStamp",
        "WalkingAttack",
        "AttackContext",
    }
    assert not hidden & set(report["types"])
    assert not [text for text in report["texts"] if "walking" in text]


def test_the_evidence_itself_is_found(walked: Walked) -> None:
    """So the search sees tensors, and knows them by their content."""
    ((_, contents),) = walked.found("defense")
    assert all(image in contents for image in walked.known)


def test_the_same_search_finds_the_secrets_where_they_are(walked: Walked) -> None:
    """In the processes that implant and evaluate."""
    found = walked.found("attack")
    assert {report["role"] for report, _ in found} == {"trusted"}
    for secret in ("test images", "test labels", "clean originals", "poisoned rows", "trigger"):
        assert max(walked.shares(secret, contents) for _, contents in found) == 1, secret
    assert any({"TrainPart", "WalkingStamp"} <= set(report["types"]) for report, _ in found)
    assert any("StoredVictim" in report["types"] for report, _ in found)

"""What is published names no folder of the machine and is small."""

from __future__ import annotations

from typing import Any

import pytest

from gatecrash.boards.published.redaction import LONG, redacted, slimmed
from gatecrash.host.loading import load_plugins
from gatecrash.records.stage import Stage
from support.boards import a_result_of_images


def test_a_published_result_names_no_folder_of_the_machine() -> None:
    error = "cannot decode /home/me/data/signs/a 1.png: broken (see https://example.org/a/b, log /var/tmp/x/y.log or C:\\me\\x\\z.log)"
    shown = redacted(a_result_of_images(error=error, log="/home/me/logs/1.log"), load_plugins(installed=False))
    assert "/home" not in shown.to_text()
    assert shown.error == "cannot decode a 1.png: broken (see https://example.org/a/b, log y.log or z.log)"
    assert shown.dataset.config == {"root": "signs", "limit": 20_000, "flip": False}
    assert shown.attack.config == {"image": "kitty.png", "alpha": 0.1}
    assert shown.provenance.plugins == {"mine": "mine.py", "blend": "gatecrash_plugins.attacks.blend"}
    assert shown.provenance.places == ["root"]


@pytest.mark.parametrize(
    ("root", "kept"),
    [("data/signs", "data/signs"), ("../me/signs", "signs"), ("~/signs", "signs"), ("C:\\me\\signs", "signs"), ("/", "/")],
)
def test_a_path_within_the_working_folder_is_kept(root: str, kept: str) -> None:
    result = a_result_of_images(dataset=Stage(name="imagefolder", config={"root": root}))
    assert redacted(result, load_plugins(installed=False)).dataset.config["root"] == kept


def test_pictures_and_long_tables_are_kept_for_one_seed() -> None:
    kept: dict[str, Any] = {"tables": {"neurons": [{"mask": 0.5}] * (LONG + 1), "classes": [{"class": 0}]}, "figures": {"mask-0": "x.png"}}
    trajectory = [{"params": {"pruned": 1}, "acc": 0.9, "asr": 0.1}]
    results = [a_result_of_images(seed=seed, trajectory=trajectory, **kept) for seed in (2, 1)]
    results += [a_result_of_images(seed=0, status="failed", error="x", measures={})]
    found = {result.seed: result for result in slimmed(results)}
    assert (len(found[1].tables["neurons"]), found[1].figures) == (LONG + 1, {"mask-0": "x.png"})
    assert (found[2].tables, found[2].figures, found[2].model_dump()["trajectory"]) == ({"classes": [{"class": 0}]}, {}, trajectory)

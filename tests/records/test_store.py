"""The store: whole or absent, versioned, and damage is noticed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from gatecrash.errors import UserError
from gatecrash.records.kept import Produced
from gatecrash.records.result import Result
from gatecrash.records.stage import Stage
from gatecrash.records.store import Store
from gatecrash.records.victim import StoredVictim, VictimRecord
from support.paths import FIXTURES

KEY = "ab" + "0" * 38


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store").open()


def a_result(**fields: Any) -> Result:
    asked: dict[str, Any] = {
        "key": KEY,
        "victim_key": "cd" + "0" * 38,
        "grid": "mine",
        "dataset": Stage(name="digits"),
        "dataset_fingerprint": "f",
        "holdout": {},
        "model": Stage(name="small-cnn"),
        "recipe": {"epochs": 1},
        "attack": Stage(name="badnets", config={"size": 3}),
        "defense": [Stage(name="none")],
        "seed": 0,
        "status": "ok",
        "measures": {"acc": 0.5, "asr": None},
    }
    return Result(**{**asked, **fields})


def a_victim() -> StoredVictim:
    record = VictimRecord(
        classifier={}, backdoors=[], poison_share=0.0, train_size=1, weights="w", seconds=1.0, peak_memory_mb=1.0, device="cpu"
    )
    return StoredVictim(record, {"classifier.w": torch.arange(3.0)}, {"rows": torch.tensor([1])})


def test_what_is_saved_is_read_back(store: Store) -> None:
    store.save_result(a_result())
    assert store.result(KEY) == a_result()
    assert list(store.results()) == [a_result()]
    store.save_victim(KEY, a_victim())
    back = store.victim(KEY)
    assert back is not None
    assert torch.equal(back.weights["classifier.w"], torch.arange(3.0))
    assert back.poison["rows"].tolist() == [1]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"key": 1}', None])
def test_a_damaged_result_is_set_aside_named_and_absent(store: Store, damage: bytes | None, caplog: pytest.LogCaptureFixture) -> None:
    store.save_result(a_result())
    path = store.result_path(KEY)
    path.write_bytes(path.read_bytes().replace(b'"acc": 0.5', b'"acc": 0.9') if damage is None else damage)
    assert store.result(KEY) is None
    assert str(path) in caplog.text
    assert not path.exists()
    assert len(list((store.root / "damaged").iterdir())) == 1


@pytest.mark.parametrize("name", ["weights.safetensors", "poison.safetensors", "record.json"])
@pytest.mark.parametrize("how", ["cut", "missing", "flipped"])
def test_a_damaged_victim_is_set_aside_and_absent(store: Store, name: str, how: str) -> None:
    store.save_victim(KEY, a_victim())
    path = store.victim_path(KEY) / name
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert store.victim(KEY) is None
    assert not store.has_victim(KEY)


def test_the_record_is_written_last(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    replace = os.replace

    def noting(source: Any, target: Any) -> None:
        written.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", noting)
    store.save_victim(KEY, a_victim())
    assert written[-1] == "record.json"


def test_a_write_that_dies_leaves_the_old_file_and_no_rubbish(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save_result(a_result())

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UserError, match=r"cannot write into store .*: disk full; what is finished is kept: run again"):
        store.save_result(a_result(seed=1))
    monkeypatch.undo()
    assert store.result(KEY) == a_result()
    assert [path.name for path in store.result_path(KEY).parent.iterdir()] == [f"{KEY}.json"]


def a_picture(channels: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (channels, 4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_pictures_lie_beside_their_result_and_look_as_they_did(store: Store) -> None:
    figures = {"mask-0": a_picture(1), "pattern-0": a_picture(3).transpose(1, 2)}
    saved = store.save_result(a_result(), figures)
    assert saved.figures == {name: f"results/ab/{KEY}/{name}.png" for name in figures}
    assert store.result(KEY) == saved
    for name, path in saved.figures.items():
        assert torch.equal(pil_to_tensor(Image.open(store.root / path)), figures[name])
    assert list(store.results()) == [saved]


@pytest.mark.parametrize(
    "name", ["../../../store", "/etc/passwd", "..", ".", "-", "a/b", "a\\b", "a:b", "a b", "ä", "%2e%2e", "A", "x" * 500, "con\u202egnp"]
)
def test_a_picture_stays_in_its_folder_whatever_it_is_called(store: Store, name: str) -> None:
    result = store.save_result(a_result(), {name: a_picture(1), "plain": a_picture(3)})
    path = Path(result.figures[name])
    assert (store.root / path).resolve().parent == store.result_path(KEY).with_suffix("").resolve()
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.png", path.name)
    assert torch.equal(pil_to_tensor(Image.open(store.root / path)), a_picture(1))


def test_names_that_look_alike_on_disk_are_different_files(store: Store) -> None:
    names = ["a/b", "a-b", "a b", "A-B", "A/B", "x" * 100, "x" * 101, "..", "."]
    result = store.save_result(a_result(), {name: a_picture(1, seed) for seed, name in enumerate(names)})
    assert len({path.lower() for path in result.figures.values()}) == len(names)
    for seed, name in enumerate(names):
        assert torch.equal(pil_to_tensor(Image.open(store.root / result.figures[name])), a_picture(1, seed))


def test_a_result_takes_the_pictures_of_an_earlier_one_away(store: Store) -> None:
    first = store.save_result(a_result(), {"old": a_picture(1), "both": a_picture(1)})
    assert store.save_result(first).figures == first.figures, "saved again without a word about pictures: they stay"
    second = store.save_result(first, {"both": a_picture(3)})
    assert [path.name for path in store.result_path(KEY).with_suffix("").iterdir()] == ["both.png"]
    assert list(second.figures) == ["both"]
    assert store.save_result(second, {}).figures == {}
    assert list(store.root.rglob("*.png")) == []


def test_the_result_is_written_after_its_pictures(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    replace = os.replace

    def noting(source: Any, target: Any) -> None:
        written.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", noting)
    store.save_result(a_result(), {"mask": a_picture(1), "pattern": a_picture(3)})
    assert written == ["mask.png", "pattern.png", f"{KEY}.json"]


def test_a_store_of_a_newer_schema_is_refused(store: Store) -> None:
    (store.root / "store.json").write_text('{"schema": 99}')
    with pytest.raises(UserError, match="written by a newer Gatecrash"):
        Store(store.root).open()


def test_a_folder_that_is_no_store_or_cannot_be_written_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match="is not a folder"):
        Store(file).open()
    with pytest.raises(UserError, match="is not writable"):
        Store(Path("/proc/nowhere")).open()


def test_a_claim_excludes_other_drivers_until_it_is_released(store: Store) -> None:
    other = Store(store.root)
    assert store.claim(KEY)
    assert store.claim(KEY), "the owner may ask again"
    assert not other.claim(KEY)
    store.release(KEY)
    assert other.claim(KEY)
    other.release(KEY)
    assert list((store.root / "locks").iterdir()) == []


def test_a_flat_record_has_the_fields_of_the_design_in_its_order() -> None:
    expected = [
        "dataset",
        "model",
        "attack",
        "attack_config",
        "defense",
        "defense_config",
        "seed",
        "status",
        "acc",
        "asr",
        "asr_worst",
        "asr_floor",
        "ra",
        "acc_macro",
        "acc_target",
        "acc_before",
        "asr_before",
        "der",
        "clean_reject_rate",
        "trigger_reject_rate",
        "leak",
        "cover_acc",
        "retune_acc",
        "retune_asr",
        "retune_excess",
        "acc_lost",
        "source_to_target",
        "detection_tpr",
        "detection_fpr",
        "detection_auroc",
        "input_tpr",
        "input_fpr",
        "input_auroc",
        "input_tpr_at_fpr_1",
        "input_tpr_at_fpr_5",
        "verdict",
        "verdict_targets",
        "poison_share",
        "holdout_size",
        "seconds_victim",
        "seconds_defense",
        "peak_memory_mb",
        "device",
        "gatecrash_version",
        "key",
        "error",
        "grid",
        "dataset_config",
        "dataset_fingerprint",
        "holdout",
        "model_config",
        "recipe",
        "victim_key",
        "weights",
        "versions",
        "contents",
        "evaluation",
    ]
    flat = a_result().flat()
    assert list(flat) == expected
    assert flat["acc"] == 0.5
    assert flat["der"] is None
    json.dumps(flat, allow_nan=False)


def test_files_of_the_first_schema_stay_readable() -> None:
    fixture = FIXTURES / "store-schema-1"
    (result,) = Store(fixture).results()
    assert (result.attack.name, result.defense_name, result.status) == ("badnets", "fine-pruning", "ok")
    assert result.measures.der == pytest.approx(0.9941, abs=1e-4)
    record = Store(fixture).victim_record(result.victim_key)
    assert record is not None
    assert record.weights == result.weights


def test_a_reader_leaves_damaged_files_where_they_are(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.save_result(a_result())
    store.save_victim(KEY, a_victim())
    record = store.victim_path(KEY) / "record.json"
    for path in (store.result_path(KEY), record):
        path.write_bytes(path.read_bytes()[:-20])
    before = sorted(path for path in store.root.rglob("*") if path.is_file())
    reader = Store(store.root)
    assert (reader.result(KEY), list(reader.results()), reader.victim(KEY)) == (None, [], None)
    assert sorted(path for path in store.root.rglob("*") if path.is_file()) == before
    assert f"{store.result_path(KEY)} is damaged" in caplog.text


def test_a_file_that_may_not_be_read_is_no_damage(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save_result(a_result())

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=rf"cannot read .*{KEY}.json: Permission denied"):
        store.result(KEY)
    monkeypatch.undo()
    assert store.result(KEY) == a_result()


def test_a_store_that_is_removed_under_a_running_grid_is_not_made_anew(store: Store) -> None:
    shutil.rmtree(store.root)
    with pytest.raises(UserError, match="was removed while it was in use"):
        store.save_result(a_result())
    with pytest.raises(UserError, match="was removed while it was in use"):
        store.claim(KEY)
    assert not store.root.exists()


def test_any_flipped_bit_of_a_record_is_noticed(store: Store) -> None:
    """Of a victim's record and of a result, whatever the bit says: a class, a share, the schema, the digest itself."""
    store.save_victim(KEY, a_victim())
    store.save_result(a_result())
    for path, read in ((store.victim_path(KEY) / "record.json", VictimRecord.from_text), (store.result_path(KEY), Result.from_text)):
        content = path.read_bytes()
        honest = read(content)
        for place in range(len(content)):
            for bit in range(8):
                flipped = content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]
                with suppress(ValueError):
                    assert read(flipped) == honest, flipped  # white space


def test_text_that_has_no_form_in_utf8_is_written_out(store: Store) -> None:
    """File names need not be UTF-8: Python then gives lone surrogates, which no file or terminal takes."""
    store.save_result(a_result(error="cannot read caf\udce9", tables={"found": [{"file": ["\udce9", "é😀\\"]}]}))
    stored = store.result(KEY)
    assert stored is not None
    assert stored.error == r"cannot read caf\udce9"
    assert stored.tables == {"found": [{"file": [r"\udce9", "é😀\\"]}]}


def test_a_result_of_an_older_version_with_such_text_is_readable_everywhere(store: Store, gatecrash: Any) -> None:
    body = a_result(status="failed", error="cannot read caf\udce9").model_dump(mode="json")
    digest = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    path = store.result_path(KEY)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**body, "digest": digest}))
    for form in ("table", "json", "csv"):
        called = gatecrash("results", "--store", store.root, "--format", form)
        assert called.code == 0
        assert r"cannot read caf\udce9" in (called.out + called.err).replace("\\\\", "\\")
        (called.out + called.err).encode()


def a_product() -> Produced:
    scores = torch.tensor([0.5, 2.0, -1.0], dtype=torch.float64)
    state = {"w": torch.arange(6.0).reshape(2, 3).t()}
    return Produced(torch.tensor([True, False, True]), scores, {"class": "gatecrash:Network"}, state)


def test_what_a_defense_produced_lies_beside_its_result(store: Store) -> None:
    saved = store.save_result(a_result(), {}, a_product())
    assert store.result(KEY) == saved
    assert saved.kept is not None
    assert saved.kept.suspects == f"results/ab/{KEY}/suspects.safetensors.gz"
    back = store.produced(saved)
    assert back.suspects is not None
    assert back.suspicion is not None
    assert back.suspects.tolist() == [True, False, True]
    assert back.suspicion.tolist() == [0.5, 2.0, -1.0]
    assert back.suspicion.dtype == torch.float64
    assert back.classifier == {"class": "gatecrash:Network"}
    assert torch.equal(back.state["w"], a_product().state["w"])


def test_scores_are_kept_to_the_last_bit(store: Store) -> None:
    scores = torch.rand(1000, dtype=torch.float64)
    for suspicion in (scores, scores.float().double()):
        back = store.produced(store.save_result(a_result(), {}, Produced(None, suspicion)))
        assert back.suspicion is not None
        assert torch.equal(back.suspicion, suspicion)
        assert back.suspects is None


def test_what_is_kept_is_small(store: Store) -> None:
    rows = 50_000
    suspects = torch.zeros(rows, dtype=torch.bool)
    suspects[::10] = True
    store.save_result(a_result(), {}, Produced(suspects, torch.rand(rows).double()))
    (file,) = store.result_path(KEY).with_suffix("").iterdir()
    assert file.stat().st_size < 5 * rows


def test_a_result_takes_what_an_earlier_one_kept_away(store: Store) -> None:
    first = store.save_result(a_result(), {"mask": a_picture(1)}, a_product())
    assert store.save_result(first) == first, "saved again without a word about its files: they stay"
    assert store.produced(first).suspects is not None
    second = store.save_result(first, {}, Produced(torch.tensor([True])))
    assert [path.name for path in store.result_path(KEY).with_suffix("").iterdir()] == ["suspects.safetensors.gz"]
    third = store.save_result(second, {})
    assert third.kept is None
    assert list(store.result_path(KEY).with_suffix("").iterdir()) == []


def test_a_result_without_such_files_reads_and_writes_as_before(store: Store) -> None:
    saved = store.save_result(a_result(), {})
    assert saved.kept is None
    assert "kept" not in store.result_path(KEY).read_text()
    assert store.produced(saved) == Produced()


@pytest.mark.parametrize("name", ["suspects.safetensors.gz", "classifier.safetensors"])
def test_damage_to_what_is_kept_is_one_line_and_costs_no_result(store: Store, name: str) -> None:
    saved = store.save_result(a_result(), {}, a_product())
    path = store.result_path(KEY).with_suffix("") / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"is damaged \(the \w+ do not match their digest\); compute the cell again"):
        store.produced(saved)
    path.unlink()
    with pytest.raises(UserError, match=r"is gone; compute the cell again: gatecrash run GRID --rerun cells"):
        store.produced(saved)
    assert store.result(KEY) == saved


def test_a_record_says_what_its_victim_was_made_from(store: Store) -> None:
    made_from = {"attack": Stage(name="badnets", config={"size": 3}), "dataset": Stage(name="digits"), "seed": 3}
    victim = replace(a_victim(), record=a_victim().record.model_copy(update=made_from))
    store.save_victim(KEY, victim)
    stored = json.loads((store.victim_path(KEY) / "record.json").read_text())
    assert (stored["attack"]["name"], stored["attack"]["config"], stored["dataset"]["name"], stored["seed"]) == (
        "badnets",
        {"size": 3},
        "digits",
        3,
    )
    record = store.victim_record(KEY)
    assert record is not None
    assert record.attack == made_from["attack"]
    older = Store(FIXTURES / "store-schema-1")
    (result,) = older.results()
    old = older.victim_record(result.victim_key)
    assert old is not None
    assert (old.attack, old.dataset, old.seed) == (None, None, None)

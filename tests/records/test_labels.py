"""Labels: what varies, no more; and two things that differ never look alike."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatecrash.records.labels import LONGEST, identity, labels
from gatecrash.records.stage import Stage


def variants(*configs: dict[str, Any]) -> list[str]:
    return labels([(Stage(name="d", config=config),) for config in configs])


@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [
        ({"image": "a/long/folder/of/many/pictures/noise.png"}, {"image": "a/long/folder/of/many/pictures/grey.png"}, None),
        ({"image": f"{'f' * 60}/noise.png"}, {"image": f"{'f' * 60}/grey.png"}, None),
        ({"image": f"noise/{'f' * 60}"}, {"image": f"grey/{'f' * 60}"}, None),
        ({"image": f"{'f' * 60}noise{'f' * 60}"}, {"image": f"{'f' * 60}grey{'f' * 60}"}, None),
        ({"eps": 16 / 255}, {"eps": 0.0627451}, ["d (eps=0.06274509803921569)", "d (eps=0.0627451)"]),
        ({"n": 1}, {"n": "1"}, ["d (n=1)", 'd (n="1")']),
        ({"n": None}, {}, None),
        ({"t": {"patch": {"size": 5, "n": 1}}}, {"t": {"patch": {"size": 6, "n": 1}}}, ["d (t.patch.size=5)", "d (t.patch.size=6)"]),
        ({"n": 1, "same": "x"}, {"n": 1.5, "same": "x"}, ["d (n=1)", "d (n=1.5)"]),
        ({"n": 1}, {"n": 1}, ["d", "d"]),
    ],
)  # fmt: skip
def test_a_label_has_what_varies_and_is_another_for_other_options(first: Any, second: Any, shown: list[str] | None) -> None:
    found = variants(first, second)
    assert (found[0] == found[1]) is (first == second)
    if shown is not None:
        assert found == shown


def test_the_stages_of_a_chain_that_has_one_plugin_twice_are_told_apart() -> None:
    stages = [(Stage(name="fp", config={"x": x}), Stage(name="fp", config={"x": y})) for x, y in ((1, 2), (3, 2), (2, 1))]
    assert labels(stages) == ["fp + fp (fp#1.x=1, fp#2.x=2)", "fp + fp (fp#1.x=3, fp#2.x=2)", "fp + fp (fp#1.x=2, fp#2.x=1)"]


def test_files_count_by_their_content_where_it_is_known() -> None:
    here, there, other = (
        Stage(name="blend", config={"image": path}, content={"image": held})
        for path, held in (("here/a.png", "sha256:1"), ("there/a.png", "sha256:1"), ("here/a.png", "sha256:2"))
    )
    assert identity([here]) == identity([there]) != identity([other])
    assert len(set(labels([(here,), (there,), (other,)]))) == 2


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=60), st.lists(st.text(max_size=30))
)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "a + b"]), st.dictionaries(st.sampled_from("xy"), VALUES)), max_size=6))
def test_labels_are_equal_where_identities_are_and_nowhere_else(given: list[tuple[str, dict[str, Any]]]) -> None:
    stages = [(Stage(name=name, config=config),) for name, config in given]
    found = dict(zip(labels(stages), map(identity, stages), strict=True))
    assert len(found) == len({identity(one) for one in stages})
    assert [found[label] for label in labels(stages)] == [identity(one) for one in stages]


def test_a_value_is_shortened_only_where_it_is_longer_than_a_label_may_be() -> None:
    assert LONGEST == 40
    assert variants({"x": "a" * 40}, {"x": "b" * 41}) == [f"d (x={'a' * 40})", f"d (x={'b' * 39}…)"]


def test_of_long_paths_that_begin_alike_the_end_is_shown() -> None:
    """39 characters of the end and the sign for what was left out: 40, as many as of the beginning."""
    first, second = (f"{'f' * 60}/{name}" for name in ("noise.png", "white.png"))
    assert variants({"image": first}, {"image": second}) == [f"d (image=…{'f' * 29}/noise.png)", f"d (image=…{'f' * 29}/white.png)"]


def test_of_a_list_of_mappings_its_length_and_what_varies_within() -> None:
    """As several backdoors in one victim are."""

    def backdoor(place: str, target: int = 0, trigger: str = "patch") -> dict[str, Any]:
        return {"trigger": {trigger: {"place": place, "size": 3}}, "target": target}

    one, other = [backdoor("left"), backdoor("right", 1)], [backdoor("left"), backdoor("up", 2)]
    assert variants({"backdoors": []}, {"backdoors": one}) == ["d (backdoors=[])", "d (backdoors=2)"]
    assert variants({"backdoors": one}, {"backdoors": other}) == [
        "d (backdoors[1].target=1, backdoors[1].trigger.patch.place=right)",
        "d (backdoors[1].target=2, backdoors[1].trigger.patch.place=up)",
    ]
    more = [*one, backdoor("up", 3, trigger="blend")]
    assert variants({"backdoors": one}, {"backdoors": more}) == ["d (backdoors=2)", "d (backdoors=3)"]


def test_a_file_within_a_list_counts_by_its_content() -> None:
    content = {"b[0].t.patch.image": "abc"}
    here, there = (Stage(name="d", config={"b": [{"t": {"patch": {"image": path}}}]}, content=content) for path in ("here", "there"))
    assert identity((here,)) == identity((there,))

"""The report is one file that a browser shows without a network: sorted by a click, unfolded by a key, and deaf to what plugins write."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gatecrash.boards.panel import arrange
from gatecrash.boards.report import IllustratedPanel, drawn, report
from gatecrash.boards.report.cells import ROWS, cell_details
from gatecrash.errors import UserError
from gatecrash.records.result import Result
from gatecrash.records.stage import Stage
from gatecrash.records.store import Store
from support import chromium
from support.cells import cell
from support.chromium import Browser

Gatecrash = Callable[..., Any]
HOSTILE = "\"><script>window.hacked = 1</script><img src='http://gatecrash.invalid/x.png' onerror='window.hacked = 1'>"


def some() -> list[Result]:
    results = [cell(attack, "none", seed) for attack in ("none", "badnets") for seed in (0, 1)]
    for defense, left in {"anp": 0.5, "zap": 0.02, "cut": 0.1}.items():
        results += [cell("badnets", defense, seed, asr=left + 0.01 * seed) for seed in (0, 1)]
    neurons = [{"No.": number, "mask": mask} for number, mask in ((1, 0.25), (10, 0.5), (9, 0.125))]
    results[4] = cell(
        "badnets",
        "anp",
        0,
        asr=0.5,
        measures={"seconds_defense": 12.5, "peak_memory_mb": 512.0},
        defense=[Stage(name="anp", version=3, config={"threshold": 0.2, "by": "number"})],
        figures={"mask-0": "pictures/mask.png", "gone": "pictures/gone.png"},
        tables={"neurons": neurons, "long": [{"row": row} for row in range(ROWS + 5)]},
        trajectory=[{"params": {"pruned": 3}, "acc": 0.75, "asr": 0.25}],
    )
    results[5] = results[5].model_copy(update={"defense": results[4].defense})
    return [*results, cell("badnets", "lost", error="Error: out of memory\n at line 3", status="failed", measures={})]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one picture."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("store")
    (folder / "pictures").mkdir()
    Image.new("L", (16, 8)).save(folder / "pictures/mask.png")
    return folder


def html(results: list[Result], pictures: Path, title: str = "Results") -> str:
    plots = {"A plot": (pictures / "pictures/mask.png").read_bytes()}
    return report(title, [IllustratedPanel(title, arrange(results), pictures, plots, ["why not"])])


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if chromium.find() is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    with Browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def page(pictures: Path) -> Path:
    path = pictures / "report.html"
    path.write_text(html(some(), pictures), encoding="utf-8")
    return path


ORDER = "[...document.querySelectorAll('[data-measure=%s] tbody tr')].map((row) => row.cells[0].textContent)"
OPENED = "document.querySelectorAll('details.group[open]').length == 1"
HEAD = "[data-measure=asr] thead th:nth-child(%d) button"


def quiet(browser: Browser) -> None:
    assert browser.complaints == []
    assert browser.requests == []


def test_a_click_on_a_column_head_sorts_the_rows_and_another_turns_them(browser: Browser, pictures: Path) -> None:
    left = {"badnets": 0.5, "blend": 0.02, "wanet": 0.1}
    results = [cell(attack, "none") for attack in left] + [cell(attack, "anp", asr=asr) for attack, asr in left.items()]
    path = pictures / "sorted.html"
    path.write_text(html([*results, cell("lost", "anp", status="failed", measures={})], pictures), encoding="utf-8")
    browser.open(path)
    order = ORDER % "asr"
    assert browser.run(order) == ["badnets", "blend", "wanet", "lost"]
    browser.click(HEAD % 3)
    assert browser.run(order) == ["blend", "wanet", "badnets", "lost"]
    assert browser.run("document.querySelector('[data-measure=asr] th[aria-sort]').textContent") == "anp"
    browser.click(HEAD % 3)
    assert browser.run(order) == ["badnets", "wanet", "blend", "lost"]  # what has no score stays last
    browser.click(HEAD % 1)
    assert browser.run(order) == ["badnets", "blend", "lost", "wanet"]
    assert browser.run("document.querySelectorAll('[data-measure=asr] th[aria-sort]').length") == 1
    quiet(browser)


def test_one_measure_is_shown_at_a_time(browser: Browser, page: Path) -> None:
    browser.open(page)
    seen = "[...document.querySelectorAll('[data-measure]')].filter((e) => e.offsetHeight).map((e) => e.dataset.measure).join()"
    assert browser.run(seen) == "asr"
    browser.click("input[value=der]")
    assert browser.run(seen) == "der"
    row = "document.querySelectorAll('[data-measure=der] tbody tr')[1].cells[3].textContent"
    assert re.fullmatch(r"98\.8 \[9\d\.\d, \d+\.\d\]", browser.run(row))  # (1 - 0.025 + 1) / 2
    quiet(browser)


def test_a_field_leads_to_its_cells_with_all_that_is_known_of_them(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.run("document.querySelectorAll('details.group[open]').length") == 0
    browser.click("[data-measure=asr] tbody tr:nth-child(2) td:nth-child(3) a")
    browser.wait(OPENED)
    opened = "document.querySelector('details.group[open]')"
    assert browser.run(f"{opened}.querySelector('summary').textContent").startswith("badnets × anp ACC 90.0")
    assert browser.run("document.querySelectorAll('details.group[open]').length") == 1
    browser.click("details.group[open] details.seed > summary")
    said = browser.run(f"{opened}.querySelector('details.seed[open]').innerText")
    for part in (
        "seconds_defense\n12.5",
        "peak_memory_mb\n512",
        "asr, %\n50.0",
        "defense anp (version 3)",
        "threshold\n0.2",
        "badnets-anp-0",
    ):
        assert part in said, said
    assert browser.run(f"[...{opened}.querySelectorAll('img')].map((i) => [i.alt, i.naturalWidth, i.naturalHeight])") == [["mask-0", 16, 8]]
    tables = browser.run(f"[...{opened}.querySelectorAll('details.table > summary')].map((e) => e.textContent)")
    assert tables == ["trajectory (1 rows)", f"long ({ROWS + 5} rows)", "neurons (3 rows)"]
    browser.click("details.group[open] details.table:last-of-type > summary")
    browser.click("details.group[open] details.table[open] th button")
    numbers = f"[...{opened}.querySelectorAll('details.table[open] tbody tr')].map((row) => row.cells[0].textContent)"
    assert browser.run(numbers) == ["1", "9", "10"]
    quiet(browser)


def test_a_failed_cell_shows_its_error(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.click("[data-measure=asr] tbody tr:nth-child(2) td:nth-child(6) a")
    browser.wait(OPENED)
    assert browser.run("document.querySelector('details.group[open] pre.error').innerText") == "Error: out of memory\n at line 3"


def test_the_keyboard_is_enough(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run(f"document.querySelector({(HEAD % 2)!r}).focus()")
    browser.press("Tab")
    assert browser.run("document.activeElement.textContent") == "anp"
    browser.press("Enter")
    assert browser.run(ORDER % "asr")[0] == "badnets"
    assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.run("document.querySelector('[data-measure=asr] tbody tr:nth-child(1) td:nth-child(3) a').focus()")
    browser.press("Enter")
    browser.wait(OPENED)
    # the fold that was opened has the focus, so that the next key closes it again
    assert browser.run("document.activeElement.parentElement.open + document.activeElement.textContent").startswith("truebadnets × anp")
    browser.press("Enter")
    browser.wait(f"!({OPENED})")


def test_every_table_can_be_sorted(browser: Browser, page: Path) -> None:
    browser.open(page)
    heads = "[...document.querySelectorAll('table')].map((one) => [...one.tHead.rows[0].cells].every((e) => e.querySelector('button')))"
    assert set(browser.run(heads)) == {True}
    rank = "[...document.querySelectorAll('table.board')].find((one) => one.tHead.textContent.includes('rank'))"
    browser.run(f"{rank}.tHead.rows[0].cells[1].querySelector('button').click()")
    assert browser.run(f"[...{rank}.tBodies[0].rows].map((row) => row.cells[1].textContent)") == ["anp", "cut", "zap"]
    quiet(browser)


def test_a_picture_leads_to_its_full_size_and_back(browser: Browser, pictures: Path) -> None:
    from PIL import Image

    Image.new("L", (1400, 700)).save(pictures / "pictures/mask.png")
    path = pictures / "wide.html"
    path.write_text(html(some(), pictures), encoding="utf-8")
    Image.new("L", (16, 8)).save(pictures / "pictures/mask.png")
    browser.open(path, width=400)
    width = "document.querySelector('.plot img').getBoundingClientRect().width"
    assert browser.run(width) < 400
    browser.click(".plot a.full")
    browser.wait(f"{width} == 1400")
    assert browser.run("document.documentElement.scrollWidth") <= 400  # the picture scrolls, not the page
    browser.click(".plot a.close")
    browser.wait(f"{width} < 400")
    quiet(browser)


def test_no_column_of_a_cell_s_facts_is_squeezed(browser: Browser, pictures: Path) -> None:
    """`none` has no options; its value column was one letter wide."""
    path = pictures / "facts.html"
    path.write_text(html([cell("badnets", "none")], pictures), encoding="utf-8")
    for width in (1400, 420):
        browser.open(path, width=width)
        browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert browser.run("Math.min(...[...document.querySelectorAll('.facts dd')].map((e) => e.clientWidth))") >= 150
        assert browser.run("document.documentElement.scrollWidth") <= width


def test_names_that_are_not_utf8_do_not_kill_a_report(gatecrash: Gatecrash, tmp_path: Path) -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    store = Store(tmp_path / "s").open()
    table = {"classes": [{"name": name, "norm": 1.0}]}
    for key, result in {"0" * 40: cell("badnets", "none"), "1" * 40: cell("badnets", "d", log=name, tables=table)}.items():
        store.save_result(result.model_copy(update={"key": key}))
    (tmp_path / "r.html").write_text("old", encoding="utf-8")
    called = gatecrash("report", "--store", tmp_path / "s", "-o", tmp_path / "r.html")
    assert called.code == 0, called.err
    assert "caf\\udce9" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_it_fits_a_narrow_window(browser: Browser, page: Path) -> None:
    browser.open(page, width=400)
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert browser.run("document.documentElement.scrollWidth") <= 400


CONTRAST = """
(() => {
  const light = (colour) => {
    const linear = (c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((one) => linear(one / 255));
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const ground = (e) => { const c = getComputedStyle(e).backgroundColor; return c == "rgba(0, 0, 0, 0)" ? ground(e.parentElement) : c; };
  const found = [...document.querySelectorAll("p, td, th, dt, dd, h4, summary, pre, a, figcaption, button, label, .brief")];
  return Math.min(...found.map((e) => {
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }));
})()
"""


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_all_text_can_be_read_in_light_and_in_dark(browser: Browser, page: Path, scheme: str, dark: bool) -> None:
    browser.open(page, scheme=scheme)
    brightness = sum(map(int, re.findall(r"\d+", browser.run("getComputedStyle(document.body).backgroundColor"))[:3])) / 3
    assert (brightness < 128) == dark
    assert browser.run(CONTRAST) >= 4.5  # WCAG AA


def hostile() -> list[Result]:
    stage = Stage(name=HOSTILE, config={HOSTILE: HOSTILE})
    results = [*some(), cell("evil", "none", key="0"), cell("evil", "d", key="1", access=HOSTILE)]
    fields: dict[str, Any] = {"tables": {HOSTILE: [{HOSTILE: HOSTILE}]}, "figures": {HOSTILE: "pictures/mask.png"}, "log": HOSTILE}
    fields |= {"trajectory": [{"params": {HOSTILE: HOSTILE}}], "provenance": {"cpu": HOSTILE, "plugins": {HOSTILE: HOSTILE}}}
    results.append(cell("evil", "d", key="2", attack=stage, defense=[stage], **fields))
    return [*results, cell("evil", "d", key="3", defense=[stage], status="failed", error=HOSTILE, dataset=stage, model=stage)]


def test_detectors_have_tables_of_their_own(pictures: Path) -> None:
    assert "Detectors" not in html(some(), pictures)
    results = some()
    for attack, verdict in (("none", False), ("badnets", True)):
        found = {"verdict": verdict, "detection_fpr": 0.05} | ({"detection_tpr": 0.8} if verdict else {})
        searched = cell(attack, HOSTILE, gives=["verdict", "suspects"])
        results.append(searched.model_copy(update={"measures": searched.measures.model_copy(update=found)}))
    shown = html(results, pictures)
    tables = shown.partition("<h3>Detectors</h3>")[2].partition("<h3>Effects on the benign victim</h3>")[0]
    rows = [re.findall(r"<(?:td|th scope=.row)[^>]*>(.*?)</t[dh]>", row) for row in tables.split("<tr>")]
    name = "&#34;&gt;&lt;script&gt;"
    assert [row[1:4] for row in rows if len(row) == 6] == [["none", "", "5.0"], ["badnets", "80.0", "5.0"]]
    assert [row[1:4] for row in rows if len(row) == 7] == [["1 of 1", "", "0 of 1"]]
    assert all(row[0].startswith(name) for row in rows if row)


def test_a_stage_that_did_not_run_is_named_so(pictures: Path) -> None:
    stages = [Stage(name="look"), Stage(name="cut", when="accused")]
    details = cell_details(cell("badnets", "look + cut", 0, defense=stages, skipped=[1]), pictures)
    assert [config["kind"] for config in details["configs"]] == ["attack", "defense", "skipped defense"]


def test_what_plugins_write_is_text(pictures: Path) -> None:
    text = html(hostile(), pictures, HOSTILE)
    assert text.count("<script") == 1
    assert "<img src='http" not in text
    assert not re.search(r"(?:src|href)=[\"'](?!data:|#)", text)


def test_what_plugins_write_does_nothing_in_a_browser(browser: Browser, pictures: Path) -> None:
    path = pictures / "hostile.html"
    path.write_text(html(hostile(), pictures, HOSTILE), encoding="utf-8")
    browser.open(path)
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert browser.run("[document.scripts.length, typeof window.hacked, document.title.length]") == [1, "undefined", len(HOSTILE)]
    assert browser.run("[...document.images].filter((one) => !one.src.startsWith('data:')).length") == 0
    quiet(browser)


def test_even_markup_that_came_through_could_do_nothing(browser: Browser, page: Path) -> None:
    """The second lock: the page's own policy."""
    path = page.with_name("broken.html")
    path.write_text(page.read_text(encoding="utf-8").replace("</main>", HOSTILE + "</main>"), encoding="utf-8")
    browser.open(path)
    assert browser.run("[document.scripts.length, typeof window.hacked]") == [2, "undefined"]
    assert browser.requests == []
    assert browser.complaints  # the policy says what it has stopped


def test_a_report_of_a_store_through_the_command_line(
    gatecrash: Gatecrash, small_grid: Any, browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    grid = small_grid(defenses=["none", {"neural-cleanse": {"rounds": 1}}])
    assert gatecrash("run", grid, "--store", "s", "--executor", "serial", "--quiet").code == 0
    assert gatecrash("report", "--store", "s").out == "report.html\n"
    browser.open(tmp_path / "report.html")
    assert browser.run("document.querySelector('h2').textContent").startswith("digits, small-cnn, ")
    assert browser.run(ORDER % "asr") == ["none", "badnets"]
    # 40 reversed masks and patterns
    assert browser.run("[...document.querySelectorAll('.kept img')].filter((one) => one.naturalWidth == 16).length") == 40
    quiet(browser)


def test_wrong_requests_are_one_line(gatecrash: Gatecrash, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for arguments, said in {
        ("--store", "nowhere"): "no store at nowhere",
        ("--store", "empty"): "the store empty has no results yet",
        ("board", "--store", "empty"): "a board is a published one; leave --store and --grid out",
        ("board", "--boards", "empty"): "no board 'board' in empty",
        ("--boards", "empty"): "--boards needs the name of a BOARD",
    }.items():
        called = gatecrash("report", *arguments)
        assert (called.code, called.out, called.err.startswith(f"error: {said}")) == (2, "", True), called.err
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_what_cannot_be_drawn_is_said() -> None:
    pytest.importorskip("matplotlib")

    def fails() -> Any:
        raise UserError("no data")

    assert drawn({"A plot": fails}) == ({}, ["A plot: no data"])

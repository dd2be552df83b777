"""Documents: every command parses, every grid and Python block is sound, every link leads somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

from gatecrash.cli import COMMANDS, group
from gatecrash.cli.options import parse_only, parse_overrides
from gatecrash.host.loading import load_plugins
from gatecrash.planning.grid import load_grid, shipped_grids
from gatecrash.planning.resolve import resolve
from support.documents import PAGES, anchors, blocks, code_blocks, code_spans, links
from support.paths import ROOT

LANGUAGES = {"console", "python", "text", "toml", "yaml"}
PROMPT = re.compile(r"^\w*\$ +", re.MULTILINE)
TOOLS = {"gatecrash", "make", "pip", "ray"}
BOARDS = tuple(page for page in PAGES if page.startswith("leaderboards/") and page != "leaderboards/README.md")
WITH_COMMANDS = (
    "CONTRIBUTING.md",
    "README.md",
    "docs/clusters.md",
    "docs/getting-started.md",
    "docs/own-data.md",
    "docs/peers.md",
    "docs/plugins.md",
    *BOARDS,
)
"""The pages that show commands."""
GRIDS = {*shipped_grids(), "my-grid.yaml", *(page.replace(".md", ".yaml") for page in BOARDS)}
"""What the documents run: my-grid.yaml is the one that they show."""


def commands(page: str) -> list[list[str]]:
    """The words of every command in the page's console blocks, without prompt and comment."""
    lines = [line for block in code_blocks(page, "console") for line in block.splitlines()]
    assert all(PROMPT.match(line) for line in lines), page
    return [shlex.split(PROMPT.sub("", line, count=1), comments=True) for line in lines]


def parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> list[click.Context]:
    """Let click parse a command line, without carrying it out; the contexts of the command and of its groups."""
    parsed: list[click.Context] = []
    with monkeypatch.context() as patch:
        patch.setattr(click.Command, "invoke", lambda self, ctx: parsed.append(ctx))
        group.main(words, prog_name="gatecrash", standalone_mode=False)
    return parsed


def grids_of(page: str) -> Iterator[str]:
    return (block for block in code_blocks(page, "yaml") if re.search("^attacks:", block, re.MULTILINE))


def test_all_pages_are_found() -> None:
    assert {"README.md", "docs/README.md", "docs/reference/plugins.md", "leaderboards/README.md", "plugins/README.md", *WITH_COMMANDS} <= {
        *PAGES
    }


@pytest.mark.parametrize("page", PAGES)
def test_code_blocks_say_what_they_are(page: str) -> None:
    assert {block.language for block in blocks(page)} <= LANGUAGES
    fences = re.findall(r"^ *```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) == 2 * len(blocks(page))


def test_every_command_line_is_in_a_console_block() -> None:
    """A prompt anywhere else would be a command that no test reads."""
    prompts = {page: len(PROMPT.findall((ROOT / page).read_text(encoding="utf-8"))) for page in PAGES}
    assert {page: len(commands(page)) for page in PAGES} == prompts
    assert tuple(page for page in PAGES if prompts[page]) == WITH_COMMANDS


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_every_command_parses(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for tool, *words in commands(page):
        assert tool in TOOLS
        if tool == "make":
            assert words[0] in targets
        if tool == "gatecrash":
            *_, context = parse(words, monkeypatch)
            parse_overrides(context.params.get("overrides", ()))
            parse_only(context.params.get("only", ()))
            assert context.params.get("grid") is None or context.params["grid"] in GRIDS


def test_a_wrong_option_in_a_document_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("run quickstart --worker 2", "run", "plot heatmaps", "list grid", "run quickstart --workers two"):
        with pytest.raises(click.UsageError):
            parse(wrong.split(), monkeypatch)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_in_a_sentence_parses(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for span in code_spans(page):
        tool, *words = span.split() or [""]
        if tool != "gatecrash" or not words:
            continue
        assert words[0] in COMMANDS, span
        if len(words) > 1:
            parse(shlex.split(span)[1:], monkeypatch)


@pytest.mark.parametrize("page", [page for page in PAGES if code_blocks(page, "yaml")])
def test_every_grid_is_one(page: str, tmp_path: Path) -> None:
    grids = list(grids_of(page))
    assert len(grids) == len(code_blocks(page, "yaml"))
    for text in grids:
        file = tmp_path / "grid.yaml"
        file.write_text(text)
        resolve(load_grid(str(file)), load_plugins(installed=False))


def test_the_grids_that_commands_name_are_there() -> None:
    assert all((ROOT / grid).is_file() for grid in GRIDS if "/" in grid)
    assert all("name: my-grid\n" in block for page in PAGES for block in grids_of(page))
    assert [page for page in PAGES if code_blocks(page, "yaml")] == ["README.md", "docs/own-data.md"]


@pytest.mark.parametrize("page", [page for page in PAGES if code_blocks(page, "python")])
def test_every_python_block_compiles(page: str) -> None:
    for number, block in enumerate(code_blocks(page, "python")):
        compile(block, f"{page}:{number}", "exec")


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_a_heading(page: str) -> None:
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.resolve().relative_to(ROOT).as_posix()), link


def test_links_of_every_kind_are_found() -> None:
    assert "leaderboards/digits.md" in links("README.md")
    assert "docs/getting-started.md#read-the-numbers" in links("README.md")
    assert "figures/digits-heatmap.png" in links("leaderboards/digits.md")
    assert {"attack-badnets", "plugins"} <= anchors("docs/reference/plugins.md")


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_every_page_is_reached_from_the_index(page: str) -> None:
    listed = {(ROOT / "docs" / link).resolve() for link in links("docs/README.md")}
    listed |= {(ROOT / "docs/reference" / link).resolve() for link in links("docs/reference/plugins.md")}  # pages of single methods
    assert page == "docs/README.md" or ROOT / page in listed


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith("leaderboards/")])
def test_reports_are_explained_where_they_are_first_named(page: str) -> None:
    """The reports that the project started from are nowhere else to be read."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for letter in sorted(set(re.findall(r"\b[Rr]eport ([A-D])\b", text))):
        before = re.split(rf"\breport {letter}\b", text, flags=re.IGNORECASE)[0]
        assert "reports that this project started from" in " ".join(before.split()), letter

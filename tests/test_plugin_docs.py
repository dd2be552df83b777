"""plugins/README.md is what the plugins say of themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from gatecrash import Config
from gatecrash.host import load_plugins
from gatecrash.plugin_docs import main, options_of, page

PAGE = Path(__file__).parents[1] / "plugins" / "README.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(load_plugins(installed=False)), "run `make docs` and commit plugins/README.md"


def test_writing_the_page_gives_the_page(tmp_path: Path) -> None:
    main(tmp_path / "README.md")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == page(load_plugins(installed=False))


def test_every_plugin_and_option_is_on_the_page() -> None:
    host = load_plugins(installed=False)
    sections = {part.partition("\n")[0]: part for part in page(host).split("\n### ")}
    for plugin in host.plugins.values():
        section = sections[f"{plugin.kind} {plugin.name}"]
        assert all(f"| `{option}` |" in section for option in plugin.cls.Config.model_fields)
    badnets = sections["attack badnets"]
    assert "Controls: data; dirty label." in badnets
    assert "<https://arxiv.org/abs/1708.06733>" in badnets
    assert "| `size` | int | `3` | &gt;= 1, &lt;= 1024 | side of the patch in pixels |" in badnets
    assert "Needs: clean-data, model. Gives: classifier." in sections["defense fine-pruning"]
    assert "a \\| " not in badnets


class Options(Config):
    rate: float | None = Field(None, gt=0, le=1, description="a share")
    way: Literal["a", "b"] = Field("a", description="one of two")
    sizes: tuple[int, ...] = Field((1, 2), description="some")
    needed: bool = Field(description="must be given")


def test_options_as_a_person_reads_them() -> None:
    rate, way, sizes, needed = options_of(Options)
    assert (rate.type, rate.default, rate.bounds, rate.is_number) == ("float | none", "null", "> 0, <= 1", True)
    assert (way.type, way.default, way.bounds, way.is_number) == ("a | b", '"a"', "", False)
    assert (sizes.type, sizes.default, sizes.is_number) == ("tuple[int, ...]", "[1, 2]", False)
    assert (needed.type, needed.default, needed.is_number) == ("bool", "required", False)

"""Compiled training: the same training up to rounding, in keys only where asked for, and uncompiled where it does not work."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from gatecrash import Recipe
from gatecrash.engine import compiling
from support.small_training import network, recipe, run, weights


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Compile with this backend of torch's compiler, or this function, in place of the one that calls a C++ compiler."""
    compiling._warn.cache_clear()
    return lambda chosen: monkeypatch.setattr(compiling, "BACKEND", chosen)


def test_a_recipe_says_that_it_is_compiled_only_where_it_is() -> None:
    assert "compile" not in Recipe().model_dump()
    assert Recipe(compile="default").model_dump()["compile"] == "default"


def test_a_compiled_training_is_the_same_training(backend: Callable[[Any], None]) -> None:
    calls = []

    def counting(graph: torch.fx.GraphModule, _inputs: Any) -> Callable[..., Any]:
        return lambda *inputs: calls.append(graph) or graph.forward(*inputs)

    backend(counting)
    plain, compiled = network(dropout=0.3), network(dropout=0.3)
    histories = run(plain, recipe(epochs=2)), run(compiled, recipe(epochs=2, compile="default"))
    assert len(calls) >= 2 * 64 / 16
    torch.testing.assert_close(weights(compiled), weights(plain))
    assert histories[1].losses == pytest.approx(histories[0].losses)
    assert compiled._compiled_call_impl is None


def test_what_cannot_be_compiled_is_trained_as_ever_with_one_warning(
    backend: Callable[[Any], None], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_graph: torch.fx.GraphModule, _inputs: Any) -> Any:
        raise OSError("no compiler")

    backend(broken)
    plain, first, second = network(dropout=0.3), network(dropout=0.3), network(dropout=0.3)
    run(plain, recipe())
    with caplog.at_level(logging.WARNING, "gatecrash"):
        run(first, recipe(compile="default"))
        run(second, recipe(compile="default"))
    assert weights(first).equal(weights(plain))
    assert weights(second).equal(weights(plain))
    (record,) = (record for record in caplog.records if record.name == "gatecrash")
    assert "no compiler" in record.getMessage()
    assert "training goes on uncompiled" in record.getMessage()


@pytest.mark.slow
def test_the_real_compiler_compiles_a_training(backend: Callable[[Any], None], caplog: pytest.LogCaptureFixture) -> None:
    plain, compiled = network(), network()
    run(plain, recipe())
    with caplog.at_level(logging.WARNING, "gatecrash"):
        run(compiled, recipe(compile="default"))
    for record in caplog.records:
        if record.name == "gatecrash":
            pytest.skip(record.getMessage())
    torch.testing.assert_close(weights(compiled), weights(plain), rtol=1e-3, atol=1e-4)

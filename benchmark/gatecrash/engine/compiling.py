"""Compiled training: a network whose calls run as `torch.compile` has made them, or as ever where it cannot.

The compiler is tried before the first step, forward and backward, on the network itself, which is then as it was. So a machine without a
C++ compiler or Triton, or a network that cannot be compiled, is known in time: the training goes on uncompiled, and the log says so once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

import torch
from torch import Tensor

from gatecrash.contracts.classifier import Network
from gatecrash.contracts.recipe import Recipe
from gatecrash.errors import one_line

log = logging.getLogger("gatecrash")

BACKEND = "inductor"


@contextmanager
def compiled(network: Network, images: Tensor, recipe: Recipe, bfloat16: bool) -> Iterator[None]:
    """In the block the network is compiled, if the recipe asks for that and the machine can do it.

    `images`, uint8 [N, C, H, W], are those of the training.
    """
    if recipe.compile == "none":
        yield
        return
    with ExitStack() as stack:
        try:
            from torch._inductor import config as inductor

            # Tasks run beside each other already: no further processes for each of them.
            stack.enter_context(inductor.patch(compile_threads=1))
            stack.callback(torch._dynamo.reset)  # else the networks of one process count as one that is compiled over and over
            stack.callback(setattr, network, "_compiled_call_impl", None)
            network.compile(mode=recipe.compile, backend=BACKEND)
            _try_out(network, images[: recipe.batch_size], bfloat16)
        except Exception as error:  # what the compiler raises is of many kinds
            network._compiled_call_impl = None
            network.zero_grad(set_to_none=True)
            _warn(f"{type(error).__name__}: {one_line(error)}")
        yield


def _try_out(network: Network, images: Tensor, bfloat16: bool) -> None:
    """One pass forward and backward in training mode, of which nothing stays: not in weights, statistics, gradients or generators."""
    device, training = next(network.parameters()).device, network.training
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.enable_grad():
        try:
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                value = network.train()(images.to(device)).float().sum()
            value.backward()
        finally:
            network.train(training).zero_grad(set_to_none=True)
            with torch.no_grad():
                for name, tensor in network.state_dict().items():
                    tensor.copy_(before[name])


@cache
def _warn(reason: str) -> None:
    log.warning("the recipe asks for compiled training, which does not work here (%s): training goes on uncompiled", reason[:300])

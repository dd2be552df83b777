"""Torch's optimisers for training that is never compiled.

Torch guards their methods against its compiler, and for that imports the compiler at their first use: more than a second in every process
that trains. The methods themselves, below these guards, are the same arithmetic.
"""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

import torch

Optimizer = TypeVar("Optimizer", bound=torch.optim.Optimizer)

_GUARDED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def _eager(base: type[Optimizer]) -> type[Optimizer]:
    """The class without the guards; steps remain outside autograd."""
    methods: dict[str, Any] = {name: inspect.unwrap(getattr(base, name)) for name in _GUARDED}
    methods["step"] = torch.no_grad()(inspect.unwrap(base.step))
    return type(base.__name__, (base,), {"__module__": __name__, **methods})


SGD = _eager(torch.optim.SGD)
AdamW = _eager(torch.optim.AdamW)

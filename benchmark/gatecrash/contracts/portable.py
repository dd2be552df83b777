"""Modules that can be stored, shipped and rebuilt without pickle.

A Portable is an `nn.Module` that is fully described by a reference to its class (`plugin:Class`), a JSON config and its tensors. Triggers
and classifiers are Portables; this is their only form in the store, between processes and in exports, so loading one runs no code that
was not installed as a plugin.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, Self

from torch import Tensor, nn

from gatecrash.errors import ContractError

Spec = dict[str, Any]
"""`{"class": "module:Qualname", "config": {...}}`; a Portable inside the config is a spec under the key `$portable`."""


PACKAGE = "gatecrash"

OLDER_NAMES = {
    "gatecrash.classifier:Network": "gatecrash:Network",
    "gatecrash.triggers:Stamp": "gatecrash:Stamp",
    "gatecrash_plugins.attacks.clean_label:Contrast": "gatecrash_plugins.triggers.contrast:Contrast",
}
"""Names of classes in older stored files, and the names that files have now."""


class Portable(nn.Module):
    """A module that can be rebuilt from `type(self)(**self.config())` and its `state_dict`.

    `config` returns the constructor's keyword arguments: JSON values, or other Portables (a wrapper names what it wraps).
    """

    def config(self) -> dict[str, Any]:
        """Keyword arguments that rebuild this module, tensors aside."""
        return {}

    def duplicate(self) -> Self:
        """An independent copy, in the same mode and on the same device, rebuilt the way a stored one is."""
        tensors = self.state_dict()
        copy = rebuild(spec_of(self), {name: tensor.clone() for name, tensor in tensors.items()})
        if not isinstance(copy, type(self)):
            raise ContractError(f"{type(self).__name__} did not rebuild as itself")
        copy.train(self.training)
        first = next(iter(tensors.values()), None)
        return copy if first is None else copy.to(first.device)


def class_reference(cls: type) -> str:
    """The name of a class in stored files: the public name of a class of the harness, whose modules may move; `module:Qualname` else."""
    if cls.__module__.partition(".")[0] == PACKAGE and getattr(sys.modules.get(PACKAGE), cls.__name__, None) is cls:
        return f"{PACKAGE}:{cls.__qualname__}"
    return f"{cls.__module__}:{cls.__qualname__}"


def spec_of(module: Portable) -> Spec:
    """The module without its tensors, as JSON."""
    return {"class": class_reference(type(module)), "config": _pack(module.config())}


def state_of(module: Portable) -> dict[str, Tensor]:
    """The module's tensors, detached, on the CPU, each with storage of its own."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in module.state_dict().items()}


Resolver = Callable[[str], type]


def rebuild(spec: Spec, state: Mapping[str, Tensor], resolve: Resolver | None = None) -> Portable:
    """The module that `spec_of` and `state_of` described, on the CPU and in eval mode.

    `resolve` turns `module:Qualname` into a class; by default only modules that are already imported (that is, loaded by the host) are
    looked in: data cannot cause an import.
    """
    module = _unpack({"$portable": spec}, resolve or loaded_class)
    if not isinstance(module, Portable):
        raise ContractError(f"{spec.get('class')} is not a Portable")
    try:
        module.load_state_dict(dict(state))
    except RuntimeError as error:
        raise ContractError(f"{spec.get('class')}: {error}") from None
    return module.eval()


def loaded_class(reference: str) -> type:
    """The Portable class `module:Qualname` of a module that is already imported."""
    module_name, _, qualname = OLDER_NAMES.get(reference, reference).partition(":")
    target: Any = sys.modules.get(module_name)
    if target is None:
        raise ContractError(f"{reference} is needed to read this file, but no plugin {module_name!r} is loaded")
    for part in qualname.split("."):
        target = getattr(target, part, None)
    if not (isinstance(target, type) and issubclass(target, Portable)):
        raise ContractError(f"{reference} is not a Portable class; the plugin may have moved or renamed it")
    return target


def _pack(value: Any) -> Any:
    if isinstance(value, Portable):
        return {"$portable": spec_of(value)}
    if isinstance(value, Mapping):
        return {str(key): _pack(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_pack(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ContractError(f"config() of a Portable holds {type(value).__name__}; only JSON values and Portables can be stored")


def _unpack(value: Any, resolve: Resolver) -> Any:
    if isinstance(value, Mapping):
        if set(value) == {"$portable"}:
            spec = value["$portable"]
            return resolve(spec["class"])(**_unpack(spec["config"], resolve))
        return {key: _unpack(item, resolve) for key, item in value.items()}
    if isinstance(value, list):
        return [_unpack(item, resolve) for item in value]
    return value


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names and contents, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()

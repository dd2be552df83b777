"""Questions to witnesses."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from safetensors.torch import load, save
from torch import Tensor

from gatecrash.errors import ContractError
from gatecrash.evaluation.independence import StoredForm
from gatecrash.host.plugin_file import PluginFile
from gatecrash.running.witness.server import IMAGES, LOGITS, STATE
from gatecrash.running.witness.wire import Message

Ask = Callable[[Message], Message]


class RemoteWitness:
    """Asks copies of classifiers and detectors through `ask`; `files` are the `--plugins` files that may define them."""

    def __init__(self, ask: Ask, files: Iterable[PluginFile], threads: int) -> None:
        self._ask, self._threads = ask, threads
        self._files = [file.to_json() for file in files]

    def __call__(self, stored: StoredForm, images: Tensor) -> Tensor:
        tensors = {STATE + name: tensor.detach().cpu().contiguous().clone() for name, tensor in stored.state.items()}
        question = {"spec": stored.spec, "files": self._files, "threads": self._threads}
        said, body = self._ask((question, save({**tensors, IMAGES: images.contiguous()})))
        if "contract" in said:
            raise ContractError(f"asked again in a new process: {said['contract']}")
        if "error" in said:
            name = str(stored.spec["class"]).rpartition(":")[2]
            raise ContractError(f"{name} raised where a copy was asked in a new process: {said['error']}")
        return load(body)[LOGITS]

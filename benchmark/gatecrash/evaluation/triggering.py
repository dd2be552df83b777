"""Images under a backdoor's trigger, computed as deployed and checked against the trigger's contract."""

from __future__ import annotations

import torch
from torch import Tensor

from gatecrash.contracts.backdoor import Backdoor
from gatecrash.contracts.trigger import Trigger
from gatecrash.engine.batching import evaluation_batch_size
from gatecrash.errors import ContractError
from gatecrash.evaluation.independence import NEAR_THRESHOLD, sample_again
from gatecrash.evaluation.prediction import as_deployed, image_shape, in_batches


def apply_trigger(
    backdoor: Backdoor, images: Tensor, *, device: torch.device | str, batch_size: int | None = None, cover: bool = False
) -> Tensor:
    """uint8 [N, C, H, W] on the device of `images`: the images under the trigger, or its `cover`, computed in batches on `device`.

    Raises ContractError for a trigger whose output is not an image of the same shape, or depends on the rest of the batch, and where there
    is none.
    """
    device = torch.device(device)
    given = backdoor.cover if cover else backdoor.trigger
    if given is None:
        raise ContractError(f"backdoor {backdoor.name!r} has no {'cover' if cover else 'trigger'}")
    trigger = given.to(device)
    size = batch_size or evaluation_batch_size(trigger, image_shape(images), device)
    triggered = torch.empty_like(images)
    with as_deployed(trigger, device):
        for rows in in_batches(torch.arange(len(images)), size):
            triggered[rows.to(images.device)] = _stamp(backdoor.name, trigger, images, rows, device).to(images.device)
        for rows in sample_again("trigger-check", len(images)):
            again = _stamp(backdoor.name, trigger, images, rows, device).to(images.device)
            apart = (triggered[rows.to(images.device)].int() - again.int()).abs()
            # Float noise may round the output of a generator network the other way: by one grey level, in a few pixels.
            if int(apart.max()) > 1 or float((apart > 0).float().mean()) > NEAR_THRESHOLD:
                raise ContractError(
                    f"trigger of backdoor {backdoor.name!r} uses the batch or changes from call to call: "
                    "an image must come out the same in whatever batch it is"
                )
    return triggered


def _stamp(name: str, trigger: Trigger, images: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    """The given rows under the trigger, on `device`; raises ContractError unless that is an image of the same shape."""
    given = images[rows.to(images.device)].to(device)
    made: object = trigger(given)
    if not isinstance(made, Tensor) or made.dtype != torch.uint8 or made.shape != given.shape:
        got = f"{made.dtype} {list(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
        raise ContractError(f"trigger of backdoor {name!r} must give uint8 {list(given.shape)}; got {got}")
    return made

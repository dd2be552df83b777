"""What a trigger looks like: an image before and after, and the difference, magnified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gatecrash.boards.panel import Panel
from gatecrash.boards.plots.style import drawing, head, wrapped
from gatecrash.boards.spec import grid_of
from gatecrash.contracts.backdoor import Backdoor
from gatecrash.contracts.data import ImageSet
from gatecrash.datasets.preparation import PreparedDataset, prepare_dataset
from gatecrash.errors import UserError
from gatecrash.evaluation.bands import psnr_band
from gatecrash.evaluation.stealth import stealth
from gatecrash.evaluation.triggering import apply_trigger
from gatecrash.host.host import Host
from gatecrash.planning.grid import parse_grid
from gatecrash.planning.resolve import resolve
from gatecrash.records.store import Store
from gatecrash.running.tasks.stored import backdoors_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


COLUMNS = ("clean", "triggered", "difference")


LABEL = 22
"""Characters beside a row of images."""


@dataclass(frozen=True)
class TriggerExample:
    """One backdoor on one test image. Images are uint8 [C, H, W]."""

    label: str
    clean: Tensor
    triggered: Tensor
    distances: dict[str, float | None]
    attack: str = ""
    """The attack's label, and the backdoor's name where it has several."""
    backdoor: str | None = None

    @property
    def difference(self) -> tuple[Tensor, int]:
        """Absolute difference, float [C, H, W] in [0, 1], times a whole factor that makes its largest value visible."""
        change = (self.triggered.int() - self.clean.int()).abs()
        most = int(change.max())
        factor = max(1, 255 // most) if most else 1
        return change.float() * factor / 255, factor


def trigger_of(label: str, backdoor: Backdoor, test: ImageSet, attack: str = "", name: str | None = None) -> TriggerExample:
    """The trigger on the first test image that the backdoor applies to. Raises UserError where there is none."""
    rows = torch.nonzero(backdoor.goal.eligible(test.labels.cpu())).flatten()
    if not len(rows):
        raise UserError(f"{label}: the backdoor applies to no test image")
    clean = test.images[rows[:1].to(test.device)].cpu()
    return TriggerExample(label, clean[0], apply_trigger(backdoor, clean, device="cpu")[0], stealth(test, backdoor), attack, name)


def dataset_of(panel: Panel, host: Host, overrides: Mapping[str, str] | None = None) -> PreparedDataset:
    """The dataset that the results are of. Raises UserError where it is not here, or is another one."""
    first = panel.cells[0]
    prepared = prepare_dataset(resolve(parse_grid(grid_of([first]), "the stored spec", overrides), host).dataset.instance)
    if prepared.fingerprint != first.dataset_fingerprint:
        name = prepared.name
        raise UserError(f"the dataset {name} here is not the one of the results; name its folder with -o dataset.{name}.root=DIR")
    return prepared


def stored_triggers(panel: Panel, store: Store, dataset: PreparedDataset) -> list[TriggerExample]:
    """The triggers of the stored victims, one per backdoor and attack (of the lowest seed that the store has)."""
    test = dataset.splits().test
    found = []
    for attack in panel.attacks:
        victims = (store.victim(key) for key in dict.fromkeys(cell.victim_key for cell in panel.at(attack)))
        victim = next((one for one in victims if one is not None), None)
        backdoors = backdoors_of(victim) if victim is not None else []
        seen = [one for one in backdoors if one.trigger is not None]
        if len(seen) == 1:
            found.append(trigger_of(attack, seen[0], test, attack))
        else:
            found += [trigger_of(f"{attack}: {one.name}", one, test, attack, one.name) for one in seen]
    return found


def triggers(panel: Panel, found: Sequence[TriggerExample]) -> Figure:
    """A row for each trigger of the panel's attacks. PSNR and SSIM are means over (at most 1,000) test images, not of the one shown."""
    if not found:
        raise UserError("no stored victim has a trigger; run an attack first, or name one with --trigger")
    figure = drawn(found)
    head(figure, panel, "The victim of the lowest seed of each attack" if len(panel.seeds) > 1 else "")
    return figure


def drawn(found: Sequence[TriggerExample]) -> Figure:
    """A row for each trigger, without a title."""
    with drawing() as figure_class:
        figure = figure_class(figsize=(6.6, 0.9 + 2.15 * len(found)), layout="constrained")
        axes = figure.subplots(len(found), len(COLUMNS), squeeze=False)
        for row, trigger in zip(axes, found, strict=True):
            difference, factor = trigger.difference
            _show(row[0], trigger.clean.float() / 255)
            _show(row[1], trigger.triggered.float() / 255)
            _show(row[2], difference)
            row[2].set_xlabel(f"difference × {factor}", fontsize=9)
            row[0].set_ylabel(wrapped(trigger.label, LABEL), fontsize=10)
            row[1].set_xlabel(_said(trigger.distances), fontsize=9)
        for axis, title in zip(axes[0], COLUMNS, strict=True):
            axis.set_title(title, fontsize=10)
    return figure


def _show(axis: Any, image: Tensor) -> None:
    pixels = image[0].numpy() if image.shape[0] == 1 else image.permute(1, 2, 0).numpy()
    axis.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(True)


def _said(distances: dict[str, float | None]) -> str:
    psnr, ssim = distances.get("psnr"), distances.get("ssim")
    band = f" ({psnr_band(psnr)})" if psnr_band(psnr) else ""
    parts = [f"PSNR {psnr:.1f} dB{band}" if psnr is not None else "", f"SSIM {ssim:.3f}" if ssim is not None else ""]
    return ", ".join(part for part in parts if part)

"""Runs of one plugin that its checks share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from gatecrash.errors import ContractError, NotApplicable, UserError
from gatecrash.testing.check import CheckFailed
from gatecrash.testing.gpu_rules import GpuFault
from gatecrash.testing.limits import Growth, TimeUp, measured
from gatecrash.testing.setting import CheckSetup, Place, setting

Run = TypeVar("Run")
"""What one run left behind."""
Made = TypeVar("Made")


@dataclass(frozen=True)
class Case:
    """How a plugin is run."""

    noise: int = 1
    """The state of the global random generators, which must not matter."""
    seed: int = 0
    """The run's, which streams depend on."""
    place: Place = "digits"
    device: str = "cpu"
    data_device: str | None = None
    """Of an attack's training set, where it is not `device`: in a grid the set stays on the CPU."""
    config: Any = None
    """Other options than the plugin's own."""
    train_victim: bool = False
    """Train a victim even if the attack has no say in that."""


class Trial(ABC, Generic[Run]):
    """One plugin and what came of running it: each run is made once, whether it succeeds or fails."""

    def __init__(self, plugin: Any) -> None:
        self.plugin = plugin
        self.growth: Growth | None = None
        """What the first run did to the memory of this process."""
        self._made: dict[str, Any] = {}
        self._stuck: CheckFailed | None = None

    @abstractmethod
    def make(self, case: Case, shared: CheckSetup) -> Run:
        """Run the plugin. Raises CheckFailed, or NotApplicable."""

    @property
    def setting(self) -> CheckSetup:
        return setting()

    @property
    def work(self) -> Run:
        """The first run; raises what went wrong in it."""
        return self.run(Case())

    def run(self, case: Case) -> Run:
        """The run in this case; raises what went wrong in it, or in the first run: what fails there is not tried in other ways."""
        if case != Case():
            self.work  # noqa: B018 - see above
        return self.once(repr(case), lambda: self._watched(case))

    def once(self, key: str, make: Callable[[], Made]) -> Made:
        """What `make` gave, or raised, the first time. Once something did not end, nothing else is tried: it would not end either."""
        if key not in self._made:
            if self._stuck is not None:
                raise self._stuck.again()
            try:
                self._made[key] = make()
            except NotApplicable as error:
                self._made[key] = error
            except CheckFailed as failure:
                self._made[key] = failure
                if isinstance(failure.__cause__, TimeUp):
                    self._stuck = failure
        made: Made | Exception = self._made[key]
        if isinstance(made, CheckFailed):
            raise made.again() from made
        if isinstance(made, NotApplicable):
            raise NotApplicable(str(made))
        return made  # type: ignore[return-value]

    def _watched(self, case: Case) -> Run:
        shared = setting(case.place)
        if self.growth is not None:
            return self.make(case, shared)
        self.prepare(shared)
        with measured() as self.growth:
            return self.make(case, shared)

    @property
    def gpu_case(self) -> Case:
        """How the plugin is run on a GPU."""
        return Case(place="gpu", device="cuda")

    def prepare(self, shared: CheckSetup) -> None:
        """Make what the setting makes on demand, so that its memory is not taken for the plugin's."""


def mend_run(error: BaseException) -> str:
    """How to mend a run that ended in this error."""
    if isinstance(error, GpuFault):
        return "create and move tensors with the device that the plugin is given, or that of the tensors they meet"
    if isinstance(error, UserError):
        return "give the checks options that suit these images, as in -o size=3"
    if isinstance(error, ContractError):
        return "change the plugin as the message says"
    return "read the traceback (`--debug`, or pytest); what cannot apply to a victim raises gatecrash.NotApplicable"

"""The one actor on each node beside the workers. Imports nothing large: starting a process takes a second as it is."""

from __future__ import annotations

from gatecrash.running.executors.reports import Reports
from gatecrash.running.witness.process import WitnessProcess

QUESTIONS = "questions"
"""The threads that questions to the witness take; reports are taken one at a time, in order."""

AT_A_TIME = 256


class Attendant(Reports, WitnessProcess):
    """Asks classifiers again in new processes: a node must not import torch anew for every cell. The driver's also collects reports."""

    def __init__(self) -> None:
        Reports.__init__(self)
        WitnessProcess.__init__(self)

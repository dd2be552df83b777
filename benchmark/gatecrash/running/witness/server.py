"""The process that forks witnesses, from inside."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import tempfile
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from gatecrash.contracts.classifier import Classifier
from gatecrash.contracts.detector import InputDetector
from gatecrash.contracts.portable import rebuild
from gatecrash.errors import ContractError, one_line
from gatecrash.evaluation.prediction import in_batches, predict_batches, score_batches
from gatecrash.host.host import Host
from gatecrash.host.loading import load_files, load_plugins
from gatecrash.host.plugin_file import PluginFile
from gatecrash.process.isolation import fresh_process_state
from gatecrash.process.lasting import keep_all_of_now
from gatecrash.running.witness import fence
from gatecrash.running.witness.process import PATIENCE
from gatecrash.running.witness.wire import receive, send

STATE, IMAGES, LOGITS = "state.", "images", "logits"
"""Names of the tensors in a question's bytes (the module's after a prefix), and in an answer's: logits, or a detector's scores."""


def serve(descriptor: int) -> None:
    """Fork a process for every connection to the listening socket `descriptor`, until standard input ends."""
    load_plugins()
    keep_all_of_now()  # a child that collects garbage would copy all of this process's memory
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are not waited for
    with socket.socket(fileno=descriptor) as listener:
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in ready:
                os.killpg(0, signal.SIGKILL)  # this process and every child
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _witness(connection)
            connection.close()


def _witness(connection: socket.socket) -> None:
    """Answer one question, and end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.alarm(int(PATIENCE))  # nobody waits longer
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    try:
        with connection.makefile("rwb") as stream:
            _answer(stream)
    finally:
        os._exit(0)


def _answer(stream: BufferedIOBase) -> None:
    head, body = receive(stream)
    try:
        with fresh_process_state(head["threads"]):
            answer = {LOGITS: _answers(head, body).contiguous()}
    except ContractError as error:
        send(stream, ({"contract": one_line(error)}, b""))
    except (Exception, SystemExit) as error:
        send(stream, ({"error": one_line(error)}, b""))
    else:
        send(stream, ({}, save(answer)))


def _answers(head: dict[str, Any], body: bytes) -> torch.Tensor:
    with tempfile.TemporaryDirectory(prefix="gatecrash-plugins-") as folder:
        files = [PluginFile.from_json(file).written_to(Path(folder) / str(number)) for number, file in enumerate(head["files"])]
        load_files(Host(), files)
    fence.close()
    tensors = load(body)
    images = tensors.pop(IMAGES)
    asked = rebuild(head["spec"], {name.removeprefix(STATE): tensor for name, tensor in tensors.items()})
    one_by_one, cpu = in_batches(torch.arange(len(images)), 1), torch.device("cpu")
    if isinstance(asked, InputDetector):
        return score_batches(asked, images, one_by_one, cpu)
    if not isinstance(asked, Classifier):
        raise ContractError(f"{type(asked).__name__} is neither a Classifier nor an InputDetector")
    return predict_batches(asked, images, one_by_one, cpu)

"""Messages between processes: a JSON head and bytes, each after its length. No pickle: a plugin's process writes the answers."""

from __future__ import annotations

import json
import struct
from io import BufferedIOBase
from typing import Any

_LENGTHS = struct.Struct(">QQ")

Message = tuple[dict[str, Any], bytes]


def send(stream: BufferedIOBase, message: Message) -> None:
    head = json.dumps(message[0]).encode()
    stream.write(_LENGTHS.pack(len(head), len(message[1])))
    stream.write(head)
    stream.write(message[1])
    stream.flush()


def receive(stream: BufferedIOBase) -> Message:
    """Raises EOFError where the other side ends early."""
    head, body = (_exactly(stream, length) for length in _LENGTHS.unpack(_exactly(stream, _LENGTHS.size)))
    fields: dict[str, Any] = json.loads(head)
    return fields, body


def _exactly(stream: BufferedIOBase, length: int) -> bytes:
    read = stream.read(length)
    if len(read) < length:
        raise EOFError("the other side ended early")
    return read

"""Whether a Ray cluster can be joined, tried in a process that can be ended: Ray itself tries for minutes, prints as it does, and may take
its process along. Run as a file, with the address; prints `joined`, or why not.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

CONNECT, JOIN = 5.0, 10
"""Seconds for a connection to the address, and then for joining."""


def probe(address: str) -> str:
    """`joined`, or why not, as one line."""
    try:
        if address != "auto":
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT).close()
        import ray

        signal.alarm(JOIN)
        ray.init(address=address, log_to_driver=False, logging_level=40)
        ray.shutdown()
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return "joined"


if __name__ == "__main__":
    print(probe(sys.argv[1]), flush=True)
    os._exit(0)  # what Ray left half done need not be ended in order

"""Ports for servers that must come up at a given one, or come back to theirs.

Below those that the kernel gives to clients: a client of another test, or one that keeps trying to
reach the very server that is down, could have got it meanwhile. None is given twice: not by this
process, and not by another one of the same run, whose server may not have come up yet.
"""

import os
import random
import socket

FIRST, LAST = 20_000, 32_000
PROCESS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_given = set()


def unused_port():
    while True:
        port = random.SystemRandom().randrange(FIRST + PROCESS, LAST, PROCESSES)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port

"""Ports for servers that must come up at a given one, or come back to theirs.

Below those that the kernel gives to clients: a client of another test, or one that keeps trying to
reach the very server that is down, could have got it meanwhile.
"""

import random
import socket

FIRST, LAST = 20_000, 32_000


def unused_port():
    while True:
        port = random.SystemRandom().randrange(FIRST, LAST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port

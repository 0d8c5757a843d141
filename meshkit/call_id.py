"""The name of a call: a UUIDv7 (RFC 9562, 5.7), 16 bytes that sort by time.

    48 bits  milliseconds since 1970
     4 bits  version, 7
    12 bits  random
     2 bits  variant, 0b10
    62 bits  random

Whoever opens the first record of something makes one: the gateway for a call, any service for a
note about itself. Time first, so that the log's index grows at its end.
"""

from __future__ import annotations

import os
import time

__all__ = ["new_call_id"]


def new_call_id() -> bytes:
    """Make one; 74 random bits, so that nobody guesses or repeats it. 16 bytes."""
    noise = bytearray(os.urandom(10))
    noise[0] = 0x70 | noise[0] & 0x0F
    noise[2] = 0x80 | noise[2] & 0x3F
    return (time.time_ns() // 1_000_000).to_bytes(6) + bytes(noise)

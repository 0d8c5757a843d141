"""The cells of docs/ARCHITECTURE.md's table that no other test shows: a part, a fault of it.

A fault is held for as long as it takes to be noticed (`world.QUICK`), and little longer.
"""

from __future__ import annotations

from tests.chaos.faults import Fault

_FELT_S = 1.0
_NOTICED_S = 3.0
_NO_ACK_S = 4.5
_ANSWERED_S = 2.0
"""A busy machine may need longer than half a second for the model to answer anybody."""

CELLS = (
    *(Fault(part, "replaced") for part in ("compliance", "cache", "inference", "audit", "gateway")),
    Fault("redis", "killed"),
    Fault("redis", "paused", _FELT_S),
    Fault("redis", "slow", _FELT_S),
    Fault("redis", "partitioned", _FELT_S),
    Fault("openbao", "paused", _FELT_S),
    Fault("openbao", "slow", _FELT_S),
    Fault("openbao", "partitioned", _FELT_S),
    Fault("openbao", "sealed", 2.0),
    Fault("compliance", "slow", _FELT_S),
    Fault("compliance", "partitioned", _NOTICED_S),
    Fault("compliance", "wrong digest", 0.5),
    Fault("compliance", "truncated", 0.5),
    Fault("cache", "slow", _FELT_S),
    Fault("cache", "partitioned", _NOTICED_S),
    Fault("cache", "wrong digest", 0.5),
    Fault("inference", "paused", _NOTICED_S),
    Fault("inference", "slow", _FELT_S),
    Fault("inference", "partitioned", _NOTICED_S),
    Fault("inference", "truncated", _ANSWERED_S),
    Fault("inference", "wrong digest", _ANSWERED_S),
    Fault("audit", "slow", _FELT_S),
    Fault("audit", "partitioned", _NO_ACK_S),
    Fault("audit", "wrong digest", 0.5),
    Fault("audit", "truncated", _NO_ACK_S),
    Fault("gateway", "paused", _FELT_S),
    Fault("gateway", "slow", _FELT_S),
    Fault("gateway", "partitioned", _FELT_S),
)

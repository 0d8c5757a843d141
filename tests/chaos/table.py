"""The cells of docs/ARCHITECTURE.md's table that no other test shows: a part, a fault of it."""

from __future__ import annotations

from tests.chaos.faults import Fault

CELLS = (
    *(Fault(part, "replaced") for part in ("compliance", "cache", "inference", "audit", "gateway")),
    Fault("redis", "killed"),
    Fault("redis", "paused", 1.5),
    Fault("redis", "slow", 1.5),
    Fault("redis", "partitioned", 1.5),
    Fault("openbao", "paused", 1.5),
    Fault("openbao", "partitioned", 1.5),
    Fault("openbao", "slow", 1.5),
    Fault("compliance", "slow", 1.5),
    Fault("compliance", "partitioned", 4.5),
    Fault("compliance", "wrong digest", 0.5),
    Fault("compliance", "truncated", 0.5),
    Fault("cache", "slow", 1.5),
    Fault("cache", "partitioned", 3.5),
    Fault("cache", "wrong digest", 0.5),
    Fault("inference", "paused", 4.5),
    Fault("inference", "slow", 1.5),
    Fault("inference", "partitioned", 4.5),
    Fault("inference", "truncated", 0.5),
    Fault("inference", "wrong digest", 0.5),
    Fault("audit", "slow", 1.5),
    Fault("audit", "partitioned", 5.5),
    Fault("audit", "wrong digest", 0.5),
    Fault("audit", "truncated", 4.5),
    Fault("gateway", "paused", 1.5),
    Fault("gateway", "slow", 1.5),
    Fault("gateway", "partitioned", 1.5),
    Fault("openbao", "sealed", 2.0),
)

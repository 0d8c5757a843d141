"""`python -m audit.main`, which lies when told to."""

from meshkit import tls_floor  # isort: skip -- before grpc, as in every entry point

import sys

from audit import main, servicer
from meshkit.member import run
from tests.chaos.programs.lies import lie_of

assert tls_floor.in_time()

_ack_of = servicer.ack_of


def _ack(event, result):
    """Acknowledge under another leaf hash, or not at all but with an ack nobody waits for."""
    ack = _ack_of(event, result)
    lie = lie_of("audit")
    if lie == "wrong digest" and ack.HasField("appended"):
        ack.appended.receipt.leaf_hash = bytes(32)
    elif lie == "truncated":
        ack.call_id = bytes(16)
    return ack


if __name__ == "__main__":
    servicer.ack_of = _ack
    sys.exit(run("audit", main.AuditServer, main.serve))

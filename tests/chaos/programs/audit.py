"""`python -m audit.main`, which lies when told to."""

from meshkit import tls_floor  # isort: skip -- before grpc, as in every entry point

import sys

from audit import main, servicer
from meshkit.member import run
from tests.chaos.programs.lies import lie_of

assert tls_floor.in_time()

_write_ack = servicer.write_ack


def _write(event, result, ack):
    """Acknowledge under another leaf hash, or not at all but with an ack nobody waits for."""
    _write_ack(event, result, ack)
    lie = lie_of("audit")
    if lie == "wrong digest" and ack.HasField("appended"):
        ack.appended.receipt.leaf_hash = bytes(32)
    elif lie == "truncated":
        ack.call_id = bytes(16)


if __name__ == "__main__":
    servicer.write_ack = _write
    sys.exit(run("audit", main.AuditServer, main.serve))

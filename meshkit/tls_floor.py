"""Import this before grpc, first thing in a server's entry point: it rules TLS 1.2 out.

Python gRPC has no minimum TLS version (grpc/grpc#37305). C-core reads GRPC_SSL_CIPHER_SUITES once,
while grpc is being imported, and the list rules TLS 1.2 only: with an RSA-only suite and ECDSA-only
certificates no TLS 1.2 handshake can end well, while TLS 1.3 is untouched. Setting it later has no
effect whatever, so this module says loudly whether it came in time. docs/adr/0003 has the rest.

The SDK never imports this: a library has no business in its user's environment.
"""

from __future__ import annotations

import os
import sys

__all__ = ["CIPHER_SUITES", "VARIABLE", "in_time"]

VARIABLE = "GRPC_SSL_CIPHER_SUITES"
CIPHER_SUITES = "ECDHE-RSA-AES256-GCM-SHA384"
"""A TLS 1.2 suite that needs an RSA certificate, which no server of ours will ever load."""

_CORE = "grpc._cython.cygrpc"

_set_at_start = os.environ.get(VARIABLE) == CIPHER_SUITES
_before_grpc = _CORE not in sys.modules
if _before_grpc:
    os.environ[VARIABLE] = CIPHER_SUITES


def in_time() -> bool:
    """Whether C-core read our suites: set here before grpc, or in the environment from the start.

    A claim about order, cheap to check; `meshkit.tls.probe_tls13_only` is the proof.
    """
    return (_before_grpc or _set_at_start) and os.environ.get(VARIABLE) == CIPHER_SUITES

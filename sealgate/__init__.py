"""Client for a Sealgate gateway: async and sync, typed errors, receipts one can check.

    async with AsyncClient("localhost:50051", tls="tls/", vkey=vkey) as client:
        result = await client.chat("What is a mesh?", model="smollm2-135m-instruct")
        print(result.text, result.receipt.index)

        stream = client.stream("And a gate?", model="smollm2-135m-instruct")
        async for piece in stream:
            print(piece, end="")
        print(stream.result.usage)

`Client` is the same without `await`. Errors are subclasses of `SealgateError`. A client that was
given files shows the new ones once they are replaced (docs/certificates.md). Nothing here sets a
process-wide variable or reads the environment.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshkit.contract import (
        FindingCount,
        FinishReason,
        Message,
        ModelInfo,
        Reason,
        Receipt,
        Role,
        Usage,
        Verdict,
    )
    from sealgate._shape import ChatOptions, ChatResult
    from sealgate.audit_client import AsyncAuditReader
    from sealgate.client import AsyncClient, AsyncStream
    from sealgate.errors import (
        BlockedError,
        BrokenStreamError,
        CallCancelledError,
        ConflictError,
        DeniedError,
        EvidenceLostError,
        HeldError,
        InternalError,
        InvalidRequestError,
        LimitedError,
        NotFoundError,
        OutOfTimeError,
        OverloadedError,
        ReceiptError,
        SealgateError,
        UnauthenticatedError,
        UnavailableError,
        WrongStateError,
    )
    from sealgate.models_client import AsyncModels
    from sealgate.payloads_client import AsyncPayloads
    from sealgate.sync import Client, Stream

__all__ = [
    "AsyncAuditReader",
    "AsyncClient",
    "AsyncModels",
    "AsyncPayloads",
    "AsyncStream",
    "BlockedError",
    "BrokenStreamError",
    "CallCancelledError",
    "ChatOptions",
    "ChatResult",
    "Client",
    "ConflictError",
    "DeniedError",
    "EvidenceLostError",
    "FindingCount",
    "FinishReason",
    "HeldError",
    "InternalError",
    "InvalidRequestError",
    "LimitedError",
    "Message",
    "ModelInfo",
    "NotFoundError",
    "OutOfTimeError",
    "OverloadedError",
    "Reason",
    "Receipt",
    "ReceiptError",
    "Role",
    "SealgateError",
    "Stream",
    "UnauthenticatedError",
    "UnavailableError",
    "Usage",
    "Verdict",
    "WrongStateError",
]

_HOMES = {
    "sealgate._shape": ("ChatOptions", "ChatResult"),
    "sealgate.audit_client": ("AsyncAuditReader",),
    "sealgate.models_client": ("AsyncModels",),
    "sealgate.payloads_client": ("AsyncPayloads",),
    "sealgate.client": ("AsyncClient", "AsyncStream"),
    "sealgate.sync": ("Client", "Stream"),
    "meshkit.contract": (
        "FindingCount",
        "FinishReason",
        "Message",
        "ModelInfo",
        "Reason",
        "Receipt",
        "Role",
        "Usage",
        "Verdict",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Load what is asked for, when it is: services import `sealgate.v1` and need no client."""
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    found: object = getattr(import_module(_HOME_OF.get(name, "sealgate.errors")), name)
    globals()[name] = found
    return found

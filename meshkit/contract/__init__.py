"""What the five services say to one another: values, protocols, refusals. PURE.

    gateway --screen/release--> Compliance      (text in, text that may travel out)
    gateway --get/put---------> Cache
    gateway --generate--------> Inference
    gateway --append----------> Audit           (durable before it returns)

A service implements its Protocol here once; the appliance calls that object in process, the mesh
calls it through `clients.py` and the wire. Nothing in this module does I/O or knows gRPC.

Text changes type as it is allowed further: a caller's `Message` becomes part of `Screened`, a
model's delta becomes part of `Released`. Both carry a MAC (`meshkit.screening_mac`) that cache and
inference verify, so that a faulty gateway cannot hand them anything else.
"""

from meshkit.contract.audit import (
    OPERATORS,
    Appended,
    Audit,
    Checkpoint,
    Commitment,
    Document,
    Event,
    Payload,
    Phase,
    Receipt,
    Record,
)
from meshkit.contract.cache import Cache, CachedAnswer, CacheMiss, Question
from meshkit.contract.call import (
    Actor,
    Call,
    Connection,
    Direction,
    FinishReason,
    Message,
    Parameters,
    Role,
    Scope,
    Stage,
    TraceContext,
    answer_bytes,
    is_subject,
    prompt_bytes,
    subject_of_user,
)
from meshkit.contract.compliance import (
    BlockedText,
    Compliance,
    FindingCount,
    Released,
    Screened,
    Verdict,
)
from meshkit.contract.inference import (
    PER_WHOLE,
    Embedded,
    Ended,
    Generated,
    Inference,
    ModelInfo,
    Usage,
)
from meshkit.contract.refusal import Reason, Refusal
from meshkit.contract.release import (
    Release,
    ReleaseDesk,
    ReleasedVersion,
    ReleaseShadow,
    ReleaseStep,
    ReleaseTrial,
    StepKind,
    choose,
)

__all__ = [
    "OPERATORS",
    "PER_WHOLE",
    "Actor",
    "Appended",
    "Audit",
    "BlockedText",
    "Cache",
    "CacheMiss",
    "CachedAnswer",
    "Call",
    "Checkpoint",
    "Commitment",
    "Compliance",
    "Connection",
    "Direction",
    "Document",
    "Embedded",
    "Ended",
    "Event",
    "FindingCount",
    "FinishReason",
    "Generated",
    "Inference",
    "Message",
    "ModelInfo",
    "Parameters",
    "Payload",
    "Phase",
    "Question",
    "Reason",
    "Receipt",
    "Record",
    "Refusal",
    "Release",
    "ReleaseDesk",
    "ReleaseShadow",
    "ReleaseStep",
    "ReleaseTrial",
    "Released",
    "ReleasedVersion",
    "Role",
    "Scope",
    "Screened",
    "Stage",
    "StepKind",
    "TraceContext",
    "Usage",
    "Verdict",
    "answer_bytes",
    "choose",
    "is_subject",
    "prompt_bytes",
    "subject_of_user",
]

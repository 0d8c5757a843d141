"""All that an auditor, the SDK or the audit service needs to check a log. PURE, no I/O.

    merkle       RFC 9162 hashes and proofs          note        C2SP signed notes, verifier keys
    tiles        C2SP tlog-tiles paths and growth    heads       the text of a checkpoint
    cosignature  C2SP tlog-cosignature               policy      C2SP tlog-policy: whom to believe
    checkpoint   checkpoints and proof files         witnessing  C2SP tlog-witness: what is sent
    receipts     what a caller keeps                 whole       a log, every byte of it
    log_keys     the keys of one log

docs/audit.md tells how the parts make a log.
"""

from meshkit.tlog.checkpoint import (
    Proof,
    ProofInvalid,
    check_proof,
    format_proof,
    open_checkpoint,
    origin_of,
    parse_checkpoint,
    parse_proof,
)
from meshkit.tlog.cosignature import (
    ED25519_COSIGNATURE,
    MLDSA44_COSIGNATURE,
    CosignerKey,
    cosignature_line,
    cosignature_message,
)
from meshkit.tlog.heads import checkpoint_text, read_checkpoint_text
from meshkit.tlog.log_keys import LogKeys
from meshkit.tlog.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    HashReader,
    ListHashes,
    consistency_proof,
    inclusion_proof,
    is_consistent,
    is_included,
    leaf_hash,
    node_hash,
    range_hash,
    root_of,
)
from meshkit.tlog.note import (
    NoteInvalid,
    VerifierKey,
    check_signatures,
    format_line,
    format_note,
    open_note,
    signature_line,
    split_note,
)
from meshkit.tlog.policy import (
    Group,
    Judged,
    Policy,
    PolicyInvalid,
    PolicyWitness,
    judge_checkpoint,
)
from meshkit.tlog.receipts import (
    ENDORSEMENTS_MAX,
    ReceiptInvalid,
    check_receipt,
    commit,
    endorsement_text,
    receipt_bytes,
)
from meshkit.tlog.tiles import (
    ENTRY_BYTES_MAX,
    TILE_WIDTH,
    BundleInvalid,
    Edge,
    TileHashes,
    bundle_path,
    decode_bundle,
    encode_bundle,
    entry_hashes,
    parse_tile_path,
    tile_path,
    tiles_of,
)
from meshkit.tlog.whole import LogChecked, LogInvalid, check_log
from meshkit.tlog.witnessing import (
    CONSISTENCY_HASHES_MAX,
    SIZE_CONTENT_TYPE,
    AddCheckpoint,
    format_add_checkpoint,
    parse_add_checkpoint,
    parse_signature_lines,
    parse_size,
)

__all__ = [
    "CONSISTENCY_HASHES_MAX",
    "ED25519_COSIGNATURE",
    "EMPTY_ROOT",
    "ENDORSEMENTS_MAX",
    "ENTRY_BYTES_MAX",
    "HASH_BYTES",
    "MLDSA44_COSIGNATURE",
    "SIZE_CONTENT_TYPE",
    "TILE_WIDTH",
    "AddCheckpoint",
    "BundleInvalid",
    "CosignerKey",
    "Edge",
    "Group",
    "HashReader",
    "Judged",
    "ListHashes",
    "LogChecked",
    "LogInvalid",
    "LogKeys",
    "NoteInvalid",
    "Policy",
    "PolicyInvalid",
    "PolicyWitness",
    "Proof",
    "ProofInvalid",
    "ReceiptInvalid",
    "TileHashes",
    "VerifierKey",
    "bundle_path",
    "check_log",
    "check_proof",
    "check_receipt",
    "check_signatures",
    "checkpoint_text",
    "commit",
    "consistency_proof",
    "cosignature_line",
    "cosignature_message",
    "decode_bundle",
    "encode_bundle",
    "endorsement_text",
    "entry_hashes",
    "format_add_checkpoint",
    "format_line",
    "format_note",
    "format_proof",
    "inclusion_proof",
    "is_consistent",
    "is_included",
    "judge_checkpoint",
    "leaf_hash",
    "node_hash",
    "open_checkpoint",
    "open_note",
    "origin_of",
    "parse_add_checkpoint",
    "parse_checkpoint",
    "parse_proof",
    "parse_signature_lines",
    "parse_size",
    "parse_tile_path",
    "range_hash",
    "read_checkpoint_text",
    "receipt_bytes",
    "root_of",
    "signature_line",
    "split_note",
    "tile_path",
    "tiles_of",
]

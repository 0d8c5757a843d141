"""All that an auditor, the SDK or the audit service needs to check a log. PURE, no I/O.

    merkle       RFC 9162 hashes and proofs          note        C2SP signed notes, verifier keys
    tiles        C2SP tlog-tiles paths and growth    checkpoint  checkpoints and proof files
    receipts     what a caller keeps                 whole       a log, every byte of it

docs/audit.md tells how the parts make a log.
"""

from meshkit.tlog.checkpoint import (
    Proof,
    ProofInvalid,
    check_proof,
    checkpoint_text,
    format_proof,
    open_checkpoint,
    parse_checkpoint,
    parse_proof,
)
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
    format_note,
    open_note,
    signature_line,
    split_note,
)
from meshkit.tlog.receipts import (
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

__all__ = [
    "EMPTY_ROOT",
    "ENTRY_BYTES_MAX",
    "HASH_BYTES",
    "TILE_WIDTH",
    "BundleInvalid",
    "Edge",
    "HashReader",
    "ListHashes",
    "LogChecked",
    "LogInvalid",
    "NoteInvalid",
    "Proof",
    "ProofInvalid",
    "ReceiptInvalid",
    "TileHashes",
    "VerifierKey",
    "bundle_path",
    "check_log",
    "check_proof",
    "check_receipt",
    "checkpoint_text",
    "commit",
    "consistency_proof",
    "decode_bundle",
    "encode_bundle",
    "endorsement_text",
    "entry_hashes",
    "format_note",
    "format_proof",
    "inclusion_proof",
    "is_consistent",
    "is_included",
    "leaf_hash",
    "node_hash",
    "open_checkpoint",
    "open_note",
    "parse_checkpoint",
    "parse_proof",
    "parse_tile_path",
    "range_hash",
    "receipt_bytes",
    "root_of",
    "signature_line",
    "split_note",
    "tile_path",
    "tiles_of",
]

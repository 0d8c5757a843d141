"""The log itself: how an event becomes durable, enters the tree and is published.

disk       every effect on files          wal        where an event becomes durable
intake     group commit                   appender   `AuditLog`, exactly once
storage    tiles and bundles              publisher  rounds: sign, lock, apply, cosign, publish
signer     checkpoints' signatures        locks      the newest checkpoint, kept elsewhere
receipts   what callers keep              recovery   after a crash
opening    all of it, for a block         pace, turns  so that nobody waits long
signing_keys, parts, epoch
"""

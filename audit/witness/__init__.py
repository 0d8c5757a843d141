"""A witness: cosigns the checkpoints of logs, each only if it extends what was cosigned before.

A service of its own for another host than the log's, with keys of its own and no OpenBao. It
imports nothing of the audit service, so that `pip install sealgate[witness]` is all it needs.

    settings   WITNESS_*                      keys       an Ed25519 and an ML-DSA-44 key on disk
    memory     what was cosigned last         witness    decides, persists, cosigns
    app        C2SP tlog-witness over HTTP    main       the process
"""

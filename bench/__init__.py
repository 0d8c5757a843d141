"""Every figure Sealgate publishes, as a command: `python -m bench` (see docs/bench.md).

    __main__      the command line          catalogue  names, budgets, verdicts (PURE)
    statistics    medians, ratios (PURE)    workload   prompts and answers (PURE)
    load          bounded, interleaved load on a server in another process
    children      those server processes    servers    what runs in them
    governed, streams, auditing, steps, decode   the figures themselves
    report        latest.json and the table machine    what it was measured on

Sets the TLS floor of the services before anything here can import grpc.
"""

import os

os.environ.setdefault("GRPC_SSL_CIPHER_SUITES", "ECDHE-RSA-AES256-GCM-SHA384")

"""What every test needs before grpc is imported: the TLS floor that services set in `main`."""

import os

os.environ.setdefault("GRPC_SSL_CIPHER_SUITES", "ECDHE-RSA-AES256-GCM-SHA384")

"""`python -m sealgate.cli` is `sealgate`."""

import sys

from sealgate.cli import main

sys.exit(main())

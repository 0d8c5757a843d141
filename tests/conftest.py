"""What every test needs before grpc is imported: the TLS floor that services set in `main`.

And where tests run: `make test` has a process for each of two cores. Folders whose tests share dear
things (an appliance, a mesh, a model) go to one of them as a whole, other tests file by file.
"""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("GRPC_SSL_CIPHER_SUITES", "ECDHE-RSA-AES256-GCM-SHA384")

# Another process may have the core just then: a slow example is no failure.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")

TESTS = Path(__file__).parent
WHOLE = {"console", "e2e", "inference", "keys", "mesh"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        place = item.path.relative_to(TESTS)
        group = place.parts[0] if place.parts[0] in WHOLE else str(place)
        item.add_marker(pytest.mark.xdist_group(group))

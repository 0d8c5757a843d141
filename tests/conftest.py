"""What every test needs before grpc is imported: the TLS floor that services set in `main`.

And where tests run: `make test` has a process for each of two cores. Folders whose tests share dear
things (an appliance, a mesh, a model) go to one of them as a whole, other tests file by file.
"""

import os
from pathlib import PurePosixPath

import pytest
import structlog
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

os.environ.setdefault("GRPC_SSL_CIPHER_SUITES", "ECDHE-RSA-AES256-GCM-SHA384")

# Another process may have the core just then: a slow example is no failure.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")

WHOLE = {"console", "e2e", "inference", "keys", "mesh"}


class Rooms(LoadScopeScheduling):
    def _split_scope(self, nodeid):
        file = nodeid.partition("::")[0]
        room = PurePosixPath(file).parts[1]
        return room if room in WHOLE else file


@pytest.hookimpl
def pytest_xdist_make_scheduler(config, log):
    return Rooms(config, log)


@pytest.fixture(autouse=True)
def logs_as_before():
    """A command that runs in a test has logs go to its own standard error, which ends with it."""
    before = structlog.is_configured()
    yield
    if not before:
        structlog.reset_defaults()

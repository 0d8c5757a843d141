import pytest

from tests.audit.world import MemoryLock, World


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.fixture
def memory_lock():
    return MemoryLock()

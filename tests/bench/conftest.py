import pytest

from bench.children import forget_runs


@pytest.fixture(scope="session", autouse=True)
def no_leftovers():
    yield
    forget_runs()

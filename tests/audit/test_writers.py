"""Short form of tests/audit/writers.py."""

from tests.audit.writers import run


async def test_two_writers_never_make_two_roots_of_one_size(tmp_path):
    found = await run(tmp_path, 200, 8)
    assert found["refused"] == 200
    # One of the two goes on, the other is closed; both are, if each met the other's checkpoint.
    assert found["ends"]["closed"] >= 8
    assert found["ends"]["closed"] + found["ends"].get("went on", 0) == 16

"""Call ids: UUIDv7 as others read them, in order of time, never twice."""

import time
import uuid

from meshkit.call_id import new_call_id


def test_it_is_a_uuid_of_version_7_with_the_time_in_front() -> None:
    before_ms = time.time_ns() // 1_000_000
    made = new_call_id()
    after_ms = time.time_ns() // 1_000_000

    read = uuid.UUID(bytes=made)
    assert read.version == 7
    assert read.variant == uuid.RFC_4122
    assert before_ms <= int.from_bytes(made[:6]) <= after_ms


def test_of_many_none_is_like_another_and_all_random_bits_vary() -> None:
    made = [new_call_id() for _ in range(2_000)]

    assert len(set(made)) == len(made)
    ones = zeros = 0
    for call_id in made:
        ones |= int.from_bytes(call_id[6:])
        zeros |= ~int.from_bytes(call_id[6:])
    both = ones & zeros & (1 << 80) - 1
    assert both == 0x0FFF_3FFF_FFFF_FFFF_FFFF  # all but version and variant

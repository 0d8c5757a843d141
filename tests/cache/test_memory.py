"""The in-process tier against a plain model of it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from cache.memory import ENTRY_OVERHEAD_BYTES, MemoryTier

KEYS = st.binary(min_size=1, max_size=1)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.integers(0, 900)),
        st.tuples(st.just("get"), KEYS, st.none()),
        st.tuples(st.just("purge"), st.sampled_from("ab"), st.none()),
        st.tuples(st.just("wait"), st.floats(0, 8), st.none()),
    ),
    max_size=60,
)


def tenant_of(key: bytes) -> str:
    return "ab"[key[0] % 2]


@settings(max_examples=150)
@given(STEPS)
def test_it_is_an_lru_with_a_byte_bound_and_expiry(steps) -> None:
    most, ttl_s, now_s = 4_000, 10.0, 0.0
    tier = MemoryTier(bytes_max=most, ttl_s=ttl_s, jitter=0)
    model: dict[bytes, tuple[int, float]] = {}  # in order of use

    def room() -> int:
        return sum(size + ENTRY_OVERHEAD_BYTES for size, _ in model.values())

    for what, which, size in steps:
        if what == "wait":
            now_s += which
        elif what == "purge":
            doomed = [key for key in model if tenant_of(key) == which]
            # The tier may have swept what is over; the count never exceeds the model's.
            live = [key for key in doomed if now_s < model[key][1]]
            assert len(live) <= tier.purge(which) <= len(doomed)
            for key in doomed:
                del model[key]
        elif what == "put":
            # Which of those that are over were swept already depends on the second; ask for all,
            # so that both sides agree on who is left.
            over = [key for key, (_, over_at_s) in model.items() if now_s >= over_at_s]
            for key in over:
                assert tier.get(key, now_s=now_s) is None
                del model[key]
            model.pop(which, None)
            assert tier.put(which, bytes(size), tenant=tenant_of(which), now_s=now_s)
            model[which] = (size, now_s + ttl_s)
            while room() > most:
                del model[next(iter(model))]
        else:
            found = tier.get(which, now_s=now_s)
            kept = model.get(which)
            if kept is None or now_s >= kept[1]:
                assert found is None
                model.pop(which, None)
            else:
                assert len(found) == kept[0]
                model[which] = model.pop(which)
        assert tier.size_bytes <= most
        assert tier.size_bytes == sum(
            len(entry.value) + ENTRY_OVERHEAD_BYTES for entry in tier._entries.values()
        )


def test_a_value_larger_than_the_tier_is_not_kept() -> None:
    tier = MemoryTier(bytes_max=1_000, ttl_s=10, jitter=0)
    tier.put(b"k", b"old", tenant="a", now_s=0)

    assert not tier.put(b"k", bytes(1_000), tenant="a", now_s=0)
    assert tier.get(b"k", now_s=0) is None
    assert tier.size_bytes == 0


def test_what_is_over_goes_though_nobody_asks_for_it() -> None:
    tier = MemoryTier(bytes_max=100_000, ttl_s=10, jitter=0)
    for n in range(20):
        tier.put(bytes([n]), b"v", tenant="a", now_s=0)
    tier.put(b"later", b"v", tenant="a", now_s=11)

    assert len(tier) == 1


@given(st.floats(0, 0.9))
def test_jitter_only_shortens(jitter: float) -> None:
    tier = MemoryTier(bytes_max=10_000, ttl_s=100, jitter=jitter)
    tier.put(b"k", b"v", tenant="a", now_s=0)

    assert tier.get(b"k", now_s=100 * (1 - jitter) - 0.001) == b"v"
    assert tier.get(b"k", now_s=100) is None


def test_entries_made_together_do_not_end_together() -> None:
    tier = MemoryTier(bytes_max=1 << 20, ttl_s=100, jitter=0.5)
    for n in range(200):
        tier.put(bytes([n]), b"v", tenant="a", now_s=0)
    alive = sum(tier.get(bytes([n]), now_s=75) is not None for n in range(200))

    assert 50 < alive < 150

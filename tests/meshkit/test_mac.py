"""meshkit.mac against the standard library's HMAC."""

import hmac

from hypothesis import given, settings
from hypothesis import strategies as st

from meshkit.mac import hmac_sha256, hmac_sha512


@settings(max_examples=100, deadline=None)
@given(key=st.binary(max_size=200), text=st.binary(max_size=400))
def test_equals_the_standard_hmac_for_keys_of_any_length(key, text):
    assert hmac_sha256(key, text) == hmac.digest(key, text, "sha256")
    assert hmac_sha512(key, text) == hmac.digest(key, text, "sha512")


def test_keys_at_the_edge_of_a_block():
    for size in (0, 63, 64, 65, 127, 128, 129):
        key = bytes(range(256))[:size]
        assert hmac_sha256(key, b"text") == hmac.digest(key, b"text", "sha256")
        assert hmac_sha512(key, b"text") == hmac.digest(key, b"text", "sha512")

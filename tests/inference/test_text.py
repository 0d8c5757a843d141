"""Any text, cut anywhere: whole characters come out, and nothing of a stop sequence."""

from hypothesis import given, settings
from hypothesis import strategies as st

from inference.text import StopScan, Utf8


@st.composite
def cuts(draw: st.DrawFn, of):
    whole = draw(of)
    at = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    return whole, [whole[a:b] for a, b in zip([0, *at], [*at, len(whole)], strict=True)]


@given(cuts(st.text().map(str.encode)))
def test_characters_come_whole_however_their_bytes_are_cut(cut) -> None:
    whole, parts = cut
    decoder = Utf8()
    pieces = [decoder.feed(part) for part in parts]

    assert "".join(pieces) == whole.decode()


@given(cuts(st.binary()))
def test_bytes_that_are_no_text_never_raise(cut) -> None:
    whole, parts = cut
    decoder = Utf8()
    text = "".join(decoder.feed(part) for part in parts)

    assert whole.decode(errors="replace").startswith(text)


def test_an_unfinished_character_is_not_shown() -> None:
    decoder = Utf8()

    assert decoder.feed("好😀".encode()[:-1]) == "好"


narrow = st.text("ab.", max_size=14)


def expected(text: str, stops) -> tuple[str, bool]:
    """The truth: cut where the first stop sequence begins."""
    found = [text.find(stop) for stop in stops if stop and stop in text]
    return (text[: min(found)], True) if found else (text, False)


@settings(max_examples=400)
@given(cuts(narrow), st.lists(st.text("ab.", max_size=4), max_size=3))
def test_text_ends_before_the_first_stop_sequence(cut, stops) -> None:
    whole, parts = cut
    scan = StopScan(tuple(stops))
    shown, stopped = "", False
    for part in parts:
        piece, stopped = scan.feed(part)
        shown += piece
        assert expected(whole, stops)[0].startswith(shown)
        if stopped:
            break
    if not stopped:
        shown += scan.flush()

    assert shown == expected(whole, stops)[0]


@settings(max_examples=200)
@given(cuts(narrow), st.text("ab.", min_size=1, max_size=4))
def test_no_more_is_held_back_than_may_become_a_stop_sequence(cut, stop) -> None:
    scan = StopScan((stop,))
    seen = shown = ""
    for part in cut[1]:
        piece, stopped = scan.feed(part)
        seen, shown = seen + part, shown + piece
        if stopped:
            return
        held = seen[len(shown) :]
        assert held == "" or stop.startswith(held)


def test_a_longer_sequence_that_began_earlier_may_still_win() -> None:
    scan = StopScan(("b", "abc"))

    assert scan.feed("xab") == ("x", False)
    assert scan.feed("c") == ("", True)


def test_a_longer_sequence_that_fails_leaves_the_shorter() -> None:
    scan = StopScan(("b", "abc"))
    scan.feed("xab")

    assert scan.feed("d") == ("a", True)

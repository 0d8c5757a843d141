"""The streaming guarantee: what is found and released depends on the text, not on its chunks."""

import runpy
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compliance import stream
from compliance.policy import default_policy, parse_policy
from compliance.scanner import Scanner, findings_of
from compliance.service import ComplianceService
from compliance.stream import CONTEXT, HOLDBACK_MAX, Kind, Segmenter
from compliance.transform import masked
from meshkit.contract import Direction, Released
from meshkit.reading import opened


@pytest.fixture
def parts(scanner, mac_keys, scope, examples, pem):
    """All that the properties below need, in one."""
    return SimpleNamespace(
        scanner=scanner, mac_keys=mac_keys, scope=scope, examples=examples, pem=pem
    )


SLOW_OK = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]

_SET = runpy.run_path(str(Path(__file__).with_name("adversarial.py")))
DISGUISED = [record["text"] for record in _SET["records"]()][::7]

PIECES = [
    *(
        "Dear Ada Lovelace, ",
        "John Smith ",
        "张伟住在北京。",
        "李娜说：“好”！",
        "the quick brown fox ",
    ),
    *(
        "and then we went home. ",
        "It was late! ",
        "\n",
        "\n\n",
        " ",
        ", ",
        "，",
        "。",
        "…",
        "\r\n",
        "\t",
    ),
    *(
        "version 2.0.1 ",
        "1 2 3 ",
        "12345678 ",
        "0" * 30,
        "x" * 40,
        "-----",
        "a-b_c/d",
        "é",
        "👩‍👩‍👧",
        "\u200b",
    ),
    *(
        "-----BEGIN ",
        "PRIVATE KEY",
        "-----END ",
        "Qw3/",
        "e\u0301",
        "４１１１",
        "١٢٣",
        "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    ),
]


@st.composite
def texts(draw, planted):
    """Prose in two scripts with planted values, block marks, and nonsense between them."""
    examples, pem = planted.examples, planted.pem
    values = [*(text for text, _ in examples.values()), *(value for _, value in examples.values())]
    blocks = [pem, pem[:60], "aB3" * 100, "Zz9+" * 90 + "==", "A" * 300]
    # No place to cut for longer than a segment may be.
    uncut = ["4111111111111111:" * 70, "XY:" * 250 + "aB3x" * 100, "ABCDE FGHIJ " * 99, "张" * 1100]
    part = st.one_of(
        st.sampled_from(values),
        st.sampled_from(DISGUISED),
        st.sampled_from(PIECES),
        st.sampled_from(PIECES),
        st.text(max_size=12),
        st.text(alphabet="0123456789 -.", max_size=24),
    )
    parts = draw(st.lists(part, max_size=30))
    if draw(st.integers(0, 4)) == 0:
        parts.insert(draw(st.integers(0, len(parts))), draw(st.sampled_from(blocks)))
    if draw(st.integers(0, 4)) == 0:
        parts.insert(draw(st.integers(0, len(parts))), draw(st.sampled_from(uncut)))
    if draw(st.integers(0, 9)) == 0:
        parts *= 12
    text = "".join(parts)
    return text.encode("utf-8", "replace").decode()


def chunked(draw, text):
    """Split a text at random places: mostly small pieces, as a model gives them."""
    size = draw(st.sampled_from([1, 3, 4, 17, 200]))
    chunks, at = [], 0
    while at < len(text):
        step = draw(st.integers(1, size)) if len(text) < 400 else size
        chunks.append(text[at : at + step])
        at += step
    return chunks


def streamed(scanner, chunks):
    segmenter = scanner.segmenter()
    out = [window for chunk in chunks for window in segmenter.feed(chunk)]
    return [*out, *segmenter.close()]


def merged(windows):
    """Windows with neighbouring REST pieces put together: those do depend on chunks."""
    out = []
    for window in windows:
        if window.kind is Kind.REST and out and out[-1][0] is Kind.REST:
            out[-1] = (Kind.REST, out[-1][1], window.end, "", 0)
        else:
            out.append((window.kind, window.start, window.end, window.text, window.core))
    return out


@given(data=st.data())
@settings(max_examples=120, deadline=None, suppress_health_check=SLOW_OK)
def test_windows_do_not_depend_on_chunks(data, parts):
    text = data.draw(texts(parts))
    whole = merged(parts.scanner.windows(text))

    assert merged(streamed(parts.scanner, chunked(data.draw, text))) == whole
    assert merged(streamed(parts.scanner, list(text))) == whole


@given(data=st.data())
@settings(max_examples=50, deadline=None, suppress_health_check=SLOW_OK)
def test_windows_tile_the_text_and_context_is_what_stood_before(data, parts):
    text = data.draw(texts(parts))
    at = 0
    for window in parts.scanner.windows(text):
        assert window.start == at
        assert window.end > window.start
        at = window.end
        if window.kind is not Kind.REST:
            assert text[window.start - window.core : window.end] == window.text
            assert window.core <= CONTEXT
            assert window.end - window.start <= HOLDBACK_MAX
    assert at == len(text)


@given(data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=SLOW_OK)
def test_no_more_is_held_than_promised(data, parts):
    text = data.draw(texts(parts))
    segmenter = parts.scanner.segmenter()
    for character in text:
        segmenter.feed(character)
        assert segmenter.held <= HOLDBACK_MAX


@given(data=st.data())
@settings(max_examples=50, deadline=None, suppress_health_check=SLOW_OK)
def test_less_than_is_wanted_completes_no_segment(data, parts):
    segmenter = parts.scanner.segmenter()
    for chunk in chunked(data.draw, data.draw(texts(parts))):
        wants = segmenter.wants
        ready = segmenter.feed(chunk)
        assert wants >= 1
        assert not ready or len(chunk) >= wants


async def answer_of(service, scope, chunks):
    async def deltas():
        for chunk in chunks:
            yield chunk

    *pieces, last = [item async for item in service.release(scope, deltas())]
    assert isinstance(last, Released)
    assert all(isinstance(piece, str) and piece for piece in pieces)
    assert "".join(pieces) == last.text
    return last


POLICIES = {
    "default": default_policy(),
    "mask all": parse_policy("{version: 1, name: m, default: {prompt: mask, answer: mask}}"),
    "block cards": parse_policy(
        "{version: 1, name: b, default: {prompt: mask, answer: mask},"
        " types: {CREDIT_CARD: {answer: block}, PHONE: {answer: allow}}}"
    ),
}


def service_of(scanner, mac_keys, policy):
    return ComplianceService(
        Scanner(scanner.engine, policy, scanner.names),
        lambda: mac_keys,
        memo_entries_max=0,
        text_chars_max=1_000_000,
    )


def run(coroutine):
    """Drive a coroutine that awaits nothing but sleep(0)."""
    try:
        while True:
            coroutine.send(None)
    except StopIteration as stop:
        return stop.value


@given(data=st.data())
@settings(max_examples=70, deadline=None, suppress_health_check=SLOW_OK)
def test_any_chunking_releases_the_same(data, parts):
    text = data.draw(texts(parts))
    policy = POLICIES[data.draw(st.sampled_from(sorted(POLICIES)))]
    service = service_of(parts.scanner, parts.mac_keys, policy)

    whole = run(answer_of(service, parts.scope, [text] if text else []))
    split = run(answer_of(service, parts.scope, chunked(data.draw, text)))
    single = run(answer_of(service, parts.scope, list(text)))

    assert split == whole
    assert single == whole


@given(data=st.data())
@settings(max_examples=50, deadline=None, suppress_health_check=SLOW_OK)
def test_who_hands_over_what_is_wanted_gets_each_piece_as_soon_as_who_hands_over_all(data, parts):
    text = data.draw(texts(parts))
    policy = POLICIES[data.draw(st.sampled_from(sorted(POLICIES)))]
    service = service_of(parts.scanner, parts.mac_keys, policy)

    async def pieces(*, gathering):
        """What is released, and how much had been said by then."""
        meeting, said, out = opened(), 0, []

        async def deltas():
            nonlocal said
            held = ""
            for character in text:
                held, said = held + character, said + 1
                if not gathering or len(held) >= meeting.characters:
                    yield held
                    held = ""
            if held:
                yield held

        async for item in service.release(parts.scope, deltas()):
            out.append((said, item))
        return out

    assert run(pieces(gathering=True)) == run(pieces(gathering=False))


@given(data=st.data())
@settings(max_examples=50, deadline=None, suppress_health_check=SLOW_OK)
def test_a_stream_is_released_as_the_whole_text_is_masked(data, parts):
    text = data.draw(texts(parts))
    policy = POLICIES["mask all"]
    service = service_of(parts.scanner, parts.mac_keys, policy)
    windows = parts.scanner.windows(text)
    masking = Scanner(parts.scanner.engine, policy)
    findings = findings_of(windows, run(masking.scan(windows, Direction.ANSWER)))

    released = run(answer_of(service, parts.scope, list(text)))

    assert released.text == masked(text, findings, policy, Direction.ANSWER)
    assert sum(c.count for c in released.verdict.counts) == len(findings)


@pytest.mark.parametrize("size", [1, 2, 5, 13, 64])
async def test_names_obey_it_too(size, naming_scanner, mac_keys, scope):
    text = (
        "Ada Lovelace met Charles Babbage in London, and Mr. Samuel L. Jackson wrote to them from"
        " 12 Baker Street. 张伟和李娜住在四川省成都市武侯区，王芳在北京大学工作，"
        "陈明的电话是13812345678。"
        "Later Maria Garcia Lopez and Jean-Luc Picard came by, with Anna\nKarenina and Dr. Müller! "
    ) * 3
    service = service_of(naming_scanner, mac_keys, POLICIES["mask all"])

    whole = await answer_of(service, scope, [text])
    split = await answer_of(service, scope, [text[i : i + size] for i in range(0, len(text), size)])

    assert split == whole
    assert "Lovelace" not in whole.text
    assert "张伟" not in whole.text


@pytest.mark.parametrize("at", range(1, 19))
async def test_a_value_split_over_two_chunks_does_not_leak(at, scanner, mac_keys, scope):
    value = "4111 1111 1111 1111"
    service = service_of(scanner, mac_keys, POLICIES["mask all"])

    released = await answer_of(service, scope, [f"My card is {value[:at]}", f"{value[at:]} today."])

    assert released.text == "My card is [CREDIT_CARD] today."


async def test_nothing_of_a_blocked_segment_leaves(scanner, mac_keys, scope):
    before = "This first sentence is long enough to be let out by itself. "
    service = service_of(scanner, mac_keys, POLICIES["block cards"])

    released = await answer_of(
        service, scope, list(f"{before}Then the card 4111 1111 1111 1111 came. And more.")
    )

    assert released.blocked
    assert released.text == before
    assert [c.action for c in released.verdict.counts] == ["block"]


async def test_a_private_key_is_masked_from_its_mark_to_its_end(scanner, mac_keys, scope, pem):
    service = service_of(scanner, mac_keys, POLICIES["mask all"])

    closed = await answer_of(service, scope, list(f"Key: {pem} Done."))
    cut_off = await answer_of(service, scope, list(f"Key: {pem[:70]}"))

    assert closed.text == "Key: [SECRET] Done."
    assert cut_off.text == "Key: [SECRET]"


async def test_a_long_base64_run_is_masked_from_its_start(scanner, mac_keys, scope):
    service = service_of(scanner, mac_keys, POLICIES["mask all"])

    released = await answer_of(service, scope, list("See " + "aB3x" * 500 + "== end"))

    assert released.text == "See [SECRET] end"


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "1 ",
        "aB3",
        "4111 1111 ",
        "\n",
        ". ",
        "word ",
        "，",
        "张",
        "@a.",
        "http://",
        "-----BEGIN ",
        "é",
        "\u200b",
    ],
)
def test_time_is_linear_in_the_text(unit, scanner):
    def seconds(size):
        text = (unit * size)[:size]
        started = time.thread_time()
        windows = scanner.windows(text)
        run(scanner.scan(windows, Direction.PROMPT))
        return time.thread_time() - started

    seconds(2_000)
    small, large = min(seconds(5_000) for _ in range(3)), seconds(50_000)

    assert large < 40 * max(small, 0.002)


def test_feeding_a_token_is_cheap(scanner):
    prose = "the people of the town were going to the market and came back late in the evening "
    segmenter = scanner.segmenter()
    tokens = [prose[i : i + 4] for i in range(0, len(prose), 4)] * 50
    started = time.thread_time()
    for token in tokens:
        segmenter.feed(token)

    assert (time.thread_time() - started) / len(tokens) < 50e-6


def test_a_forced_cut_goes_through_no_match(scanner):
    # One word after another without any place to cut, and a card across the 512th character.
    text = "ABC" * 165 + "XYZ:4111111111111111:" + "DEF" * 300
    cuts = {window.end for window in scanner.windows(text)}
    start = text.index("4111")

    assert not cuts & set(range(start + 1, start + 16))


@pytest.mark.parametrize(
    "value",
    [
        "4111 1111 \n 1111 1111",
        "**4111**\n\n> **1111** 1111 1111",
        "138123\r\n45678",
        "ada@example。org",
    ],
)
@pytest.mark.parametrize("before", range(20, 200, 9))
def test_no_natural_cut_goes_through_a_disguised_value(before, value, scanner):
    prose = ("we are to see to it that all of it was " * 6)[:before] + " "
    text = (
        f"{prose}{value} and then we go on with it, as we did on the other days of the week. " * 2
    )
    start = text.index(value)

    cuts = {window.end for window in scanner.windows(text)}
    assert not cuts & set(range(start + 1, start + len(value)))


def test_the_segmenter_asks_nothing_of_an_empty_text():
    segmenter = Segmenter(lambda _text: ())

    assert segmenter.feed("") == []
    assert segmenter.close() == []
    assert stream.windows("", lambda _text: ()) == []


def test_a_cut_that_was_found_waits_for_its_lookahead_and_no_longer():
    segmenter = Segmenter(lambda _text: ())
    sentence = "The quick brown fox jumps over the lazy dogs of the old town. "

    assert segmenter.feed(f"{sentence}A") == []
    assert segmenter.wants == stream.LOOKAHEAD - 1
    assert [window.text for window in segmenter.feed("nd then")] == [sentence]

"""The search index against a list that is looked through, and what becomes of its file."""

import sqlite3
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import audit.search.finding
import audit.search.index
import audit.search.query
import audit.search.words
from audit.keys.pseudonyms import DerivedKeys, Pseudonyms
from audit.records.events import LogPart, event_bytes, leaf_bytes
from audit.search.finding import Finder, RecordFinder
from audit.search.index import SCHEMA_VERSION, Index
from audit.search.query import IndexRow, Query, matches
from audit.search.questions import Question, position_in, token_of
from audit.search.rows import row_of, row_of_event, who_of
from meshkit.contract import Direction, FindingCount, Phase, Reason, Refusal
from tests.audit.world import make_event, make_intent, make_outcome

PHASES = tuple(Phase)
TIME_US = 1_795_000_000_000_000


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    """Blocks of eight entries: a few dozen rows then make many."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (
            audit.search.query,
            audit.search.index,
            audit.search.words,
            audit.search.finding,
        ):
            patch.setattr(module, "BLOCK", 8)
        yield


def name(kind, number):
    """A pseudonym."""
    return sha256(f"{kind}{number}".encode()).hexdigest()[:32]


TENANTS = [name("tenant", n) for n in range(3)]
VERDICTS = [
    (),
    (("EMAIL", "mask"),),
    (("EMAIL", "mask"), ("PERSON", "block")),
    (("PERSON", "mask"),),
]


@st.composite
def rows(draw, most=60):
    made = []
    few = st.integers(0, 2)
    for number in range(draw(st.integers(0, most))):
        tenant = draw(st.sampled_from(["", *TENANTS]))
        made.append(
            IndexRow(
                number,
                number.to_bytes(16),
                draw(st.sampled_from(PHASES)),
                tenant,
                bytes([draw(few)]) * 16,
                TIME_US,
                TIME_US + draw(st.integers(-20, 20)),
                draw(st.sampled_from(["chat", "log.read"])),
                draw(st.sampled_from(["", "released", "BLOCKED"])),
                draw(st.sampled_from(["", "m1", "m2"])),
                tenant and name("actor" + tenant, draw(few)),
                tenant and draw(st.sampled_from(["", name("user" + tenant, 0)])),
                tenant and draw(st.sampled_from(["", name("subject" + tenant, draw(few))])),
                draw(st.sampled_from(VERDICTS)),
            )
        )
    return made


@st.composite
def queries(draw):
    tenant = draw(st.sampled_from(TENANTS))
    maybe = lambda *some: draw(st.sampled_from(["", *some]))  # noqa: E731
    people = lambda kind: draw(  # noqa: E731
        st.sampled_from([None, None, (), *[(name(kind + tenant, n),) for n in range(3)]])
    )
    return Query(
        tenant=tenant,
        since_us=draw(st.sampled_from([0, TIME_US - 5, TIME_US + 5])),
        until_us=draw(st.sampled_from([None, TIME_US, TIME_US + 15])),
        actors=people("actor"),
        users=people("user"),
        subjects=draw(
            st.sampled_from([None, (name("subject" + tenant, 0), name("subject" + tenant, 1))])
        ),
        model=maybe("m1", "m3"),
        trace_id=draw(st.sampled_from([b"", bytes([1]) * 16])),
        verdict_type=maybe("EMAIL", "PERSON"),
        verdict_action=maybe("mask", "block"),
        outcome=maybe("released", "BLOCKED"),
        action=maybe("chat"),
        phase=draw(st.sampled_from([None, *PHASES])),
        newest_first=draw(st.booleans()),
        limit=draw(st.sampled_from([1, 3, 100])),
    )


def in_order(query, found):
    return sorted((row.number for row in found), reverse=query.newest_first)


@pytest.fixture
def index(tmp_path):
    made = Index(tmp_path / "index.sqlite", "origin")
    yield made
    made.close()


@settings(max_examples=15, deadline=None)
@given(
    all_rows=rows(),
    asked=st.lists(queries(), min_size=6, max_size=6),
    cut=st.integers(0, 60),
    scan=st.integers(1, 40),
)
def test_a_search_finds_what_looking_through_all_finds(
    tmp_path_factory, all_rows, asked, cut, scan
):
    """Part in the index and part still on the way there; page after page, each within bounds."""
    index = Index(tmp_path_factory.mktemp("index") / "i", "o")
    try:
        index.add(all_rows[: cut // 2], {})
        index.add(all_rows[cut // 2 : cut], {})
        # Some are in both, as while they are being put in.
        late = {row.number: row for row in all_rows[max(0, cut - 2) :]}
        finder = Finder(index, late if all_rows[cut:] else {})
        for query in asked:
            expected = in_order(query, [row for row in all_rows if matches(query, row)])
            assert [hit.number for hit in finder.hits(query)] == expected[: query.limit]
            assert paged(finder, query, scan) == expected
    finally:
        index.close()


@pytest.mark.parametrize("newest_first", [True, False])
def test_entries_that_have_just_come_into_the_index_are_on_one_page_alone(index, newest_first):
    rows = [one_row(number) for number in range(40)]
    index.add(rows, {})
    query = Query(tenant=TENANTS[0], newest_first=newest_first)
    pending = {row.number: row for row in rows}
    assert paged(Finder(index, pending), query, 8) == in_order(query, rows)


def paged(finder, query, scan):
    pages, before = [], None
    while True:
        hits, position = finder.some(query, scan_max=scan)
        assert len(hits) <= query.limit
        pages += [hit.number for hit in hits]
        if position is None:
            return pages
        assert position != before, "a page that ends where it began"
        query, before = replace(query, after=position), position


def event(**fields):
    counts = tuple(
        FindingCount(direction=direction, type=kind, subtype="", action=action, count=2)
        for direction, kind, action in (
            (Direction.PROMPT, "EMAIL", "mask"),
            (Direction.ANSWER, "EMAIL", "mask"),
            (Direction.ANSWER, "PERSON", "block"),
        )
    )
    return make_outcome(counts=counts, subject="patient 7", **fields)


@pytest.mark.parametrize(
    "made",
    [event(), make_intent(), make_event(tenant="", actor=None), make_event(actor=None)],
    ids=["outcome", "intent", "system", "nobody"],
)
def test_an_event_and_its_leaf_make_the_same_row(made):
    """Else an index made again from the log would find other things than the one that was lost."""
    names = Pseudonyms(bytes(32), DerivedKeys(bytes(32))).at_hand(made)
    log = LogPart(producer="spiffe://x/service/gateway", received_us=TIME_US, retention="standard")
    leaf = leaf_bytes(event_bytes(made, names), log)
    row = row_of_event(7, made, who_of(made, names), TIME_US)
    assert row_of(7, leaf) == row
    assert len(row.verdicts) == (2 if made.counts else 0)


def one_row(number=0, tenant=TENANTS[0], **fields):
    row = IndexRow(number, number.to_bytes(16), Phase.NOTE, tenant, b"t" * 16, TIME_US, TIME_US)
    return row._replace(**fields)


def test_pseudonyms_that_begin_alike_are_told_apart_by_the_leaf(index):
    """The index keeps 8 bytes of a pseudonym; another tenant's record must not leave for that."""
    mine, other = "0" * 15 + "1" + "a" * 16, "0" * 15 + "1" + "b" * 16
    names = Pseudonyms(bytes(32), DerivedKeys(bytes(32)))
    made = make_event()
    log = LogPart(producer="spiffe://x/service/gateway", received_us=TIME_US, retention="standard")
    leaf = leaf_bytes(event_bytes(made, names.at_hand(made)), log)
    tenant = names.tenant("acme")
    leaves = [leaf.replace(tenant.encode(), each.encode()) for each in (mine, other)]
    index.add([row_of(number, each) for number, each in enumerate(leaves[:1])], {})
    index.add([row_of(1, leaves[1])._replace(call_id=b"c" * 16)], {})
    finder = RecordFinder(Finder(index, {}), leaves.__getitem__)
    assert len(Finder(index, {}).hits(Query(tenant=mine))) == 2
    assert [record.index for record in finder.all(Query(tenant=mine))] == [0]
    page, more = finder.page(Query(tenant=other), scan_max=100, bytes_max=10**6)
    assert ([record.index for record in page], more) == ([1], None)


def test_a_rolled_back_batch_leaves_no_words_behind(index):
    index.add([one_row(0)], {})
    with pytest.raises(sqlite3.IntegrityError):
        index.add(
            [one_row(1, model="rare"), one_row(2, call_id=one_row(0).call_id, model="rare")], {}
        )
    assert index.size == 1
    index.add([one_row(1, model="rare", verdicts=VERDICTS[2])], {})
    assert [hit.number for hit in index.search(Query(tenant=TENANTS[0], model="rare"))] == [1]
    found = index.search(Query(tenant=TENANTS[0], verdict_type="PERSON", verdict_action="block"))
    assert [hit.number for hit in found] == [1]


def test_a_file_of_another_schema_or_log_is_begun_anew(tmp_path):
    path = tmp_path / "index.sqlite"
    for spoil in (
        "PRAGMA user_version = 1",
        "UPDATE meta SET origin = 'another'",
        "DELETE FROM meta",
        f"PRAGMA user_version = {SCHEMA_VERSION + 1}",
    ):
        index = Index(path, "origin")
        index.add([one_row()], {})
        index.close()
        again = Index(path, "origin")
        assert again.size == 1
        again.close()
        with sqlite3.connect(path) as file:
            file.execute(spoil)
        file.close()
        fresh = Index(path, "origin")
        assert (fresh.size, fresh.search(Query(tenant=TENANTS[0]))) == (0, [])
        fresh.close()
        path.unlink()


def test_an_index_of_before_there_was_search_is_begun_anew(tmp_path):
    path = tmp_path / "index.sqlite"
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE calls (call_id BLOB, number INTEGER)")
        file.execute("CREATE TABLE meta (one INTEGER, origin TEXT, size INTEGER)")
        file.execute("INSERT INTO meta VALUES (1, 'origin', 5)")
    file.close()
    index = Index(path, "origin")
    assert index.size == 0
    index.close()


async def test_an_index_that_was_dropped_finds_the_same_again(world):
    async with world.open() as log:
        for number in range(20):
            await log.append(event(tenant="acme" if number % 2 else "globex"))
        question = Question(subject="patient 7", verdict_type="PERSON")
        before = await log.search("acme", question)
    for path in world.data.glob("index.sqlite*"):
        path.unlink()
    async with world.open() as log:
        assert await log.search("acme", question) == before
        assert len(before.records) == 10


def test_a_token_is_bound_to_question_and_tenant():
    question = Question(model="m")
    token = token_of(question, "acme", 41)
    assert position_in(question, "acme", token) == 41
    assert position_in(question, "acme", "") is None
    for asked, tenant, given_token in (
        (question, "globex", token),
        (Question(model="n"), "acme", token),
        (Question(model="m", newest_first=False), "acme", token),
        (question, "acme", token[:-2]),
        (question, "acme", token[:3] + ("A" if token[3] != "A" else "B") + token[4:]),
        (question, "acme", "é"),
        (question, "acme", token_of(question, "acme", 2**63)),
    ):
        with pytest.raises(Refusal, match="INVALID_FIELD") as refused:
            position_in(asked, tenant, given_token)
        assert refused.value.field == "page_token"


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (Question(since_us=-1), "since"),
        (Question(since_us=2**63), "since"),
        (Question(since_us=5, until_us=5), "until"),
        (Question(until_us=2**60), "until"),
        (Question(trace_id=b"short"), "trace_id"),
        (Question(trace_id=bytes(16)), "trace_id"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_its_name(asked, field):
    with pytest.raises(Refusal) as refused:
        asked.check()
    assert (refused.value.reason, refused.value.field) == (Reason.INVALID_FIELD, field)

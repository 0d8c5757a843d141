"""What an engine is told of a caller: out of its identity, and nothing that it could choose."""

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.contexts import Contexts
from inference.engines.base import ANONYMOUS
from inference.engines.null import NullEngine
from inference.service import InferenceService
from meshkit.contract import Connection, Message, Parameters, Role, Scope, TraceContext
from meshkit.deadline import Deadline
from meshkit.request import RequestContext, with_context

TRACE = TraceContext(trace_id=b"t" * 16, span_id=b"s" * 8)
names = st.text(max_size=4)


def scope_of(tenant: str, principal: str, **others) -> Scope:
    told = {"call_id": b"c" * 16, "trace": TRACE} | others
    return Scope(tenant=tenant, principal=principal, **told)


@given(names, names, names, names)
def test_salts_are_equal_for_equal_identities_alone(tenant, principal, other, another) -> None:
    contexts = Contexts()
    one, two = scope_of(tenant, principal), scope_of(other, another)

    same = (tenant, principal) == (other, another)
    assert (contexts.of(one).salt == contexts.of(two).salt) == same


def test_nothing_that_a_caller_may_choose_is_in_the_salt() -> None:
    contexts = Contexts()
    plain = scope_of("acme", "app")
    chosen = replace(plain, call_id=b"d" * 16, session="s-1", subject="patient-7")

    assert contexts.of(chosen).salt == contexts.of(plain).salt
    assert len(contexts.of(plain).salt) == 32


def test_another_process_makes_other_salts() -> None:
    asked = scope_of("acme", "app")

    assert Contexts().of(asked).salt != Contexts().of(asked).salt


@pytest.mark.parametrize(("share", "equal"), [("principal", False), ("tenant", True)])
def test_colleagues_share_a_salt_only_where_an_operator_says_so(share, equal) -> None:
    contexts = Contexts(share=share)
    ada, bob = (contexts.of(scope_of("acme", who)).salt for who in ("app#ada", "app#bob"))
    stranger = contexts.of(scope_of("globex", "app#ada")).salt

    assert (ada == bob) == equal
    assert stranger not in {ada, bob}
    assert b"" not in {ada, bob, stranger}


def test_nobody_shares_where_an_operator_says_so() -> None:
    assert Contexts(share="nobody").of(scope_of("acme", "app")).salt == b""


def test_priorities_are_the_tenants() -> None:
    contexts = Contexts(priorities={"acme": 3})

    assert contexts.of(scope_of("acme", "app")).priority == 3
    assert contexts.of(scope_of("globex", "app")).priority == 0


class Listening(NullEngine):
    """Remembers what it was told of its callers."""

    def __init__(self) -> None:
        super().__init__("hello")
        self.told = []

    async def generate(self, messages, parameters, *, context=ANONYMOUS):
        self.told.append(context)
        async for item in super().generate(messages, parameters, context=context):
            yield item


async def test_the_service_tells_the_engine_who_asks_and_until_when(scope, make_screened) -> None:
    engine = Listening()
    service = InferenceService((engine,), verify=lambda *_: True)
    prompt = make_screened((Message(Role.USER, "hi"),))
    deadline = Deadline(time.monotonic() + 60)
    for given_deadline in (False, True):
        if given_deadline:
            with_context(
                RequestContext(
                    method="/m",
                    deadline=deadline,
                    trace=TRACE,
                    connection=Connection(),
                    identity=None,
                )
            )
        async for _ in service.generate(scope, "null", prompt, Parameters()):
            pass

    assert [context.deadline_s for context in engine.told] == [None, deadline.at_s]
    assert engine.told[0].salt == engine.told[1].salt != b""

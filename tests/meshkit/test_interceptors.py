import asyncio
import io
import json
import time

import grpc
import pytest
import structlog
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from meshkit.contract import Reason, Refusal
from meshkit.counters import counters
from meshkit.identity import ServiceIdentity, TenantIdentity
from meshkit.interceptors import RequestContext, _Method, current
from meshkit.logs import configure_logging
from meshkit.status import from_rpc_error
from meshkit.telemetry import Telemetry, step, telemetry
from sealgate.v1 import common_pb2

CANARY = "canary-ada@example.org"


@pytest.fixture
def logged():
    """What this process logs, structlog's and the grpc library's, while a test runs."""
    out = io.StringIO()
    configure_logging(stream=out, strict=True)
    yield out
    structlog.reset_defaults()


class Four:
    """A service with all four kinds of RPC, and both ways to write a stream."""

    def __init__(self, behaviour):
        self.behaviour = behaviour
        self.closed = asyncio.Event()

    async def unary(self, request, context):
        return await self.behaviour(request, context)

    async def collect(self, requests, context):
        return await self.behaviour([request async for request in requests], context)

    async def yields(self, request, context):
        try:
            yield common_pb2.Message(content="one")
            yield await self.behaviour(request, context)
        finally:
            self.closed.set()

    async def writes(self, request, context):
        await context.write(common_pb2.Message(content="one"))
        await context.write(await self.behaviour(request, context))

    async def both(self, requests, context):
        async for request in requests:
            yield await self.behaviour(request, context)

    def add_to(self, server):
        codec = {
            "request_deserializer": common_pb2.Message.FromString,
            "response_serializer": common_pb2.Message.SerializeToString,
        }
        handlers = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary, **codec),
            "Collect": grpc.stream_unary_rpc_method_handler(self.collect, **codec),
            "Yields": grpc.unary_stream_rpc_method_handler(self.yields, **codec),
            "Writes": grpc.unary_stream_rpc_method_handler(self.writes, **codec),
            "Both": grpc.stream_stream_rpc_method_handler(self.both, **codec),
        }
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("test.Four", handlers)]
        )


async def ask(channel, method, request=b"", **options):
    """Call any of the five methods; return all replies."""
    codec = {
        "request_serializer": None,
        "response_deserializer": common_pb2.Message.FromString,
    }
    path = f"/test.Four/{method}"
    match method:
        case "Unary":
            return [await channel.unary_unary(path, **codec)(request, **options)]
        case "Collect":
            return [await channel.stream_unary(path, **codec)(iter([request]), **options)]
        case "Both":
            return [
                r async for r in channel.stream_stream(path, **codec)(iter([request]), **options)
            ]
        case _:
            return [r async for r in channel.unary_stream(path, **codec)(request, **options)]


METHODS = ["Unary", "Collect", "Yields", "Writes", "Both"]


async def echo(request, _context):
    return request[0] if isinstance(request, list) else request


async def bug(_request, _context):
    raise ValueError(CANARY)


async def refuse(_request, _context):
    raise Refusal(Reason.LIMITED, retry_after_ms=1_500)


def message(text="hello"):
    return common_pb2.Message(content=text).SerializeToString()


@pytest.mark.parametrize("method", METHODS)
async def test_every_kind_of_rpc_works(serve, channel, tenant_ends, method):
    async with serve(Four(echo).add_to) as port, channel(port, tenant_ends) as ours:
        replies = await ask(ours, method, message())
    assert replies[-1].content == "hello"


@pytest.mark.parametrize("method", METHODS)
async def test_a_bug_is_mute_to_client_and_log(serve, channel, tenant_ends, method, logged):
    async with serve(Four(bug).add_to) as port, channel(port, tenant_ends) as ours:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(ours, method, message(CANARY))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert from_rpc_error(caught.value).reason is Reason.INTERNAL
    assert "canary" not in f"{caught.value!r}{caught.value.trailing_metadata()}"
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    assert "canary" not in logged.getvalue()
    (line,) = [line for line in lines if line["event"] == "rpc.bug"]
    assert line["kind"] == "ValueError"
    assert any("test_interceptors" in frame for frame in line["frames"])


@pytest.mark.parametrize("method", METHODS)
async def test_a_refusal_arrives_typed(serve, channel, tenant_ends, method):
    async with serve(Four(refuse).add_to) as port, channel(port, tenant_ends) as ours:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(ours, method, message())
    refusal = from_rpc_error(caught.value)
    assert (refusal.reason, refusal.retry_after_ms) == (Reason.LIMITED, 1_500)


@pytest.mark.parametrize("method", METHODS)
async def test_a_handlers_own_abort_passes(serve, channel, tenant_ends, method):
    async def abort(_request, context):
        await context.abort(grpc.StatusCode.ABORTED, "constant")

    bugs = counters().get("rpc.bugs", 0)
    async with serve(Four(abort).add_to) as port, channel(port, tenant_ends) as ours:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(ours, method, message())
    assert counters().get("rpc.bugs", 0) == bugs
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.ABORTED, "constant")


@pytest.mark.parametrize("method", METHODS)
async def test_text_that_is_not_utf8_is_told_by_field(serve, channel, tenant_ends, method):
    broken = b"\x12\x08canary\xff\xfe"
    async with serve(Four(echo).add_to) as port, channel(port, tenant_ends) as ours:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(ours, method, broken)
    refusal = from_rpc_error(caught.value)
    assert (refusal.reason, refusal.field) == (Reason.INVALID_FIELD, "content")
    assert "canary" not in f"{caught.value!r}{caught.value.trailing_metadata()}"


@pytest.mark.parametrize("method", METHODS)
async def test_a_request_that_no_handler_saw_is_noted_under_its_caller(
    serve, channel, tenant_ends, make_guard, method
):
    told = []

    async def note(refusal, _method, _connection):
        told.append((refusal.reason, current().identity.tenant))

    guard = make_guard(on_refused=note)
    async with (
        serve(Four(echo).add_to, guard=guard) as port,
        channel(port, tenant_ends) as ours,
    ):
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(ours, method, b"\x12\x08canary\xff\xfe")
    assert told == [(Reason.INVALID_FIELD, "acme")]


async def test_a_refusal_that_cannot_be_noted_is_told_as_that(
    serve, channel, tenant_ends, make_guard
):
    async def note(_refusal, _method, _connection):
        raise Refusal(Reason.AUDIT_DOWN)

    guard = make_guard(on_refused=note)
    async with (
        serve(Four(echo).add_to, guard=guard) as port,
        channel(port, tenant_ends) as ours,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(ours, "Unary", b"\xff\xff\xff")
    assert from_rpc_error(caught.value).reason is Reason.AUDIT_DOWN


async def test_garbage_is_an_invalid_field_without_a_name(serve, channel, tenant_ends):
    async with serve(Four(echo).add_to) as port, channel(port, tenant_ends) as ours:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(ours, "Unary", b"\xff\xff\xff")
    assert from_rpc_error(caught.value).reason is Reason.INVALID_FIELD


async def test_a_reply_of_the_wrong_type_is_mute_too(serve, channel, tenant_ends, logged):
    async def wrong(_request, _context):
        return CANARY

    async with serve(Four(wrong).add_to) as port, channel(port, tenant_ends) as ours:
        for method in METHODS:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask(ours, method, message())
            assert from_rpc_error(caught.value).reason is Reason.INTERNAL
            assert "canary" not in repr(caught.value)
    assert "canary" not in logged.getvalue()


async def test_an_unknown_method_is_unimplemented(serve, channel, tenant_ends):
    async with serve(Four(echo).add_to) as port, channel(port, tenant_ends) as ours:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ours.unary_unary("/test.Four/None")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("method", METHODS)
async def test_a_handler_knows_who_calls_how_and_until_when(serve, channel, tenant_ends, method):
    seen: list[RequestContext] = []

    async def look(request, context):
        seen.append(current())
        return await echo(request, context)

    header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with serve(Four(look).add_to) as port, channel(port, tenant_ends) as ours:
        await ask(ours, method, message(), timeout=5, metadata=[("traceparent", header)])
    (context,) = seen
    assert context.method == f"/test.Four/{method}"
    assert context.identity == TenantIdentity("sealgate.test", "acme", "app")
    assert context.connection.tls_version == "TLSv1.3"
    assert context.connection.key_exchange_group == "X25519MLKEM768"
    assert context.connection.peer_ip == "127.0.0.1"
    assert context.trace.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert context.trace.span_id.hex() != "b7ad6b7169203331"
    assert 0 < context.deadline.remaining_s <= 5
    assert context.header("traceparent") == header
    assert context.certificate_pem == tenant_ends.chain


async def test_only_our_services_decide_what_is_traced(serve, channel, tenant_ends, service_ends):
    header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    spans = InMemorySpanExporter()
    async with (
        telemetry(Telemetry(trace_sample_ratio=0), service="gateway", exporter=spans),
        serve(Four(echo).add_to) as port,
        channel(port, tenant_ends) as tenant,
        channel(port, service_ends) as service,
    ):
        await ask(tenant, "Unary", message(), metadata=[("traceparent", header)])
        assert not spans.get_finished_spans()
        await ask(service, "Unary", message(), metadata=[("traceparent", header)])
    (span,) = spans.get_finished_spans()
    assert (span.name, span.parent.span_id) == ("/test.Four/Unary", 0xB7AD6B7169203331)


@pytest.mark.parametrize("method", METHODS)
async def test_a_canary_is_nowhere(serve, channel, tenant_ends, method, logged):
    """Whatever a caller writes and a bug repeats: not in status, trailers, log lines or spans."""

    async def repeat(request, _context):
        with step("screen"):
            raise RuntimeError(request)

    spans = InMemorySpanExporter()
    async with (
        telemetry(Telemetry(trace_sample_ratio=1), service="gateway", exporter=spans),
        serve(Four(repeat).add_to) as port,
        channel(port, tenant_ends) as ours,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(ours, method, message(CANARY), metadata=[("x-note", CANARY)])
    seen = [f"{caught.value!r} {caught.value.trailing_metadata()}", logged.getvalue()]
    seen += [span.to_json() for span in spans.get_finished_spans()]
    assert len(seen) == 4
    assert not [text for text in seen if "canary" in text]


async def test_outside_an_rpc_there_is_no_context():
    with pytest.raises(LookupError):
        current()


async def test_peers_are_told_apart_on_one_server(serve, channel, tenant_ends, service_ends):
    seen = []

    async def look(request, _context):
        seen.append(current().identity)
        return request

    async with (
        serve(Four(look).add_to) as port,
        channel(port, tenant_ends) as tenant,
        channel(port, service_ends) as service,
    ):
        for ours in (tenant, service, tenant):
            await ask(ours, "Unary", message())
    acme = TenantIdentity("sealgate.test", "acme", "app")
    assert seen == [acme, ServiceIdentity("sealgate.test", "compliance"), acme]


@pytest.mark.parametrize(
    "uris",
    [
        (),
        ("spiffe://elsewhere.test/tenant/acme/app",),
        ("spiffe://sealgate.test/tenant/acme/../evil",),
        ("spiffe://sealgate.test/tenant/acme/app", "spiffe://sealgate.test/tenant/evil/app"),
    ],
)
async def test_a_stranger_is_turned_away_at_the_door(serve, channel, ca, make_guard, uris):
    told = []

    async def note(refusal, method, connection):
        told.append((refusal.reason, method))
        assert connection.tls_version == "TLSv1.3"

    guard = make_guard(on_refused=note)
    async with (
        serve(Four(bug).add_to, guard=guard) as port,
        channel(port, ca.issue(*uris)) as ours,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(ours, "Unary", message())
    assert from_rpc_error(caught.value).reason is Reason.UNAUTHENTICATED
    assert told == [(Reason.UNAUTHENTICATED, "/test.Four/Unary")]


async def test_a_peer_that_is_not_admitted_is_denied(serve, channel, tenant_ends, make_guard):
    guard = make_guard(admits=lambda identity, _method: isinstance(identity, ServiceIdentity))
    async with serve(Four(bug).add_to, guard=guard) as port, channel(port, tenant_ends) as ours:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(ours, "Unary", message())
    assert from_rpc_error(caught.value).reason is Reason.DENIED


async def test_a_call_that_outlives_its_budget_is_cut(serve, channel, tenant_ends, make_guard):
    async def dawdle(_request, _context):
        await asyncio.sleep(30)

    guard = make_guard(call_budget_ms=50)
    async with serve(Four(dawdle).add_to, guard=guard) as port, channel(port, tenant_ends) as ours:
        for method in ("Unary", "Yields", "Writes"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask(ours, method, message())
            assert from_rpc_error(caught.value).reason is Reason.OUT_OF_TIME


async def test_a_timeout_inside_a_handler_is_a_bug_not_the_deadline(serve, channel, tenant_ends):
    async def late(_request, _context):
        raise TimeoutError

    async with serve(Four(late).add_to) as port, channel(port, tenant_ends) as ours:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(ours, "Unary", message())
    assert from_rpc_error(caught.value).reason is Reason.INTERNAL


@pytest.mark.parametrize("method", ["Unary", "Yields"])
async def test_the_clients_deadline_ends_the_handler(serve, channel, tenant_ends, method):
    begun, ended = asyncio.Event(), asyncio.Event()

    async def dawdle(_request, _context):
        begun.set()
        try:
            await asyncio.sleep(300)
        finally:
            ended.set()

    async with serve(Four(dawdle).add_to) as port, channel(port, tenant_ends) as ours:
        for timeout_s in (0.1, 1, 5):  # a busy machine may not get so far within the first
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask(ours, method, message(), timeout=timeout_s)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            if begun.is_set():
                break
        await asyncio.wait_for(ended.wait(), 20)  # the budget of a call is longer


async def test_a_handler_that_is_not_asynchronous_is_refused_before_it_serves(serve):
    def add_to(server):
        handler = grpc.unary_unary_rpc_method_handler(lambda request, _context: request)
        server.add_registered_method_handlers("test.Four", {"Unary": handler})

    with pytest.raises(TypeError, match="asynchronous"):
        async with serve(add_to):
            pytest.fail("served")


async def test_a_cancelled_call_closes_the_generator_at_once(serve, channel, tenant_ends):
    async def forever(_request, _context):
        await asyncio.sleep(300)

    four = Four(forever)
    async with serve(four.add_to) as port, channel(port, tenant_ends) as ours:
        call = ours.unary_stream("/test.Four/Yields")(message())
        await call.read()
        call.cancel()
        await asyncio.wait_for(four.closed.wait(), 20)
    assert four.closed.is_set()


class LocalContext:
    """What a servicer context tells, without a network."""

    def __init__(self, **facts):
        self.facts = {
            "peer_uri": (b"spiffe://sealgate.test/tenant/acme/app",),
            "ssl_tls_version": (b"TLSv1.3",),
            "ssl_negotiated_key_exchange_group": (b"X25519MLKEM768",),
        } | facts

    def auth_context(self):
        return self.facts

    def peer(self):
        return "ipv4:127.0.0.1:5"

    def invocation_metadata(self):
        return (("user-agent", "x"),)

    def time_remaining(self):
        return 5.0


async def test_wrapping_costs_microseconds(make_guard, tenant_ends):
    """Not a benchmark: an alarm should a step grow by an order of magnitude. 13 us measured."""
    handler = grpc.unary_unary_rpc_method_handler(
        echo,
        request_deserializer=common_pb2.Message.FromString,
        response_serializer=common_pb2.Message.SerializeToString,
    )
    wrapped = _Method(make_guard(), "/test.Four/Unary", handler)
    context, raw, best = LocalContext(x509_pem_cert=(tenant_ends.chain,)), message(), 1e9
    for _ in range(20):
        started = time.thread_time()
        for _ in range(100):
            await wrapped._unary_unary(raw, context)
        best = min(best, (time.thread_time() - started) / 100)
    assert best < 130e-6


async def test_a_port_that_another_peer_had_before_gives_nobody_its_identity(make_guard):
    """Behind one address translator, two callers may come from the same address in turn."""
    guard = make_guard()
    first = await guard.peer("/x/Y", LocalContext())
    other = LocalContext(peer_uri=(b"spiffe://sealgate.test/tenant/evil/app",))
    second = await guard.peer("/x/Y", other)
    assert (first.identity.tenant, second.identity.tenant) == ("acme", "evil")


@pytest.mark.parametrize("version", [(b"TLSv1.2",), (), (b"TLSv1.3", b"TLSv1.2")])
@pytest.mark.parametrize("method", ["/x/Y", "/grpc.health.v1.Health/Check"])
async def test_a_connection_that_is_not_tls13_is_refused(make_guard, version, method):
    guard = make_guard()
    await guard.peer(method, LocalContext())
    with pytest.raises(Refusal) as caught:
        await guard.peer(method, LocalContext(ssl_tls_version=version))
    assert caught.value.reason is Reason.UNAUTHENTICATED


async def test_the_memory_of_peers_has_a_bound(make_guard, monkeypatch):
    monkeypatch.setattr("meshkit.interceptors.PEERS_CACHED_MAX", 3)
    guard = make_guard()
    for number in range(10):
        uri = f"spiffe://sealgate.test/tenant/t{number}/app".encode()
        found = await guard.peer("/x/Y", LocalContext(peer_uri=(uri,)))
        assert found.identity.tenant == f"t{number}"
    assert len(guard._peers) <= 3


async def test_a_generator_is_closed_at_once_in_its_own_task(make_guard, tenant_ends):
    """Not whenever it is collected: what it holds (an engine, a record) ends with the call."""
    closed_by = []

    async def replies(_request, _context):
        try:
            while True:
                yield b"x"
        finally:
            closed_by.append(asyncio.current_task())

    class Gone(LocalContext):
        async def write(self, _reply):
            raise asyncio.CancelledError

    handler = grpc.unary_stream_rpc_method_handler(replies)
    wrapped = _Method(make_guard(), "/test.Four/Yields", handler)
    with pytest.raises(asyncio.CancelledError):
        await wrapped._unary_stream(b"", Gone(x509_pem_cert=(tenant_ends.chain,)))
    assert closed_by == [asyncio.current_task()]

"""What happens around every RPC of every service: one wrapper, outermost and only.

    1. mute       whatever is raised, the client hears a constant, and the log no message
    2. connection TLS 1.3, and a certificate that is not over, or refused
    3. identity   of the peer's certificate; the service says which peers it admits
    4. context    deadline, trace and identity, to be had by `current()` below
    5. parse      a request that is no message of ours is INVALID_FIELD, with the field's name

Python gRPC would do 1 and 5 wrong: it sends `str(exception)` to the client, with whatever a parser
or a handler put in there. So requests are parsed, and unary answers serialised, in here too.

All four kinds of RPC work, with handlers that yield as well as with those that `context.write`. A
handler that yields is driven from here, so that it is closed at once, and in its own task, when the
client goes away.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast

import grpc
import structlog
from cryptography import x509
from google.protobuf.message import DecodeError

from meshkit.contract import Connection, Reason, Refusal
from meshkit.counters import counted, observed
from meshkit.deadline import Deadline
from meshkit.identity import Identity, ServiceIdentity, connection_of, identity_of
from meshkit.logs import frames_of
from meshkit.places import Places
from meshkit.registration import Registration, behaviour_of
from meshkit.request import RequestContext, current, with_context
from meshkit.status import to_status
from meshkit.telemetry import root_span
from meshkit.w3c import HEADER, parse_traceparent
from meshkit.wire_fields import not_utf8_field

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from meshkit.w3c import Parent

    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]
    Parser = Callable[[bytes], Any]

__all__ = ["MeshInterceptor", "RequestContext", "current", "tell", "with_context"]

log = structlog.get_logger()

HEALTH_PREFIX = "/grpc.health.v1.Health/"
"""A balancer's probe needs a certificate of our CA, but no tenant; `Watch` has no deadline."""

CALLS_PER_TENANT_MAX = 384
"""Unless a server's settings say otherwise: `Serving.calls_per_tenant_max`."""

PEERS_CACHED_MAX = 4_096
"""Connections whose peer is remembered; beyond it all are forgotten and looked at again."""


class _Peer(NamedTuple):
    connection: Connection
    identity: Identity | None
    certificate_pem: bytes
    ends_s: float
    """When the certificate is over, seconds since 1970: connections may outlive it."""

    def must_not_be_over(self) -> None:
        """Raise a Refusal, UNAUTHENTICATED, if the certificate's time has passed."""
        if self.ends_s <= time.time():
            raise _Unread(Reason.UNAUTHENTICATED)


class _Facts(NamedTuple):
    """A `meshkit.identity.PeerContext` that asks C-core once."""

    facts: Mapping[str, Iterable[bytes]]
    name: str

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return self.facts

    def peer(self) -> str:
        return self.name


class MeshInterceptor:
    """Goes around every method. Cost: 35 us a unary call; most of it C-core's facts as Python."""

    def __init__(
        self,
        *,
        trust_domain: str,
        call_budget_ms: int,
        admits: Callable[[Identity, str], bool],
        on_refused: Refused | None = None,
    ) -> None:
        """Prepare.

        Args:
            trust_domain: Of every peer's SPIFFE id.
            call_budget_ms: The longest a call with a single request may take, and what it gets
                when it brings no deadline. Request streams live as long as their connection.
            admits: Whether this peer may call this method at all; else DENIED.
            on_refused: Told of each refusal at the door, and the method, before the client is: of
                a peer, or, within `current()`, of a request that is no message of ours.
        """
        self._trust_domain = trust_domain
        self.budget_ms = call_budget_ms
        self._admits = admits
        self._on_refused = on_refused
        self.places = Places(CALLS_PER_TENANT_MAX)
        self.in_flight = 0
        self._peers: dict[object, _Peer] = {}
        self._wrapped: dict[str, tuple[Handler, Handler]] = {}

    def around(
        self, server: grpc.aio.Server, *, calls_per_tenant_max: int = CALLS_PER_TENANT_MAX
    ) -> grpc.aio.Server:
        """Return what servicers are added to: each of their methods goes to `server` wrapped.

        One tenant may have `calls_per_tenant_max` of them under way; more are OVERLOADED.
        """
        self.places.each_max = calls_per_tenant_max
        return cast("grpc.aio.Server", Registration(self.wrapped, server))

    def wrapped(self, method: str, handler: Handler) -> Handler:
        """Wrap a method's handler; the same again for the same.

        Raises:
            TypeError: the handler is not asynchronous.
        """
        known = self._wrapped.get(method)
        if known is None or known[0] is not handler:
            known = self._wrapped[method] = (handler, _Method(self, method, handler).handler())
        return known[1]

    async def peer(self, method: str, context: Context) -> _Peer:
        """Tell who calls.

        Raises:
            Refusal: UNAUTHENTICATED (connection or identity), DENIED (not admitted).
        """
        found = self._peer(context)
        try:
            self._let_in(found, method)
        except Refusal as refusal:
            await self.refused(refusal, method, found.connection)
            raise
        return found

    async def refused(self, refusal: Refusal, method: str, connection: Connection) -> None:
        """Tell the service of a refusal that no handler of its will see."""
        if self._on_refused is not None:
            await self._on_refused(refusal, method, connection)

    def _peer(self, context: Context) -> _Peer:
        facts, name = context.auth_context(), context.peer()
        key = (name, *[tuple(facts.get(fact, ())) for fact in _PEER_FACTS])
        found = self._peers.get(key)
        if found is None:
            if len(self._peers) >= PEERS_CACHED_MAX:
                self._peers.clear()
            found = self._peers[key] = self._looked_at(_Facts(facts, name))
        return found

    def _let_in(self, found: _Peer, method: str) -> None:
        if method.startswith(HEALTH_PREFIX):
            return
        if found.identity is None:
            raise Refusal(Reason.UNAUTHENTICATED)
        if not self._admits(found.identity, method):
            raise Refusal(Reason.DENIED)

    def _looked_at(self, facts: _Facts) -> _Peer:
        connection = connection_of(facts)
        (pem,) = facts.facts.get("x509_pem_cert", (b"",))
        ends_s = _end_of(pem)
        try:
            identity = identity_of(facts, trust_domain=self._trust_domain)
        except Refusal:
            identity = None
        return _Peer(connection, identity, pem, ends_s)


def _end_of(pem: bytes) -> float:
    """Return `notAfter`; the distant past of what is no certificate. Cost: 40 us a connection."""
    try:
        return x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()
    except ValueError:
        return 0.0


_PEER_FACTS = (
    "peer_uri",
    "ssl_tls_version",
    "ssl_negotiated_key_exchange_group",
    "x509_pem_cert",
)
"""All that `_looked_at` reads: equal facts under an equal name mean an equal peer."""


class _Unread(Refusal):
    """A request that no handler saw."""


class _Method:
    """One method of one service, wrapped."""

    def __init__(self, guard: MeshInterceptor, name: str, inner: Handler) -> None:
        self._guard = guard
        self._name = name
        self._inner = inner
        self._behaviour = behaviour_of(inner)
        self._budgeted = not inner.request_streaming and not name.startswith(HEALTH_PREFIX)

    def handler(self) -> Handler:
        """Make the handler that gRPC gets instead.

        Raises:
            TypeError: the handler is not asynchronous: it would block a thread of a pool.
        """
        behaviour = self._behaviour
        if not (inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour)):
            msg = "handlers must be asynchronous"
            raise TypeError(msg)
        inner = self._inner
        match inner.request_streaming, inner.response_streaming:
            case False, False:
                return grpc.unary_unary_rpc_method_handler(self._unary_unary)
            case True, False:
                return grpc.stream_unary_rpc_method_handler(
                    self._stream_unary, request_deserializer=self._parse
                )
            case False, True:
                return grpc.unary_stream_rpc_method_handler(
                    self._unary_stream, response_serializer=inner.response_serializer
                )
            case _:
                return grpc.stream_stream_rpc_method_handler(
                    self._stream_stream,
                    request_deserializer=self._parse,
                    response_serializer=inner.response_serializer,
                )

    async def _unary_unary(self, raw: bytes, context: Context) -> object:
        async def answer() -> object:
            reply = await self._behaviour(self._parse(raw), context)
            return self._serialised(reply)

        return await self._guarded(context, answer)

    async def _stream_unary(self, requests: AsyncIterator[object], context: Context) -> object:
        async def answer() -> object:
            return self._serialised(await self._behaviour(requests, context))

        return await self._guarded(context, answer)

    async def _unary_stream(self, raw: bytes, context: Context) -> None:
        await self._guarded(context, lambda: self._write_all(self._parse(raw), context))

    async def _stream_stream(self, requests: AsyncIterator[object], context: Context) -> None:
        await self._guarded(context, lambda: self._write_all(requests, context))

    async def _write_all(self, request: object, context: Context) -> None:
        behaviour = self._behaviour
        if not inspect.isasyncgenfunction(behaviour):
            await behaviour(request, context)  # it writes by itself
            return
        async with aclosing(behaviour(request, context)) as replies:
            async for reply in replies:
                await context.write(reply)

    async def _guarded(self, context: Context, answer: _Answer) -> object:
        """Run `answer` as the call that `context` is; whatever goes wrong is told safely."""
        began_s, ended = time.perf_counter(), ""
        self._guard.in_flight += 1
        try:
            peer = await self._guard.peer(self._name, context)
            metadata = cast("_Metadata", context.invocation_metadata() or ())
            trusted = isinstance(peer.identity, ServiceIdentity)
            with (
                self._guard.places.taken(peer.identity),
                root_span(self._name, _parent(metadata), trust_parent=trusted) as span,
            ):
                given_s = context.time_remaining()
                deadline = Deadline.of_rpc(given_s, budget_ms=self._guard.budget_ms)
                with_context(
                    RequestContext(
                        method=self._name,
                        deadline=deadline,
                        trace=span.trace,
                        connection=peer.connection,
                        identity=peer.identity,
                        certificate_pem=peer.certificate_pem,
                        metadata=metadata,
                    )
                )
                peer.must_not_be_over()
                if self._ours_to_end(given_s):
                    return await _in_time(deadline, answer)
                return await answer()
        except grpc.aio.AbortError:
            ended = "aborted"
            raise
        except asyncio.CancelledError:
            ended = Reason.CANCELLED.name
            raise
        except _Unread as refusal:
            ended = refusal.reason.name
            await tell(context, await self._noted(refusal, peer.connection), method=self._name)
        except Exception as error:  # noqa: BLE001 -- the last line before the wire
            ended = error.reason.name if isinstance(error, Refusal) else type(error).__name__
            await tell(context, error, method=self._name)
        finally:
            self._guard.in_flight -= 1
            observed(f"rpc.call.{ended}.{self._name[1:]}", time.perf_counter() - began_s)

    async def _noted(self, refusal: Refusal, connection: Connection) -> Exception:
        """Have a refusal recorded that no handler saw; return what to tell."""
        try:
            await self._guard.refused(refusal, self._name, connection)
        except Exception as error:  # noqa: BLE001 -- as in `_guarded`
            return error
        return refusal

    def _ours_to_end(self, given_s: float | None) -> bool:
        """Whether nobody else ends the call in time: gRPC does at the deadline of the client."""
        budget_s = self._guard.budget_ms / 1_000
        return self._budgeted and (given_s is None or given_s > budget_s)

    def _parse(self, raw: bytes) -> object:
        parser: Parser | None = self._inner.request_deserializer
        if parser is None:
            return raw
        try:
            return parser(raw)
        except DecodeError:
            raise _Unread(Reason.INVALID_FIELD, field=_bad_field(parser, raw)) from None

    def _serialised(self, reply: object) -> object:
        serialise = self._inner.response_serializer
        return reply if serialise is None else serialise(reply)


async def _in_time(deadline: Deadline, answer: _Answer) -> object:
    """Cut a call off that outlives its budget, even if its client would wait."""
    limit = asyncio.timeout(deadline.remaining_s)
    try:
        async with limit:
            return await answer()
    except TimeoutError:
        if limit.expired():
            raise Refusal(Reason.OUT_OF_TIME) from None
        raise


_Metadata = tuple[tuple[str, str | bytes], ...]
_Answer = Callable[[], Awaitable[object]]
Refused = Callable[[Refusal, str, Connection], Awaitable[None]]
"""Told of a refusal: which, of what method, and how the peer came."""


def _parent(metadata: _Metadata) -> Parent | None:
    found = [value for key, value in metadata if key == HEADER]
    return parse_traceparent(found[0]) if len(found) == 1 else None


def _bad_field(parser: Parser, raw: bytes) -> str | None:
    """Find the field's name by the message class that `FromString` belongs to."""
    descriptor = getattr(getattr(parser, "__self__", None), "DESCRIPTOR", None)
    return None if descriptor is None else not_utf8_field(descriptor, raw)


async def tell(context: Context, error: Exception, *, method: str) -> NoReturn:
    """End the RPC with a status that carries no text of ours or the user's.

    A `Refusal` is told with its details. Anything else is a bug: INTERNAL and mute to the client;
    the log gets its type and frames, never its message.
    """
    if isinstance(error, Refusal):
        counted(f"rpc.refused.{error.reason.name}")
        await context.abort(*to_status(error))
    counted("rpc.bugs")
    log.error("rpc.bug", kind=type(error).__name__, frames=frames_of(error), method=method)
    await context.abort(*to_status(Refusal(Reason.INTERNAL)))

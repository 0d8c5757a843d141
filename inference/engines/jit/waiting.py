"""How threads wait: a helper for the next step, and all of a step for one another."""

from __future__ import annotations

from llvmlite import ir

from inference.engines.jit.emit import I32, I64, PTR, Code

__all__ = ["emit_help", "emit_meeting"]

_I64 = 8
_SPINS = 500
_YIELD = "sched_yield"


def emit_help(module: ir.Module, *, closing_at: int) -> None:
    """Write `help(arguments, thread, event)`: a step for each event (eventfd(2)).

    So a helper needs the interpreter's lock neither to begin nor to end a step. It returns once
    the number that stands `closing_at` bytes behind the arguments' beginning is not 0.
    """
    c = Code(module, "help", [PTR, I64, I64])
    given, thread, event = c.arguments
    counter = c.variable(c.number(0))
    wait, leave = (c.function.append_basic_block() for _ in range(2))
    c.b.branch(wait)
    c.b.position_at_end(wait)
    got = c.call("read", I64, c.b.trunc(event, I32), counter, c.number(_I64))
    closing = c.load(c.at(given, closing_at), I64)
    with c.when(c.b.icmp_signed("==", got, c.number(_I64))), c.when(_is_zero(c, closing)):
        c.call("step", ir.VoidType(), given, thread)
    c.b.cbranch(_is_zero(c, closing), wait, leave)
    c.b.position_at_end(leave)
    c.finish()


def _is_zero(c: Code, number: ir.Value) -> ir.Value:
    return c.b.icmp_signed("==", number, c.number(0))


def emit_meeting(module: ir.Module) -> None:
    """Write `meet(place, threads)`: nobody leaves before all have come.

    place: two numbers, 64 bytes apart: who has come, and how often all had. A thread whose fellows
    lag gives its core away now and then, for they may be waiting for one.
    """
    c = Code(module, "meet", [PTR, I64])
    place, threads = c.arguments
    b, often = c.b, c.at(place, 64)
    before = b.load_atomic(often, "acquire", _I64, typ=I64)
    come = b.atomic_rmw("add", place, c.number(1), "acq_rel")
    with b.if_else(b.icmp_signed("==", c.add(come, 1), threads)) as (last, others):
        with last:
            b.atomic_rmw("xchg", place, c.number(0), "monotonic")
            b.atomic_rmw("add", often, c.number(1), "release")
        with others:
            spins = c.variable(c.number(0))
            again, done = (c.function.append_basic_block() for _ in range(2))
            b.branch(again)
            b.position_at_end(again)
            c.call("llvm.x86.sse2.pause", ir.VoidType())
            spun = c.add(c.get(spins, I64), 1)
            c.put(spins, spun)
            with b.if_then(b.icmp_unsigned("==", b.urem(spun, c.number(_SPINS)), c.number(0))):
                c.call(_YIELD, I32)
            now = b.load_atomic(often, "acquire", _I64, typ=I64)
            b.cbranch(b.icmp_signed("==", now, before), again, done)
            b.position_at_end(done)
    c.finish()

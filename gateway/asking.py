"""A model asked, and its answer let out piece by piece as compliance releases it."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from gateway.tokens import Pace, TokenStream
from meshkit.contract import FinishReason, Reason, Refusal, Released
from meshkit.counters import counted
from meshkit.reading import opened

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from gateway.admission import Limits
    from gateway.run import Run
    from meshkit.contract import Compliance, Inference

__all__ = ["Asking"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Runs a model under a screened prompt, within what the caller's limits pay for.

    whole: how a unary answer is cut for compliance.
    streamed: how a streamed one is.
    extend_tokens: what is paid for at a time when an answer is longer than expected.
    """

    compliance: Compliance
    inference: Inference
    limits: Limits
    whole: Pace
    streamed: Pace
    extend_tokens: int

    async def ask(self, run: Run) -> None:
        """Ask, and leave in `run` what was released, why it ended, and what it cost.

        Raises:
            Refusal: as `Inference.generate` and `Compliance.release`; `run` says what was released.
        """
        assert run.screened is not None
        call = run.call
        wanted = opened()
        source = self.inference.generate(
            call.scope, run.model.name, run.screened, call.parameters, digest=run.model.digest
        )
        pace = self.whole if run.deliver is None else self.streamed
        tokens = TokenStream(
            source,
            pace,
            run.answer_tokens,
            lambda: self._more(run),
            first=run.token_came,
            wanted=wanted,
        )
        run.served = True
        try:
            async with tokens:
                await self._release(run, tokens)
        finally:
            run.usage = tokens.usage
            # An engine that refused before its first token has cost the caller nothing.
            run.served = tokens.failure is None or tokens.tokens > 0
        run.finish = _how_it_ended(run, tokens)

    async def _release(self, run: Run, tokens: TokenStream) -> None:
        assert run.screened is not None
        policy = run.screened.verdict.policy_digest
        released = self.compliance.release(run.call.scope, tokens.deltas(), policy_digest=policy)
        try:
            async with aclosing(cast("AsyncGenerator[str | Released, None]", released)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Released):
                        run.released = piece
                        run.answer_counts = piece.verdict.counts
                    else:
                        await run.hand_over(piece)
                        tokens.delivered()
        except Refusal:
            _raise_first(tokens)
            raise
        _raise_first(tokens)
        # Had two policies judged one call, no record could say which did what.
        if run.released is None or run.released.verdict.policy_digest != policy:
            raise Refusal(Reason.COMPLIANCE_DOWN)

    async def _more(self, run: Run) -> int:
        """Pay for more of an answer; 0 if the limits do not allow it."""
        extended = await self.limits.extend(run.reservation, self.extend_tokens)
        if extended is None:
            return 0
        run.reservation = extended
        run.answer_tokens += self.extend_tokens
        return self.extend_tokens


def _raise_first(tokens: TokenStream) -> None:
    """An engine that failed is the cause, whatever compliance made of its silence."""
    if tokens.failure is not None:
        raise tokens.failure


def _how_it_ended(run: Run, tokens: TokenStream) -> FinishReason:
    if run.released is not None and run.released.blocked:
        return FinishReason.BLOCKED
    if tokens.limited:
        counted("limits.cut")
        return FinishReason.LIMITED
    if tokens.ended is None:
        raise Refusal(Reason.INFERENCE_DOWN)
    return tokens.ended.finish_reason

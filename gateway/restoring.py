"""Puts values back in the place of tokens, for callers who may have them, as the answer leaves.

    release -> cache put, tokens in place -> restore, for those allowed -> caller

Nothing is asked, held or looked for where no token can be: where none went to the model and none
came of screening its answer. Cedar is asked once, when the first one shows; compliance is asked for
each token once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meshkit.contract import Direction, FindingCount
from meshkit.counters import counted
from meshkit.telemetry import step
from meshkit.tokens import TokenHold, find_tokens, restored, type_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from meshkit.contract import Scope, Screened
    from meshkit.tokens import Part

    Reveal = Callable[[Scope, Sequence[str]], Awaitable[Mapping[str, str]]]

__all__ = ["Restoring"]

_TOKENISE = "tokenise"


@dataclass(slots=True)
class Restoring:
    """What becomes of one call's tokens.

    reveal: as `meshkit.contract.Compliance.reveal`. allowed: asks the policies.
    """

    scope: Scope
    reveal: Reveal
    allowed: Callable[[], bool]
    _expected: bool = False
    _may: bool | None = None
    _hold: TokenHold = field(default_factory=TokenHold)
    _values: dict[str, str] = field(default_factory=dict)
    _asked: set[str] = field(default_factory=set)
    _revealed: Counter[str] = field(default_factory=Counter)

    def expect(self, screened: Screened) -> None:
        """Look at what the model is given: only tokens in there can come back.

        Without a session there are none of earlier calls, so counts tell.
        """
        types = {each.type for each in screened.verdict.counts if each.action == _TOKENISE}
        self._expected = bool(types) or (
            bool(self.scope.session)
            and any(find_tokens(message.content) for message in screened.messages)
        )
        self._hold = TokenHold(frozenset(types))

    async def feed(self, text: str) -> str:
        """Take released text; return what may leave of it now, restored.

        Raises:
            Refusal: as `Compliance.reveal`.
        """
        if not self._expected:
            # One that screening has just put in, is as screening writes them.
            if "[" not in text or not find_tokens(text):
                return text
            self._expected = True
        if not self._is_allowed():
            return text
        return await self._restored(self._hold.feed(text))

    async def close(self) -> str:
        """Return what was held: the answer is complete. Raises as `feed`."""
        return await self._restored(self._hold.close())

    @property
    def counts(self) -> tuple[FindingCount, ...]:
        """How many tokens were given back their values, by type."""
        return tuple(
            FindingCount(
                direction=Direction.ANSWER, type=type_, subtype="", action="reveal", count=count
            )
            for type_, count in sorted(self._revealed.items())
        )

    def _is_allowed(self) -> bool:
        if self._may is None:
            self._may = self.allowed()
            counted("tokens.allowed" if self._may else "tokens.denied")
        return self._may

    async def _restored(self, parts: list[Part]) -> str:
        fresh = {part.name for part in parts if part.name} - self._asked
        if fresh:
            with step("reveal"):
                self._values |= await self.reveal(self.scope, sorted(fresh))
            self._asked |= fresh
        self._revealed.update(type_of(part.name) for part in parts if part.name in self._values)
        return restored(parts, self._values)

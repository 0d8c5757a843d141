"""What a policy finds by itself, beside the recognizers that all policies share.

    finders = Finders(base_engine)
    finders.of(policy).find(window, core)

Policies with the same dictionaries and patterns share one finder; one without any has the base
engine itself. No finder knows of another policy's patterns.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import hyperscan

from compliance.engine import Engine
from compliance.normalise import fold
from compliance.policy_format import PolicyError
from compliance.policy_gate import FLAGS
from compliance.policy_words import WordFinder
from compliance.recognizers import checks
from compliance.recognizers.base import Recognizer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compliance.findings import Finding
    from compliance.policy import Policy
    from compliance.policy_format import Pattern
    from compliance.scanner import Finder

__all__ = ["CHECKS", "Finders", "recognizer_of"]

FINDERS_MAX = 256
"""Finders kept at most; beyond it those not used lately are made anew when they are asked for."""

CHECKS: dict[str, Callable[[str], bool]] = {
    "card": checks.card,
    "cn_resident_18": checks.cn_resident_18,
    "iban": checks.iban,
    "luhn": checks.luhn,
    "mod97": lambda value: int(checks.digits_of(value) or "0") % 97 == 1,
    "nhs": checks.nhs,
    "nl_bsn": checks.nl_bsn,
    "plausible_date": checks.plausible_date,
    "random_looking": checks.random_looking,
    "routing_number": checks.routing_number,
    "uscc": checks.uscc,
}
"""By the name that a policy gives; `mod97` takes all digits as one number (ISO 7064, MOD 97-10)."""


def recognizer_of(pattern: Pattern) -> Recognizer:
    """Turn a policy's pattern, which the gate has let in, into a recognizer."""
    near = pattern.score if pattern.context_score is None else pattern.context_score
    return Recognizer(
        name=f"policy:{pattern.name}",
        type=pattern.type,
        subtype=pattern.kind,
        pattern=pattern.expression,
        source="policy",
        score=(pattern.score, near),
        check=CHECKS[pattern.check] if pattern.check else None,
        context=tuple(word.lower() for word in pattern.context),
        veto=False,
        case=pattern.case,
    )


@dataclass(frozen=True, slots=True)
class _Layered:
    """The shared recognizers, then the policy's own."""

    base: Finder
    own: Engine | None
    words: Sequence[WordFinder]

    def find(self, window: str, core: int) -> list[Finding]:
        """See `compliance.engine.Engine.find`."""
        return self._more(window, core, self.base.find(window, core))

    def find_all(self, found: Sequence[tuple[str, int]]) -> list[list[Finding]]:
        """See `compliance.engine.Engine.find_all`."""
        return [
            self._more(*window, shared)
            for window, shared in zip(found, self.base.find_all(found), strict=True)
        ]

    def _more(self, window: str, core: int, shared: Sequence[Finding]) -> list[Finding]:
        found = list(shared)
        if self.own is not None:
            found += self.own.find(window, core)
        if self.words:
            folded = fold(window)
            for words in self.words:
                found += words.find(folded, core)
        return found


class _Prefilter:
    """Tells in one pass which of a policy's patterns may match; compiled in milliseconds.

    Always by UTF-8, and with nothing left out of a pattern: slower to scan with than what the
    shared recognizers have, and right for any pattern that the gate lets in.
    """

    def __init__(self, recognizers: Sequence[Recognizer]) -> None:
        self._database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        self._database.compile(
            expressions=[each.pattern.replace("(?P<v>", "(").encode() for each in recognizers],
            ids=list(range(len(recognizers))),
            elements=len(recognizers),
            flags=[FLAGS | (0 if r.case else hyperscan.HS_FLAG_CASELESS) for r in recognizers],
        )
        self._hits: list[int] = []
        self._lock = Lock()

    def __call__(self, text: bytes) -> list[int]:
        """Scan once. A scan holds a lock: hyperscan's scratch space has one user."""
        with self._lock:
            self._hits = []
            self._database.scan(text, match_event_handler=self._on_match)
            return self._hits

    def _on_match(self, index: int, *_where: object) -> None:
        self._hits.append(index)


class Finders:
    """Makes the finder of a policy, and keeps it for others that find the same.

    base: what all policies share.
    """

    def __init__(self, base: Finder) -> None:
        self._base = base
        self._made: dict[bytes, Finder] = {}

    def of(self, policy: Policy) -> Finder:
        """Return the policy's finder; milliseconds if it is new, more for thousands of terms.

        Raises:
            compliance.policy.PolicyError: a dictionary holds a term that cannot be looked for.
        """
        if not policy.custom:
            return self._base
        key = hashlib.sha256(policy.custom).digest()
        made = self._made.pop(key, None) or self._make(policy)
        self._made[key] = made
        if len(self._made) > FINDERS_MAX:
            del self._made[next(iter(self._made))]
        return made

    def _make(self, policy: Policy) -> Finder:
        own = None
        if policy.file.patterns:
            recognizers = [recognizer_of(pattern) for pattern in policy.file.patterns]
            try:
                own = Engine(recognizers, _Prefilter(recognizers))
            except hyperscan.error:
                msg = f"{policy.name}: hyperscan does not take its patterns together"
                raise PolicyError(msg) from None
        return _Layered(self._base, own, [WordFinder(each) for each in policy.file.dictionaries])

"""Readable fakes of the five services, for tests that are about someone else.

    WaryCompliance   blocks text with "forbidden" in it, masks "secret", finds the same either way
    DictCache        a dict, with leases; can be made to fail
    ShoutingModel    answers word by word in capitals; counts the tokens it was made to generate
    MemoryAudit      a list of events, receipts with a real signature; acks can be held back

None of them knows another, as the real ones do not.
"""

from __future__ import annotations

# ruff: noqa: ARG002 -- fakes have the signatures of the Protocols they stand for
import asyncio
import itertools
import re
from dataclasses import dataclass, field
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from audit.search.questions import Page
from meshkit.contract import (
    Appended,
    BlockedText,
    CachedAnswer,
    CacheMiss,
    Checkpoint,
    Direction,
    Ended,
    FindingCount,
    FinishReason,
    Generated,
    Message,
    ModelInfo,
    Phase,
    Reason,
    Receipt,
    Record,
    Refusal,
    Released,
    Screened,
    Usage,
    Verdict,
)
from meshkit.tlog import receipt_bytes

POLICY = sha256(b"fake compliance policy").digest()
MODEL = "shouter"
MODEL_DIGEST = sha256(b"fake model").digest()
TEMPLATE_DIGEST = b"t" * 32


def counted(direction, action, count):
    return (
        FindingCount(direction=direction, type="SECRET", subtype="", action=action, count=count),
    )


def masked(text, direction):
    verdict = Verdict(
        counts=counted(direction, "mask", text.lower().count("secret"))
        if "secret" in text.lower()
        else (),
        policy_digest=POLICY,
    )
    return re.sub("secret", "[MASKED]", text, flags=re.IGNORECASE), verdict


@dataclass
class WaryCompliance:
    journal: list = field(default_factory=list)
    down: bool = False
    down_mid_answer: bool = False
    asked_under: bytes = b""
    releases_under: bytes = POLICY

    async def screen(self, scope, messages):
        self.journal.append("screen")
        if self.down:
            raise Refusal(Reason.COMPLIANCE_DOWN)
        text = "\n".join(message.content for message in messages)
        if "forbidden" in text:
            raise BlockedText(
                Verdict(counts=counted(Direction.PROMPT, "block", 1), policy_digest=POLICY)
            )
        _, verdict = masked(text, Direction.PROMPT)
        screened = tuple(
            Message(each.role, masked(each.content, Direction.PROMPT)[0]) for each in messages
        )
        return Screened(messages=screened, verdict=verdict, mac=b"m" * 32, mac_key_version=1)

    async def release(self, scope, deltas, *, policy_digest=b""):
        """Releases word by word: the last word waits for the next space, or for the end."""
        self.journal.append("release")
        self.asked_under = policy_digest
        out, held = "", ""
        async for delta in deltas:
            if self.down_mid_answer and out:
                raise Refusal(Reason.COMPLIANCE_DOWN)
            *words, held = (held + delta).split(" ")
            clean = list(itertools.takewhile(lambda word: "FORBIDDEN" not in word, words))
            if clean:
                piece = masked("".join(f"{word} " for word in clean), Direction.ANSWER)[0]
                out += piece
                yield piece
            if len(clean) < len(words):
                yield self._released(out, blocked=True)
                return
        if "FORBIDDEN" in held:
            yield self._released(out, blocked=True)
            return
        if held:
            piece = masked(held, Direction.ANSWER)[0]
            out += piece
            yield piece
        self.journal.append("released")
        yield self._released(out)

    async def reveal(self, scope, names):
        self.journal.append("reveal")
        return {}

    def _released(self, text, *, blocked=False):
        counts = counted(Direction.ANSWER, "block", 1) if blocked else ()
        return Released(
            text=text,
            verdict=Verdict(counts=counts, policy_digest=self.releases_under),
            mac=b"r" * 32,
            mac_key_version=1,
            blocked=blocked,
        )


@dataclass
class DictCache:
    journal: list = field(default_factory=list)
    down: bool = False
    answers: dict = field(default_factory=dict)
    leases: set = field(default_factory=set)
    abandoned: int = 0

    async def get(self, question):
        self.journal.append("cache.get")
        if self.down:
            raise Refusal(Reason.CACHE_DOWN)
        found = self.answers.get(self._key(question))
        if found is not None:
            return found
        lease = f"lease {len(self.leases) + self.abandoned}".encode()
        self.leases.add(lease)
        return CacheMiss(lease=lease)

    async def put(self, question, lease, answer, ended):
        self.journal.append("cache.put")
        if self.down:
            raise Refusal(Reason.CACHE_DOWN)
        self.leases.remove(lease)
        self.answers[self._key(question)] = CachedAnswer(
            text=answer.text,
            finish_reason=ended.finish_reason,
            usage=ended.usage,
            verdict=answer.verdict,
            tier="l1",
        )

    async def abandon(self, question, lease):
        self.journal.append("cache.abandon")
        self.leases.remove(lease)
        self.abandoned += 1

    async def purge(self, tenant, *, session="", model_digest=b"", subject=""):
        count = len(self.answers)
        self.answers.clear()
        return count

    @staticmethod
    def _key(question):
        scope = question.scope
        who = (scope.tenant, scope.principal, scope.subject)
        return (*who, question.screened.messages, question.parameters)


@dataclass
class ShoutingModel:
    """Says the last message in capitals, a word a token; `endless` never stops by itself."""

    journal: list = field(default_factory=list)
    down: bool = False
    dies_after: int | None = None
    endless: bool = False
    token_s: float = 0.0
    hold: asyncio.Event | None = None
    """First words wait for it."""
    generated: int = 0
    running: int = 0
    prompts: list = field(default_factory=list)
    calls: list = field(default_factory=list)
    """Call ids, the newest last."""

    async def models(self):
        if self.down:
            raise Refusal(Reason.INFERENCE_DOWN)
        info = ModelInfo(
            name=MODEL,
            digest=MODEL_DIGEST,
            context_tokens=4_096,
            licence="CC0-1.0",
            template_digest=TEMPLATE_DIGEST,
        )
        return (info,)

    async def generate(self, scope, model, screened, parameters, *, digest=b""):
        self.journal.append("generate")
        self.prompts.append(screened.messages)
        self.calls.append(scope.call_id)
        if self.down:
            raise Refusal(Reason.INFERENCE_DOWN)
        words = screened.messages[-1].content.upper().split(" ")
        self.running += 1
        try:
            if self.hold is not None:
                await self.hold.wait()
            said = 0
            while said < parameters.max_tokens and (self.endless or said < len(words)):
                await asyncio.sleep(self.token_s)
                if self.dies_after is not None and said >= self.dies_after:
                    raise Refusal(Reason.INFERENCE_DOWN)
                word = words[said % len(words)]
                self.generated += 1
                said += 1
                last = not self.endless and said == len(words)
                yield Generated(word if last else f"{word} ")
            finish = FinishReason.STOP if said == len(words) else FinishReason.LENGTH
            usage = Usage(prompt_tokens=len(words) + 4, completion_tokens=said)
            yield Ended(finish_reason=finish, usage=usage)
        finally:
            self.running -= 1


@dataclass
class MemoryAudit:
    journal: list = field(default_factory=list)
    events: list = field(default_factory=list)
    down: bool = False
    down_for: frozenset = frozenset()
    """Phases for which it is down."""
    hold: asyncio.Event | None = None
    """Acks wait for it."""
    producers: set = field(default_factory=set)
    _key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    async def append_many(self, events, *, producer=None):
        self.producers.add(producer)
        return [await self._answer(event) for event in events]

    async def _answer(self, event):
        try:
            return await self.append(event)
        except Refusal as refusal:
            return refusal

    def pseudonym_of(self, tenant):
        return f"pseudonym-of-{tenant}"

    async def append(self, event, *, producer=None):
        self.journal.append(f"sent {event.phase}")
        if self.hold is not None:
            await self.hold.wait()
        else:
            await asyncio.sleep(0)
        if self.down or event.phase in self.down_for:
            raise Refusal(Reason.AUDIT_DOWN)
        for index, old in enumerate(self.events):
            if (old.call_id, old.phase) == (event.call_id, event.phase):
                if old != event:
                    raise Refusal(Reason.CONFLICT)
                return self._appended(index, event)
        self.events.append(event)
        self.journal.append(f"durable {event.phase}")
        return self._appended(len(self.events) - 1, event)

    def _appended(self, index, event):
        leaf = sha256(b"\0" + repr(event).encode()).digest()
        if event.phase is not Phase.OUTCOME:
            return Appended(index=index, leaf_hash=leaf)
        bare = Receipt(
            origin="fake.example/log",
            index=index,
            leaf_hash=leaf,
            call_id=event.call_id,
            trace_id=event.trace.trace_id,
            **self._opened("prompt", self._prompt_of(event)),
            **self._opened("answer", event.answer_delivered),
            key=self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw),
        )
        fields = {name: getattr(bare, name) for name in bare.__dataclass_fields__}
        signature = self._key.sign(receipt_bytes(bare))
        return Appended(
            index=index, leaf_hash=leaf, receipt=Receipt(**fields | {"signature": signature})
        )

    def _prompt_of(self, event):
        """The INTENT's; of a call that ended at the door, the OUTCOME's own."""
        intents = [each for each in self.of(Phase.INTENT) if each.call_id == event.call_id]
        return (intents or [event])[0].prompt_received

    @staticmethod
    def _opened(text, commitment):
        if commitment is None:
            return {}
        return {f"{text}_salt": commitment.salt, f"{text}_commitment": commitment.value}

    def of(self, phase):
        return [event for event in self.events if event.phase is phase]

    @property
    def outcomes(self):
        return [event.outcome for event in self.of(Phase.OUTCOME)]

    async def records(self, tenant, *, call_id=None, trace_id=None):
        return tuple(
            Record(index=index, phase=event.phase, leaf=repr(event).encode())
            for index, event in enumerate(self.events)
            if event.tenant == tenant
            and (call_id is None or event.call_id == call_id)
            and (trace_id is None or event.trace.trace_id == trace_id)
        )

    async def search(self, tenant, question, *, page_size=0, page_token=""):
        assert not page_token
        assert question.asked in (("newest_first", "trace_id"), ("trace_id",))
        return Page(records=await self.records(tenant, trace_id=question.trace_id))

    async def checkpoint(self):
        return Checkpoint(
            note=f"fake.example/log\n{len(self.events)}\n", size=len(self.events), root=bytes(32)
        )

    async def inclusion(self, index, size):
        if index >= size or size > len(self.events):
            raise Refusal(Reason.NOT_FOUND)
        return (bytes(32),)

    async def consistency(self, old, new):
        if old > new or new > len(self.events):
            raise Refusal(Reason.NOT_FOUND)
        return (bytes(32),)

"""A cache with the real keyring over a key service in memory, and questions with real MACs."""

import secrets
from dataclasses import dataclass, field, replace

import pytest
import pytest_asyncio

from cache.service import CacheService
from cache.settings import CacheSettings
from meshkit.contract import (
    Direction,
    Ended,
    FindingCount,
    FinishReason,
    Message,
    Parameters,
    Question,
    Released,
    Role,
    Scope,
    Screened,
    Stage,
    TraceContext,
    Usage,
    Verdict,
)
from meshkit.envelope import MemoryWrappedKeys, keyring
from meshkit.screening_mac import MacKeys, digest_of_answer, digest_of_prompt, mac_verifier
from meshkit.vault import DataKey, VaultDown

KEYS = MacKeys({1: b"k" * 32}, current=1)
POLICY = b"p" * 32
COUNT = FindingCount(direction=Direction.PROMPT, type="EMAIL", subtype="", action="mask", count=2)


@dataclass
class KeysInMemory:
    """What OpenBao's transit engine does for a keyring."""

    down: bool = False
    wrapped: dict[str, bytes] = field(default_factory=dict)

    async def datakey(self, _name: str, *, aad: bytes) -> DataKey:  # noqa: ARG002 -- protocol
        if self.down:
            raise VaultDown
        made = DataKey(plaintext=secrets.token_bytes(32), wrapped=secrets.token_hex(8))
        self.wrapped[made.wrapped] = made.plaintext
        return made

    async def decrypt(self, _name: str, wrapped: str, *, aad: bytes) -> bytes:  # noqa: ARG002 -- protocol
        if self.down:
            raise VaultDown
        return self.wrapped[wrapped]


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def scope(tenant="acme", user="ada", call_id=b"c" * 16) -> Scope:
    return Scope(
        call_id=call_id,
        tenant=tenant,
        principal=f"spiffe://sealgate.test/tenant/{tenant}/app#{user}",
        trace=TraceContext(trace_id=b"t" * 16, span_id=b"s" * 8),
    )


def question(text="What is the capital of France?", *, tenant="acme", user="ada", **changes):
    asked_by = scope(tenant, user, secrets.token_bytes(16))
    messages = (Message(Role.USER, text),)
    version, mac = KEYS.tag(
        stage=Stage.SCREENED,
        text_digest=digest_of_prompt(messages),
        policy_digest=POLICY,
        tenant=tenant,
        call_id=asked_by.call_id,
    )
    return Question(
        scope=asked_by,
        screened=Screened(
            messages=messages,
            verdict=Verdict(policy_digest=POLICY),
            mac=mac,
            mac_key_version=version,
        ),
        model_digest=b"m" * 32,
        parameters=Parameters(**changes),
    )


def released(to: Question, text="Paris.", *, policy=POLICY, **changes) -> Released:
    version, mac = KEYS.tag(
        stage=Stage.RELEASED,
        text_digest=digest_of_answer(text),
        policy_digest=policy,
        tenant=to.scope.tenant,
        call_id=to.scope.call_id,
    )
    answer = Released(
        text=text,
        verdict=Verdict(counts=(COUNT,), policy_digest=policy),
        mac=mac,
        mac_key_version=version,
    )
    return replace(answer, **changes)


def ended(reason=FinishReason.STOP) -> Ended:
    return Ended(finish_reason=reason, usage=Usage(prompt_tokens=37, completion_tokens=3))


@dataclass
class Made:
    """Makers of questions and answers, since test modules cannot import this file."""

    question = staticmethod(question)
    released = staticmethod(released)
    ended = staticmethod(ended)
    policy: bytes = POLICY


@pytest.fixture
def made() -> Made:
    return Made()


@pytest.fixture
def service_keys() -> KeysInMemory:
    return KeysInMemory()


@pytest_asyncio.fixture
async def sealer(service_keys):
    async with keyring(service_keys, MemoryWrappedKeys()) as keys:
        yield keys


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_cache(sealer, clock):
    def make(**changes) -> CacheService:
        given = {"sealer": sealer, "verify": mac_verifier(lambda: KEYS), "clock": clock}
        for name in tuple(changes):
            if name in given:
                given[name] = changes.pop(name)
        return CacheService(CacheSettings(**changes), secret=b"s" * 32, **given)

    return make


@pytest.fixture
def cache(make_cache) -> CacheService:
    return make_cache()

"""A cache with the real keyring over a key service in memory, and questions with real MACs."""

import secrets
from dataclasses import dataclass, field, replace

import pytest
import pytest_asyncio

from appliance.redis import RedisServerSettings, redis_server
from cache.service import CacheService
from cache.settings import CacheSettings
from cache.tiers import shared_tier, wrapped_keys
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
from meshkit.envelope import keyring
from meshkit.screening_mac import MacKeys, digest_of_answer, digest_of_prompt, mac_verifier
from meshkit.vault import DataKey, VaultDown, VaultRejected
from tests.ports import unused_port

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
        if wrapped not in self.wrapped:
            raise VaultRejected(400)  # of a version that was trimmed
        return self.wrapped[wrapped]

    def trim(self) -> None:
        """Forget the version that wrapped all there is."""
        self.wrapped.clear()


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


def question(
    text="What is the capital of France?",
    *,
    tenant="acme",
    user="ada",
    subject="",
    session="",
    model=b"m" * 32,
    **changes,
):
    asked_by = replace(
        scope(tenant, user, secrets.token_bytes(16)), subject=subject, session=session
    )
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
        model_digest=model,
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
    verify = staticmethod(mac_verifier(lambda: KEYS))


@pytest.fixture
def made() -> Made:
    return Made()


@pytest.fixture
def service_keys() -> KeysInMemory:
    return KeysInMemory()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def redis(tmp_path_factory):
    """One for all: each test has a secret of its own, so none sees another's names."""
    settings = RedisServerSettings(data=tmp_path_factory.mktemp("redis"), port=unused_port())
    async with redis_server(settings) as server:
        yield server


@pytest.fixture
def secret() -> bytes:
    return secrets.token_bytes(32)


@pytest_asyncio.fixture(params=["l1", "l2"])
async def shared(request, redis, secret):
    """What the service promises, it promises with L2 and without."""
    if request.param == "l1":
        yield None
        return
    settings = CacheSettings(redis=redis.link_settings("cache", timeout_ms=5_000))
    async with shared_tier(settings, secret) as tier:
        yield tier


@pytest_asyncio.fixture
async def sealer(service_keys, shared):
    async with keyring(service_keys, wrapped_keys(shared)) as keys:
        yield keys


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_cache(sealer, clock, shared, secret):
    def make(**changes) -> CacheService:
        verify = mac_verifier(lambda: KEYS)
        given = {"sealer": sealer, "verify": verify, "clock": clock, "shared": shared}
        for name in tuple(changes):
            if name in given:
                given[name] = changes.pop(name)
        return CacheService(CacheSettings(**changes), secret=secret, **given)

    return make


@pytest.fixture
def cache(make_cache) -> CacheService:
    return make_cache()

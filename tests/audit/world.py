"""What an audit service stands on in these tests: signer, lock, sealer, and events to append."""

import os
import threading
import time
from contextlib import asynccontextmanager, contextmanager

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from audit.keys.pseudonyms import DerivedKeys
from audit.log.disk import Disk
from audit.log.locks import LockConflict, Locked, SqliteLock
from audit.log.opening import open_audit
from audit.log.signer import MemorySigner
from audit.settings import AuditSettings
from meshkit.call_id import new_call_id
from meshkit.contract import (
    Actor,
    Commitment,
    Connection,
    Event,
    Message,
    Payload,
    Phase,
    Reason,
    Refusal,
    Role,
    TraceContext,
    answer_bytes,
    prompt_bytes,
)
from meshkit.tlog import commit

ORIGIN = "audit.example/log"
MESSAGES = (Message(Role.USER, "my card is 4111 1111 1111 1111, says Ada Lovelace"),)
ANSWER = "noted, ada@example.org"


class MemorySealer:
    """AES-256-GCM under one key in memory, bound to tenant, purpose and aad."""

    def __init__(self):
        self.key = AESGCM(AESGCM.generate_key(256))

    async def seal(self, *, tenant, purpose, plaintext, aad):
        nonce = os.urandom(12)
        return nonce + self.key.encrypt(nonce, plaintext, f"{tenant}/{purpose}/".encode() + aad)

    async def open(self, *, tenant, purpose, sealed, aad):
        bound = f"{tenant}/{purpose}/".encode() + aad
        try:
            return self.key.decrypt(sealed[:12], sealed[12:], bound)
        except InvalidTag:
            raise Refusal(Reason.INTERNAL) from None


class MemoryLock:
    """A lock that can be made to fail, before or after it took the note."""

    def __init__(self):
        self.held = None
        self.down = False
        self.lose_answers = 0

    async def load(self):
        if self.down:
            raise Refusal(Reason.KEYS_DOWN)
        return self.held

    async def replace(self, old, note):
        if self.down:
            raise Refusal(Reason.KEYS_DOWN)
        if old != self.held:
            if self.held is not None and self.held.note == note:
                return self.held
            raise LockConflict
        self.held = Locked(note, 1 if old is None else old.version + 1)
        if self.lose_answers:
            self.lose_answers -= 1
            raise Refusal(Reason.KEYS_DOWN)
        return self.held


class HeldDisk(Disk):
    """A disk whose fsyncs do not end while it is held."""

    def __init__(self):
        self.go = threading.Event()
        self.go.set()

    @contextmanager
    def held(self):
        self.go.clear()
        try:
            yield
        finally:
            self.go.set()

    def sync(self, handle):
        assert self.go.wait(60)
        super().sync(handle)


def commitment(raw):
    salt = os.urandom(32)
    return Commitment(salt, commit(salt, raw))


def make_event(phase=Phase.NOTE, call_id=None, **fields):
    whole = {
        "call_id": call_id or new_call_id(),
        "phase": phase,
        "tenant": "acme",
        "occurred_at_us": time.time_ns() // 1_000,
        "trace": TraceContext(trace_id=os.urandom(16), span_id=os.urandom(8)),
        "actor": Actor(
            spiffe_id="spiffe://example.org/tenant/acme/app",
            tenant="acme",
            workload="app",
            user="ada",
        ),
        "connection": Connection(tls_version="TLSv1.3", key_exchange_group="X25519MLKEM768"),
    }
    return Event(**whole | fields)


def make_intent(call_id=None, **fields):
    received = commitment(prompt_bytes(MESSAGES))
    return make_event(Phase.INTENT, call_id, prompt_received=received, **fields)


def make_outcome(call_id=None, **fields):
    whole = {
        "outcome": "released",
        "model": "smollm2",
        "answer_delivered": commitment(answer_bytes(ANSWER)),
        "answer_released": commitment(answer_bytes(ANSWER)),
        "prompt_screened": commitment(prompt_bytes(MESSAGES)),
        "payload": Payload(screened=MESSAGES, released=ANSWER),
    }
    return make_event(Phase.OUTCOME, call_id, **whole | fields)


class World:
    """What survives the service: its folder, lock, keys. `open()` starts the service on them."""

    def __init__(self, folder):
        self.folder = folder
        self.signer = MemorySigner(ORIGIN)
        self.lock = SqliteLock(folder / "lock.sqlite")
        self.sealer = MemorySealer()
        self.naming_keys = DerivedKeys(bytes(32))
        self.data = folder / "audit"
        self.log = self.data / "log"
        self.vkey = self.signer.vkey

    @asynccontextmanager
    async def open(self, disk=None, **settings):
        whole = {
            "data_dir": self.data,
            "publish_interval_ms": 10,
            "publish_retry_ms": 10,
            "segment_bytes_max": 1 << 18,  # laid out at each start
        }
        async with open_audit(
            AuditSettings(**whole | settings),
            signer=self.signer,
            lock=self.lock,
            sealer=self.sealer,
            pseudonym_key=bytes(32),
            naming_keys=self.naming_keys,
            disk=disk,
        ) as audit:
            yield audit

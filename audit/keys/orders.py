"""Orders about keys, from the operator's commands to the process that holds and keeps them.

    <data>/key-orders/<id>.order.json     {"what": "rewrap", "tenant": "acme", "version": 2}
    <data>/key-orders/<id>.done.json      {"done": 12, "left": 0}, or {"refused": "KEYS_DOWN"}

The operator may neither open nor make data keys; the audit service may, and is the one writer of
its folders. So `sealgate keys` leaves an order there and waits for the answer. Whoever can write
there could as well delete the keys themselves: the folder's mode is the permission. Every order may
be carried out twice, so one that a crash cut off is simply done again.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import structlog

from audit.privacy.holds import FOLDER as HOLDS
from audit.privacy.holds import held_tenants
from meshkit.contract import Reason, Refusal
from meshkit.files import names_like, read_or_none, write_private
from meshkit.rewrap import Asking, rewrap

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from audit.keys.pseudonym_keys import PseudonymKeys
    from meshkit.envelope import Keyring
    from meshkit.wrapped_keys import FolderWrappedKeys

__all__ = ["FOLDER", "KeyDesk", "order"]

log = structlog.get_logger()

FOLDER = "key-orders"
_ORDER, _DONE = ".order.json", ".done.json"
_LOOK_S = 0.05
_ANSWER_S = 3_600
"""So long an answer lies there for its giver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDesk:
    """Carries orders out: whatever it takes of the audit service."""

    vault: Asking
    payloads: Keyring
    payload_keys: FolderWrappedKeys
    naming: PseudonymKeys
    folder: Path
    every_s: float

    async def run(self) -> None:
        """Carry out what is ordered, for ever."""
        await asyncio.to_thread(self.folder.mkdir, mode=0o700, parents=True, exist_ok=True)
        while True:
            await self.work()
            await asyncio.sleep(self.every_s)

    async def work(self) -> None:
        """Carry out what is there now, oldest first. What the disk refuses is for the next look."""
        try:
            if not names_like(self.folder, "*.json"):
                return  # so it is nearly always: not worth a thread each time
            for path in await asyncio.to_thread(_ordered, self.folder):
                await self._answer(path)
        except OSError as failure:
            log.warning("audit.key_orders_failed", errno=failure.errno)

    async def _answer(self, path: Path) -> None:
        raw = await asyncio.to_thread(read_or_none, path)
        if raw is None:  # its giver gave up
            return
        told = await self._carried_out(_read(raw))
        done = path.with_name(path.name.removesuffix(_ORDER) + _DONE)
        await asyncio.to_thread(write_private, done, json.dumps(told).encode())
        await asyncio.to_thread(path.unlink, missing_ok=True)

    async def _carried_out(self, asked: dict[str, Any]) -> dict[str, Any]:
        what = str(asked.get("what"))
        hands: dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]] = {
            "held": self._held,
            "look": self._look,
            "rewrap": self._rewrap,
            "drop": self._drop,
            "rotate-pseudonyms": self._rotate,
            "erase-pseudonyms": self._erase,
        }
        if what not in hands:
            return {"refused": Reason.INVALID_FIELD.name}
        try:
            return await hands[what](asked)
        except Refusal as refusal:
            return {"refused": refusal.reason.name}
        except (KeyError, OSError, TypeError, ValueError) as failure:
            log.warning("audit.key_order_failed", kind=type(failure).__name__)
            return {"refused": Reason.INTERNAL.name}

    async def _held(self, _asked: dict[str, Any]) -> dict[str, Any]:
        return {"payload": self.payloads.held(), "pseudonym": self.naming.ring.held()}

    async def _look(self, asked: dict[str, Any]) -> dict[str, Any]:
        await self.payloads.ask_anew(asked["tenant"])
        await self.naming.ring.ask_anew(asked["tenant"])
        return {}

    async def _rewrap(self, asked: dict[str, Any]) -> dict[str, Any]:
        tenant, version = asked["tenant"], int(asked["version"])
        told = await rewrap(self.vault, self.payload_keys, tenant, version=version)
        told += await rewrap(self.vault, self.naming.store, tenant, version=version)
        return asdict(told)

    async def _drop(self, asked: dict[str, Any]) -> dict[str, Any]:
        holds = self.folder.with_name(HOLDS)
        if asked["tenant"] in await asyncio.to_thread(held_tenants, holds):
            raise Refusal(Reason.HELD)
        payload = await self.payloads.erase_all(asked["tenant"])
        return {"dropped": payload + await self.naming.erase(asked["tenant"])}

    async def _rotate(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"key_id": await self.naming.rotate(asked["tenant"])}

    async def _erase(self, asked: dict[str, Any]) -> dict[str, Any]:
        before = asked.get("before_day")
        return {"erased": await self.naming.erase(asked["tenant"], before_day=before)}


def _ordered(folder: Path) -> list[Path]:
    """Return the orders, oldest first, and drop answers that nobody came for."""
    ages: dict[Path, int] = {}
    for path in folder.glob("*.json"):
        with suppress(FileNotFoundError):  # its giver gave up
            ages[path] = path.stat().st_mtime_ns
    for path, made_ns in ages.items():
        if path.name.endswith(_DONE) and time.time_ns() - made_ns > _ANSWER_S * 1_000_000_000:
            path.unlink(missing_ok=True)
    return sorted((path for path in ages if path.name.endswith(_ORDER)), key=ages.__getitem__)


def _read(raw: bytes) -> dict[str, Any]:
    """Read an order; one that is none asks for nothing."""
    try:
        asked = json.loads(raw)
    except ValueError:
        return {}
    return asked if isinstance(asked, dict) else {}


async def order(data: Path, what: str, *, within_s: float = 60.0, **fields: object) -> Any:  # noqa: ANN401 -- JSON
    """Have the audit service that keeps its log in `data` carry out an order; return its answer.

    Raises:
        Refusal: as it was refused; AUDIT_DOWN, if nobody answers in time: it may still be done.
        OSError: the order cannot be left there.
    """
    name = uuid.uuid4().hex
    asked, done = (data / FOLDER / f"{name}{end}" for end in (_ORDER, _DONE))
    content = json.dumps({"what": what, **fields}).encode()
    await asyncio.to_thread(write_private, asked, content)
    try:
        async with asyncio.timeout(within_s):
            while (raw := await asyncio.to_thread(read_or_none, done)) is None:  # noqa: ASYNC110 -- another process
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        asked.unlink(missing_ok=True)
        raise Refusal(Reason.AUDIT_DOWN) from None
    done.unlink()
    told = json.loads(raw)
    if "refused" in told:
        raise Refusal(Reason[told["refused"]])
    return told

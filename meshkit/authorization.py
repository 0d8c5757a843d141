"""Who may do what: Cedar policies, validated at load, decided in this process.

    book = load_policies(FOLDER)                 schema.cedarschema, *.cedar, entities.json
    authorizer = Authorizer(FOLDER)
    decision = authorizer.decide(Request(actor, "chat", model="smollm2"))

Default is deny. A workload has the roles that the entities file gives its SPIFFE id, a user those
of its token as far as the tenant's `user_roles` go. One digest over all files of a set goes into
every record. A decision takes about 0.1 ms and is memoised for a second under that digest; hence
`context.time` has a resolution of a second too.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, cast

import cedarpy
import structlog

from meshkit.background import running
from meshkit.contract import OPERATORS, Document, StepKind
from meshkit.counters import counted
from meshkit.files import fsync_folder, write_private
from meshkit.policy_files import (
    ENTITIES,
    PoliciesInvalid,
    manifest,
    read_files,
    stamp_of,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from meshkit.contract import Actor

__all__ = [
    "Authorizer",
    "Decision",
    "Policies",
    "PoliciesInvalid",
    "Request",
    "load_policies",
]

log = structlog.get_logger()

ROLES = frozenset({"model_admin", "data_scientist", "auditor", "application", "privacy_officer"})
UNCLASSIFIED = "unclassified"
_ON_MODELS = frozenset({"model.read", *(f"model.{kind.value}" for kind in StepKind)})
_MEMO_S = 1
_MEMO_MAX = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be decided.

    action: `chat`, `model.read` or a step of a release (these need `model`), or one on `tenant`:
        `models.list`, `audit.read`,
        `tokens.reveal`, `payload.read`, `payload.export`, `payload.erase`, `hold.set`,
        `hold.release`, `hold.list`.
    tenant: whose records or models; empty for the actor's own.
    """

    actor: Actor
    action: str
    model: str = ""
    tenant: str = ""
    purpose: str = ""
    peer_ip: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer: `policies` are the @ids that decided it, none where nothing permitted."""

    allowed: bool
    policies: tuple[str, ...]
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """A validated set: what Cedar parsed, and what we read of the entities ourselves."""

    digest: bytes
    """SHA-256 of `manifest(files)`: 32 bytes."""
    files: Mapping[str, bytes]
    """By name: the very bytes of the set, for the archive."""
    parsed: cedarpy.PolicySet
    schema: cedarpy.Schema
    entities: cedarpy.Entities
    roles: Mapping[str, frozenset[str]]
    """By SPIFFE id."""
    user_roles: Mapping[str, frozenset[str]]
    """By tenant: what a token's claim may give."""
    data_class: Mapping[str, str]
    """By tenant."""
    classification: Mapping[str, str]
    """By model."""

    @property
    def documents(self) -> tuple[Document, ...]:
        """What the digest is of, and the files that it names in turn.

        Who has which role is told of all tenants in one file: no tenant's auditor may read that.
        """
        whole = Document("policy.authorization", manifest(self.files))
        return whole, *(
            Document("policy.authorization.file", raw, (OPERATORS,) if name == ENTITIES else ())
            for name, raw in sorted(self.files.items())
            if raw
        )

    @property
    def rules(self) -> dict[str, bytes]:
        """All files but that of the entities."""
        return {name: raw for name, raw in self.files.items() if name != ENTITIES}


def load_policies(folder: Path) -> Policies:
    """Read and validate a set.

    Raises:
        PoliciesInvalid: a file is missing, unreadable or malformed, a policy does not fit the
            schema, or an entity does not.
    """
    files = read_files(folder)
    texts = {name: text_of(name, raw) for name, raw in files.items()}
    rules = "\n".join(text for name, text in texts.items() if name.endswith(".cedar"))
    schema_text, entity_text = texts["schema.cedarschema"], texts["entities.json"]
    try:
        schema = cedarpy.Schema.from_str(schema_text)
        parsed = cedarpy.PolicySet.from_str(rules)
        checked = cedarpy.validate_policies(rules, schema_text)
        if not checked.validation_passed:
            msg = f"policies do not fit the schema: {'; '.join(map(str, checked.errors))}"
            raise PoliciesInvalid(msg)
        entities = cedarpy.Entities.from_json_str(entity_text, schema)
    except ValueError as error:
        raise PoliciesInvalid(str(error)) from error
    return Policies(
        digest=sha256(manifest(files)).digest(),
        files=files,
        parsed=parsed,
        schema=schema,
        entities=entities,
        **_facts(json.loads(entity_text)),
    )


@dataclass(slots=True)
class Authorizer:
    """Decides by the newest good set in `folder`."""

    folder: Path
    archive: Path | None = None
    """Where each set is kept under its digest, so that a record's digest can be looked up."""
    clock: Callable[[], float] = time.time
    policies: Policies = field(init=False)
    listeners: list[Callable[[Policies, Policies], None]] = field(default_factory=list)
    """Told of each change: the set before, the set in force now."""
    reload_failures: int = field(init=False, default=0)
    _stamp: tuple[tuple[str, int, int], ...] = field(init=False)
    _failed: tuple[tuple[str, int, int], ...] = field(init=False, default=())
    _memo: dict[tuple[object, ...], Decision] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Load: a service without policies does not start. Raises PoliciesInvalid, OSError."""
        self._stamp = stamp_of(self.folder)
        self.policies = load_policies(self.folder)
        self._keep(self.policies)

    @property
    def digest(self) -> bytes:
        """Digest of the set in force: 32 bytes."""
        return self.policies.digest

    def roles_of(self, spiffe_id: str) -> frozenset[str]:
        """Return a workload's roles; none if it is not in the entities."""
        return self.policies.roles.get(spiffe_id, frozenset())

    def user_roles(self, tenant: str, claimed: frozenset[str]) -> frozenset[str]:
        """Return what of a token's claim the tenant allows."""
        return claimed & self.policies.user_roles.get(tenant, frozenset())

    def decide(self, request: Request) -> Decision:
        """Decide. Whatever goes wrong while deciding is a denial, as Cedar has it."""
        second = int(self.clock())
        key = (
            request.actor.spiffe_id, request.actor.user, request.actor.roles, request.action,
            request.model, request.tenant, request.purpose, request.peer_ip, second // _MEMO_S,
        )  # fmt: skip
        if (known := self._memo.get(key)) is not None:
            return known
        if len(self._memo) >= _MEMO_MAX:
            self._memo.clear()
        decision = self._memo[key] = _decide(self.policies, request, second)
        return decision

    def reload(self) -> bool:
        """Take the set in the folder if it changed and is good; return whether it was taken.

        A bad set is counted and logged once, one that cannot be read at each look; the old one
        stays in force.

        Raises:
            OSError: the folder could not be read, or the set not be kept in the archive: none comes
                into force that a record's digest could not be looked up in. The old one stays.
        """
        stamp = stamp_of(self.folder)
        if stamp in (self._stamp, self._failed):
            return False
        try:
            fresh = load_policies(self.folder)
        except PoliciesInvalid as bad:
            self.reload_failures += 1
            # What could not be read may be sound, and looks the same when it can be.
            self._failed = () if isinstance(bad.__cause__, OSError) else stamp
            counted("policies.rejected")
            log.warning("policies.rejected", kept=self.digest.hex())
            return False
        self._keep(fresh)
        old, self._stamp, self._failed, self.policies = self.policies, stamp, (), fresh
        self._memo.clear()
        log.info("policies.loaded", digest=self.digest.hex())
        for listener in self.listeners:
            listener(old, fresh)
        return True

    @asynccontextmanager
    async def watching(self, every_s: float) -> AsyncIterator[None]:
        """Look for a changed set every `every_s` seconds, for as long as the block runs."""
        async with running(self._watch(every_s), "policies"):
            yield

    async def _watch(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                self.reload()
            except OSError as failure:  # for the next look
                counted("policies.rejected")
                log.warning("policies.unread", kept=self.digest.hex(), errno=failure.errno)

    def _keep(self, policies: Policies) -> None:
        """Copy a set into the archive, once per digest: all of it or nothing. Raises OSError."""
        if self.archive is None:
            return
        kept = self.archive / policies.digest.hex()
        if kept.is_dir():
            return
        fresh = self.archive / f".{kept.name}.{os.getpid()}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            fresh.mkdir(parents=True)
            for name, raw in policies.files.items():
                write_private(fresh / name, raw, mode=0o644)
            fresh.rename(kept)
        except OSError:
            shutil.rmtree(fresh, ignore_errors=True)
            if not kept.is_dir():  # else another process was first
                raise
        fsync_folder(self.archive)


def _decide(policies: Policies, request: Request, second: int) -> Decision:
    answer = cedarpy.is_authorized(
        cast("dict[str, Any]", _cedar_request(policies, request, second)),
        policies.parsed,
        _entities_for(policies, request.actor),
        policies.schema,
    )
    names = answer.diagnostics.id_annotations_by_reason
    return Decision(
        allowed=answer.allowed,
        policies=tuple(sorted(names.get(each, each) for each in answer.diagnostics.reasons)),
        digest=policies.digest,
    )


def _cedar_request(policies: Policies, request: Request, second: int) -> dict[str, object]:
    """Put a request into Cedar's JSON form: ids as data, so nothing in them is syntax."""
    actor = request.actor
    context: dict[str, object] = {
        "purpose": request.purpose,
        "time": _extension("datetime", datetime.fromtimestamp(second, UTC).strftime("%FT%TZ")),
        "data_class": policies.data_class.get(actor.tenant, "restricted"),
    }
    if address := _ip(request.peer_ip):
        context["source_ip"] = _extension("ip", address)
    if request.action == "chat" or request.action in _ON_MODELS:
        context["model_classification"] = policies.classification.get(request.model, UNCLASSIFIED)
        resource = _uid("Model", request.model)
    else:
        resource = _uid("Tenant", request.tenant or actor.tenant)
    return {
        "principal": _principal(actor),
        "action": _uid("Action", request.action),
        "resource": resource,
        "context": context,
    }


def _entities_for(policies: Policies, actor: Actor) -> cedarpy.Entities:
    """Add the user, if there is one, to the entities: it exists for this call only."""
    if actor.user is None:
        return policies.entities
    user = {
        "uid": _principal(actor),
        "attrs": {
            "tenant": {"__entity": _uid("Tenant", actor.tenant)},
            "workload": {"__entity": _uid("Workload", actor.spiffe_id)},
        },
        "parents": [_uid("Role", role) for role in sorted(actor.roles & ROLES)],
    }
    return policies.entities.with_added_json_str(json.dumps([user]), policies.schema)


def _principal(actor: Actor) -> dict[str, str]:
    if actor.user is None:
        return _uid("Workload", actor.spiffe_id)
    return _uid("User", f"{actor.spiffe_id}#{actor.user}")


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": f"Sealgate::{kind}", "id": name}


def _extension(function: str, argument: str) -> dict[str, dict[str, str]]:
    return {"__extn": {"fn": function, "arg": argument}}


def _ip(text: str) -> str:
    """Return an address as Cedar reads it, or nothing: a policy that needs one then denies."""
    with suppress(ValueError):
        address = ip_address(text)
        mapped = getattr(address, "ipv4_mapped", None)
        return str(mapped or address)
    return ""


def _facts(entities: list[dict[str, Any]]) -> dict[str, Any]:
    """Read roles, tenants and models out of entities that the schema has already approved."""
    by_kind: dict[str, dict[str, dict[str, Any]]] = {}
    for entity in entities:
        kind = entity["uid"]["type"].removeprefix("Sealgate::")
        by_kind.setdefault(kind, {})[entity["uid"]["id"]] = entity
    tenants, models = by_kind.get("Tenant", {}), by_kind.get("Model", {})
    for name, each in by_kind.get("Workload", {}).items():
        if f"/tenant/{each['attrs']['tenant']['__entity']['id']}/" not in name:
            msg = "entities.json: a workload stands under a tenant that is not its SPIFFE id's"
            raise PoliciesInvalid(msg)
    if unknown := set(by_kind.get("Role", {})) - ROLES:
        msg = f"entities.json: {len(unknown)} roles that Sealgate does not know"
        raise PoliciesInvalid(msg)
    return {
        "roles": {
            name: frozenset(parent["id"] for parent in each["parents"])
            for name, each in by_kind.get("Workload", {}).items()
        },
        "user_roles": {name: frozenset(t["attrs"]["user_roles"]) for name, t in tenants.items()},
        "data_class": {name: t["attrs"]["data_class"] for name, t in tenants.items()},
        "classification": {name: m["attrs"]["classification"] for name, m in models.items()},
    }

"""PCI DSS 4.0.1, 10.2.1.1 to .7 by the six fields of 10.2.2, out of a real log's leaves.

Each requirement is met by events that whoever acts makes; here the act is made where that takes no
other service, and else its event, as its maker makes it.
"""

import asyncio
import json
import tempfile
from pathlib import Path

import pytest

from audit.records.notes import Notes
from audit.records.ocsf_record import ocsf_record
from audit.records.own_events import archive_of, log_noted
from audit.records.reads import Reads
from audit.settings import AuditSettings
from meshkit.authorization import Authorizer
from meshkit.contract import Actor, Connection, Document, Reason, Refusal, TraceContext
from meshkit.deadline import Deadline
from meshkit.identity import TenantIdentity
from meshkit.policies import FOLDER
from meshkit.request import RequestContext, with_context
from meshkit.tlog import check_log
from tests.audit.world import ORIGIN, World, make_intent, make_outcome

DOMAIN = "sealgate.local"
OWN = f"spiffe://{DOMAIN}/service/audit"
CAME = Connection(tls_version="TLSv1.3", key_exchange_group="X25519MLKEM768", peer_ip="192.0.2.77")
OFFICER = Actor(
    spiffe_id=f"spiffe://{DOMAIN}/tenant/demo/officer",
    tenant="demo",
    workload="officer",
    user="eve",
)

REQUIREMENTS = {
    "10.2.1.1 user access to the data": {"chat", "payload.read"},
    "10.2.1.2 actions of administrators": {"hold.set", "policy.change", "key.trim"},
    "10.2.1.3 access to the log": {"log.read", "log.search", "log.export"},
    "10.2.1.4 failed access": {"chat:DENIED", "log.read:DENIED", "access.refused:UNAUTHENTICATED"},
    "10.2.1.5 changed credentials and rights": {"key.rotate", "permission.change", "receipt.key"},
    "10.2.1.6 start and stop of the log": {"log.start", "log.stop"},
    "10.2.1.7 objects made and deleted": {"archive.put", "subject.erase", "key.destroy"},
}
FIELDS = {
    "user id": lambda leaf: (
        leaf["event"].get("user") or leaf["event"].get("actor") or leaf["log"]["producer"]
    ),
    "type": lambda leaf: leaf["event"]["action"] and leaf["event"]["ocsf"]["type_uid"],
    "date and time": lambda leaf: leaf["event"]["time_us"] and leaf["log"]["received_us"],
    "success or failure": lambda leaf: leaf["event"]["ocsf"]["status_id"],
    "origin": lambda leaf: leaf["event"].get("peer") or leaf["log"]["producer"],
    "affected resource": lambda leaf: leaf["event"].get("model") or leaf["event"].get("detail"),
}


async def reads_happen(notes, audit):
    """An auditor of the tenant reads; then tries another tenant's."""
    auditor = f"spiffe://{DOMAIN}/tenant/demo/auditor"
    with_context(
        RequestContext(
            method="/sealgate.v1.AuditService/GetRecord",
            deadline=Deadline(float("inf")),
            trace=TraceContext(trace_id=b"t" * 16, span_id=b"s" * 8),
            connection=CAME,
            identity=TenantIdentity(trust_domain=DOMAIN, tenant="demo", workload="auditor"),
        )
    )
    reads = Reads(notes=notes, naming=audit, authorizer=Authorizer(FOLDER), per_s_max=50)
    assert reads.actor().spiffe_id == auditor
    async with reads.of("call", "", detail={"call": "0" * 32}) as read:
        read.count = 1
    with pytest.raises(Refusal):
        async with reads.of("call", "other", detail={"call": "0" * 32}):
            raise AssertionError
    for action in ("log.search", "log.export"):
        async with reads.of("search", "", action=action):
            pass
    await reads.stranger(Refusal(Reason.UNAUTHENTICATED), "/x/GetRecord", CAME)
    await reads.settled()


async def everything_happens(world):
    """Leave a log in which each requirement's events were made."""
    async with world.open() as audit, log_noted(audit, OWN):
        notes = Notes(audit, producer=OWN)
        for outcome in ("released", "DENIED"):
            called = make_intent(connection=CAME, model="smollm2")
            await audit.append(called, producer=f"spiffe://{DOMAIN}/service/gateway")
            ended = make_outcome(called.call_id, outcome=outcome, connection=CAME)
            await audit.append(ended, producer=f"spiffe://{DOMAIN}/service/gateway")
        await reads_happen(notes, audit)
        archive = archive_of(AuditSettings(data_dir=world.data), audit, OWN)
        rules = Document("policy.compliance", b"{}", ("demo",))
        await archive.put(rules, rules.digest)
        about = {"tenant": "demo", "actor": OFFICER, "connection": CAME}
        for action in ("payload.read", "hold.set", "subject.erase"):
            await notes.note(action, **about, subject="patient-7", detail={"index": "3"})
        for action in ("key.rotate", "key.trim", "key.destroy"):
            await notes.note(action, tenant="demo", detail={"key": "tenant-demo", "version": "2"})
        changed = {"kind": "authorization", "old": "0" * 64, "new": "1" * 64}
        for action in ("policy.change", "permission.change"):
            await notes.note(action, detail=changed)


@pytest.fixture(scope="module")
def leaves():
    """By what happened, `action` or `action:OUTCOME`: each leaf of a log that verifies."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        asyncio.run(everything_happens(world))

        def read(path):
            file = world.log / path
            return file.read_bytes() if file.exists() else None

        paths = [
            path.relative_to(world.log).as_posix()
            for path in (world.log / "tile").rglob("*")
            if path.is_file() and not path.name.startswith(".")
        ]
        size = check_log(read, world.vkey, iter(paths)).size
        raw = read(f"tile/entries/000.p/{size}")
    return by_what_happened(raw)


def by_what_happened(raw):
    found, at, index = {}, 0, 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 2])
        leaf = raw[at + 2 : at + 2 + size]
        event = json.loads(leaf)["event"]
        found.setdefault(event["action"], []).append((index, leaf))
        found.setdefault(f"{event['action']}:{event.get('outcome', '')}", []).append((index, leaf))
        at, index = at + 2 + size, index + 1
    return found


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("requirement", REQUIREMENTS)
def test_each_required_event_has_each_required_field(leaves, requirement, field):
    for happened in REQUIREMENTS[requirement]:
        assert leaves.get(happened), happened
        # An INTENT cannot know yet whether it will succeed: its OUTCOME says.
        _, leaf = leaves[happened][-1]
        assert FIELDS[field](json.loads(leaf)), (happened, field)


@pytest.mark.parametrize("requirement", REQUIREMENTS)
def test_each_required_event_is_whole_as_ocsf_too(leaves, requirement):
    for happened in REQUIREMENTS[requirement]:
        index, leaf = leaves[happened][-1]
        record = ocsf_record(leaf, index, ORIGIN)
        assert record["metadata"]["uid"] == f"{ORIGIN}/{index}"
        assert record["status_id"] in {1, 2}
        assert record["time"] > 0


def test_success_and_failure_are_told_apart(leaves):
    def status(happened):
        return json.loads(leaves[happened][-1][1])["event"]["ocsf"]["status_id"]

    assert status("log.read:ok") == status("chat:released") == 1
    assert status("log.read:DENIED") == status("chat:DENIED") == 2
    assert status("access.refused:UNAUTHENTICATED") == 2


def test_no_name_is_told(leaves):
    everything = b"".join(leaf for found in leaves.values() for _, leaf in found)
    for name in (b"canary-eve", b"patient-7", b"192.0.2.77", b"tenant/demo"):
        assert name not in everything, name

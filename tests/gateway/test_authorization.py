"""The shipped policies, what a broken set does, and what a decision is remembered for."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from meshkit import authorization
from meshkit.authorization import Authorizer, PoliciesInvalid, Request, load_policies
from meshkit.contract import Actor
from meshkit.counters import counters
from meshkit.policies import FOLDER
from tests.gateway.conftest import until

PREFIX = "spiffe://sealgate.local/tenant/demo/"
ROLES = ("model_admin", "data_scientist", "auditor", "application")


def workload(name="assistant", tenant="demo"):
    spiffe_id = f"spiffe://sealgate.local/tenant/{tenant}/{name}"
    return Actor(spiffe_id=spiffe_id, tenant=tenant, workload=name)


def user(*roles, name="assistant"):
    return replace(workload(name), user="ada", roles=frozenset(roles))


def edit(folder, change):
    path = folder / "entities.json"
    entities = json.loads(path.read_text())
    change(entities)
    path.write_text(json.dumps(entities))


def with_roles(folder):
    """Give the demo tenant one workload per role, and a model of each classification."""

    def change(entities):
        for role in ROLES:
            entities.append(
                {
                    "uid": {"type": "Sealgate::Workload", "id": PREFIX + role.replace("_", "-")},
                    "attrs": {"tenant": {"__entity": {"type": "Sealgate::Tenant", "id": "demo"}}},
                    "parents": [{"type": "Sealgate::Role", "id": role}],
                }
            )
        for kind in ("internal", "restricted"):
            entities.append(
                {
                    "uid": {"type": "Sealgate::Model", "id": f"{kind}-model"},
                    "attrs": {"classification": kind},
                    "parents": [],
                }
            )

    edit(folder, change)
    return Authorizer(folder)


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("model-admin", {"chat", "restricted", "list"}),
        ("data-scientist", {"chat", "list"}),
        ("auditor", {"list", "read"}),
        ("application", {"chat", "list"}),
        ("nobody", set()),
    ],
)
def test_what_each_role_may(policies, role, may) -> None:
    authorizer = with_roles(policies)
    asked = {
        "chat": Request(actor=workload(role), action="chat", model="internal-model"),
        "restricted": Request(actor=workload(role), action="chat", model="restricted-model"),
        "list": Request(actor=workload(role), action="models.list"),
        "read": Request(actor=workload(role), action="audit.read"),
    }

    assert {name for name, each in asked.items() if authorizer.decide(each).allowed} == may


def test_an_auditor_reads_no_other_tenant(policies) -> None:
    authorizer = Authorizer(policies)
    mine = Request(actor=workload("auditor"), action="audit.read", tenant="demo")

    assert authorizer.decide(mine).allowed
    assert not authorizer.decide(replace(mine, tenant="other")).allowed


def test_a_certificate_of_another_tenant_has_not_the_role_of_a_namesake(policies) -> None:
    request = Request(actor=workload("auditor", "other"), action="audit.read", tenant="demo")

    assert not Authorizer(policies).decide(request).allowed


def test_a_user_has_the_roles_of_its_token_behind_a_known_workload(policies) -> None:
    authorizer = Authorizer(policies)

    def may(actor):
        return authorizer.decide(Request(actor=actor, action="chat", model="m"))

    assert may(user("data_scientist")).allowed
    assert not may(user()).allowed
    assert not may(user("root")).allowed
    denied = may(user("data_scientist", name="stranger"))
    assert denied.policies == ("users-only-behind-known-workloads",)


def test_a_tenant_bounds_what_a_token_may_claim(policies) -> None:
    authorizer = Authorizer(policies)

    claimed = frozenset({"application", "model_admin"})
    assert authorizer.user_roles("demo", claimed) == {"application"}
    assert authorizer.user_roles("nowhere", claimed) == frozenset()


def test_most_sensitive_data_needs_a_classified_model(policies) -> None:
    def restrict(entities):
        for entity in entities:
            if entity["uid"]["id"] == "demo":
                entity["attrs"]["data_class"] = "restricted"

    edit(policies, restrict)
    authorizer = with_roles(policies)
    request = Request(actor=workload("application"), action="chat", model="unheard-of")

    decision = authorizer.decide(request)
    assert not decision.allowed
    assert decision.policies == ("restricted-data-not-to-unclassified-models",)
    assert authorizer.decide(replace(request, model="internal-model")).allowed


@pytest.mark.parametrize(
    ("condition", "passing", "failing"),
    [
        ('context.purpose == "billing"', {"purpose": "billing"}, {"purpose": ""}),
        (
            'context has source_ip && context.source_ip.isInRange(ip("10.0.0.0/8"))',
            {"peer_ip": "10.1.2.3"},
            {"peer_ip": "192.0.2.1"},
        ),
        (
            'context has source_ip && context.source_ip.isInRange(ip("10.0.0.0/8"))',
            {"peer_ip": "::ffff:10.1.2.3"},
            {"peer_ip": ""},
        ),
    ],
)
def test_purpose_and_address_can_be_demanded(policies, condition, passing, failing) -> None:
    (policies / "more.cedar").write_text(
        f'@id("demanded") forbid (principal, action == Sealgate::Action::"chat", resource)'
        f" unless {{ {condition} }};"
    )
    authorizer = Authorizer(policies)
    request = Request(actor=workload(), action="chat", model="m")

    assert authorizer.decide(replace(request, **passing)).allowed
    assert not authorizer.decide(replace(request, **failing)).allowed


def test_time_can_be_demanded_and_is_that_of_the_call(policies) -> None:
    (policies / "more.cedar").write_text(
        '@id("office-hours") forbid (principal, action, resource) unless {'
        ' context.time.toTime() >= duration("8h") && context.time.toTime() < duration("18h") };'
    )
    now = [10 * 3_600]
    authorizer = Authorizer(policies, clock=lambda: now[0])
    request = Request(actor=workload(), action="chat", model="m")

    assert authorizer.decide(request).allowed
    now[0] = 20 * 3_600
    assert not authorizer.decide(request).allowed


def test_an_id_is_data_and_never_syntax(policies) -> None:
    hostile = '"; permit(principal, action, resource); //'
    request = Request(actor=workload(hostile), action="chat", model=hostile, purpose=hostile)

    assert not Authorizer(policies).decide(request).allowed


# --- files -------------------------------------------------------------------------------------

BROKEN = {
    "base.cedar": [
        "permit (principal, action",
        'permit (principal == Nobody::"x", action, resource);',
        'permit (principal, action, resource) when { context.porpoise == "x" };',
    ],
    "schema.cedarschema": ["namespace Sealgate {"],
    "entities.json": ["[{", "{}", '[{"uid": {"type": "Sealgate::Model", "id": "m"}, "attrs": {}}]'],
}


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in BROKEN.items() for text in texts]
)
def test_a_broken_set_keeps_the_old_one_and_is_counted_once(policies, name, text) -> None:
    authorizer = Authorizer(policies)
    before = authorizer.digest
    (policies / name).write_text(text)

    assert not authorizer.reload()
    assert not authorizer.reload()
    assert authorizer.digest == before
    assert authorizer.reload_failures == 1
    assert authorizer.decide(Request(actor=workload(), action="chat", model="m")).allowed
    with pytest.raises(PoliciesInvalid):
        load_policies(policies)


@pytest.mark.parametrize("name", ["schema.cedarschema", "entities.json"])
def test_a_missing_file_is_a_broken_set(policies, name) -> None:
    (policies / name).unlink()
    with pytest.raises(PoliciesInvalid, match=name):
        Authorizer(policies)


def test_a_workload_under_the_wrong_tenant_is_a_broken_set(policies) -> None:
    def move(entities):
        for entity in entities:
            if entity["uid"]["id"].endswith("/demo/auditor"):
                entity["attrs"]["tenant"]["__entity"]["id"] = "other"

    edit(policies, move)
    with pytest.raises(PoliciesInvalid, match="SPIFFE"):
        load_policies(policies)


def test_a_changed_set_is_taken_and_old_decisions_are_forgotten(policies) -> None:
    authorizer = Authorizer(policies, clock=lambda: 1_000.0)
    request = Request(actor=workload(), action="chat", model="m")
    old = authorizer.decide(request)
    (policies / "more.cedar").write_text('@id("stop") forbid (principal, action, resource);')

    assert authorizer.reload()
    new = authorizer.decide(request)
    assert (old.allowed, new.allowed) == (True, False)
    assert new.policies == ("stop",)
    assert new.digest != old.digest


async def test_a_watched_folder_is_reloaded_by_itself(policies) -> None:
    authorizer = Authorizer(policies)
    before = authorizer.digest
    async with authorizer.watching(every_s=0.02):
        (policies / "more.cedar").write_text('@id("stop") forbid (principal, action, resource);')
        await until(lambda: authorizer.digest != before)


def test_a_decision_is_remembered_for_its_second_only(policies, monkeypatch) -> None:
    now = [50.2]
    authorizer = Authorizer(policies, clock=lambda: now[0])
    request = Request(actor=workload(), action="chat", model="m")
    first = authorizer.decide(request)

    now[0] = 50.9
    assert authorizer.decide(request) is first
    now[0] = 51.0
    assert authorizer.decide(request) is not first
    assert authorizer.decide(replace(request, model="n")) is not first


def test_the_digest_covers_every_file(policies) -> None:
    digests = {load_policies(policies).digest}
    for name in ("base.cedar", "schema.cedarschema"):
        path = policies / name
        path.write_text(path.read_text() + "\n// a remark\n")
        digests.add(load_policies(policies).digest)
    edit(policies, lambda entities: entities.reverse())
    digests.add(load_policies(policies).digest)

    assert len(digests) == 4


def test_each_set_is_kept_under_its_digest(policies, tmp_path) -> None:
    authorizer = Authorizer(policies, archive=tmp_path / "kept")
    kept = tmp_path / "kept" / authorizer.digest.hex()

    assert load_policies(kept).digest == authorizer.digest


async def test_a_set_that_cannot_be_kept_comes_into_force_when_it_can(policies, tmp_path) -> None:
    archive = tmp_path / "kept"
    authorizer = Authorizer(policies, archive=archive)
    before, told = authorizer.digest, counters().get("policies.rejected", 0)
    shutil.rmtree(archive)
    archive.write_text("in the way")
    async with authorizer.watching(every_s=0.02):
        (policies / "more.cedar").write_text('@id("stop") forbid (principal, action, resource);')
        await until(lambda: counters().get("policies.rejected", 0) > told + 1)
        assert authorizer.digest == before

        archive.unlink()
        await until(lambda: authorizer.digest != before)
    assert load_policies(archive / authorizer.digest.hex()).digest == authorizer.digest


def test_a_set_that_could_not_be_read_is_tried_again_unchanged(policies, monkeypatch) -> None:
    def failing(path, *mode):
        if path.name == "more.cedar":
            raise OSError(errno.EIO, "disk")
        return path_open(path, *mode)

    authorizer, path_open = Authorizer(policies), Path.open
    (policies / "more.cedar").write_text('@id("stop") forbid (principal, action, resource);')
    with monkeypatch.context() as disk:
        disk.setattr(Path, "open", failing)
        assert not authorizer.reload()
    assert authorizer.reload()
    assert "more.cedar" in authorizer.policies.files


def test_a_folder_that_may_not_be_listed_is_no_set_without_rules(policies, monkeypatch) -> None:
    def closed(_folder) -> None:
        raise PermissionError(errno.EACCES, "closed")

    authorizer = Authorizer(policies)
    before = authorizer.digest
    with monkeypatch.context() as disk:
        disk.setattr(os, "listdir", closed)
        with pytest.raises(PermissionError):
            authorizer.reload()
        with pytest.raises(PoliciesInvalid, match="closed"):
            load_policies(policies)
    assert authorizer.digest == before


def test_of_a_set_all_is_kept_or_nothing(policies, tmp_path, monkeypatch) -> None:
    def full(path, _content, **_about) -> None:
        if path.name == "schema.cedarschema":
            raise OSError(errno.ENOSPC, "full")
        path.write_bytes(b"")

    archive = tmp_path / "kept"
    with monkeypatch.context() as disk:
        disk.setattr(authorization, "write_private", full)
        with pytest.raises(OSError, match="full"):
            Authorizer(policies, archive=archive)
    assert not list(archive.iterdir())
    authorizer = Authorizer(policies, archive=archive)

    assert [path.name for path in archive.iterdir()] == [authorizer.digest.hex()]
    assert load_policies(archive / authorizer.digest.hex()).digest == authorizer.digest


def test_the_shipped_set_is_found_and_valid() -> None:
    authorizer = Authorizer(FOLDER)

    assert authorizer.roles_of(PREFIX + "assistant") == {"application"}
    assert authorizer.roles_of(PREFIX + "auditor") == {"auditor"}
    assert authorizer.roles_of(PREFIX + "stranger") == frozenset()

r"""Trust policies of C2SP tlog-policy: which logs, which witnesses, and how many of them. PURE.

    log <vkey> [<url>]
    witness <name> <vkey> [<url>]
    group <name> <k>|all|any <name>...
    quorum <name>|none

Lines hold items between spaces or tabs; empty lines, and lines that begin with `#`, are passed
over. A name is known from its own line on; it is a member of one group at most, so that no witness
counts twice. A witness that cosigns with two keys is two witnesses here:

    log mesh.example/audit+0f6d17a2+AQ...
    witness north      north.example+aabbccdd+BC...  https://north.example:8445
    witness north-pq   north.example+11223344+Bg...  https://north.example:8445
    group   north-both all north north-pq
    witness south-pq   south.example+55667788+Bg...  https://south.example:8445
    group   both       all north-both south-pq
    quorum  both

A checkpoint is good under a policy if a log of the policy signed it, no signature by a key of the
policy fails, and the witnesses whose cosignatures it bears satisfy the quorum.

Source: https://c2sp.org/tlog-policy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meshkit.contract import Checkpoint
from meshkit.tlog.cosignature import CosignerKey
from meshkit.tlog.heads import read_checkpoint_text
from meshkit.tlog.note import NoteInvalid, VerifierKey, check_signatures, split_note

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["Group", "Judged", "Policy", "PolicyInvalid", "PolicyWitness", "judge_checkpoint"]

POLICY_BYTES_MAX = 1_000_000
LINES_MAX = 10_000
_NONE = "none"
_COUNT = re.compile(r"[1-9][0-9]{0,5}", re.ASCII)
_BLANKS = re.compile(r"[ \t]+")


class PolicyInvalid(NoteInvalid):
    """A policy file is malformed. Names the line, from 1; 0 is the file as a whole."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"policy, line {line}: {reason}" if line else f"policy: {reason}")
        self.line = line


@dataclass(frozen=True, slots=True)
class PolicyWitness:
    """A witness line."""

    name: str
    key: CosignerKey
    url: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """`need` of `members` (names of witnesses or groups) make the group a witness."""

    name: str
    need: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A parsed policy."""

    logs: tuple[VerifierKey, ...]
    witnesses: tuple[PolicyWitness, ...]
    groups: tuple[Group, ...] = ()
    quorum: str = _NONE
    """Name of a witness or group; or `none`."""

    @classmethod
    def parse(cls, data: bytes) -> Policy:
        """Read a policy file.

        Raises:
            PolicyInvalid: malformed; names the line.
        """
        return _parsed(data)

    @classmethod
    def of_log(cls, *keys: VerifierKey) -> Policy:
        """Trust one log by any of its keys, without any witness."""
        return cls(logs=keys, witnesses=())

    def holds(self, cosigned: Collection[str]) -> bool:
        """Tell whether witnesses of these names satisfy the quorum."""
        true = {witness.name for witness in self.witnesses if witness.name in cosigned}
        for group in self.groups:  # each comes after its members
            if sum(member in true for member in group.members) >= group.need:
                true.add(group.name)
        return self.quorum == _NONE or self.quorum in true

    def text(self) -> str:
        """Write the policy as a file; what it means is the same when it is read again."""
        lines = [f"log {key}" for key in self.logs]
        lines += [f"witness {w.name} {w.key} {w.url}".rstrip() for w in self.witnesses]
        lines += [f"group {g.name} {g.need} {' '.join(g.members)}" for g in self.groups]
        return "\n".join([*lines, f"quorum {self.quorum}", ""])


@dataclass(slots=True)
class _Draft:
    logs: list[VerifierKey] = field(default_factory=list)
    witnesses: list[PolicyWitness] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    free: set[str] = field(default_factory=set)
    """Defined names that are in no group yet."""
    names: set[str] = field(default_factory=set)
    quorum: str | None = None


def _parsed(data: bytes) -> Policy:
    if len(data) > POLICY_BYTES_MAX:
        raise PolicyInvalid(0, "file is too long")
    # Octets stay what they are: names are compared, never understood.
    lines = data.decode(errors="surrogateescape").split("\n")
    if len(lines) > LINES_MAX:
        raise PolicyInvalid(0, "file is too long")
    draft = _Draft()
    for number, line in enumerate(lines, 1):
        if any((c < " " and c != "\t") or c == "\x7f" for c in line):
            raise PolicyInvalid(number, "control character")
        items = [item for item in _BLANKS.split(line) if item]
        if items and not items[0].startswith("#"):
            try:
                _add(draft, items)
            except NoteInvalid as invalid:
                raise PolicyInvalid(number, str(invalid)) from None
    if draft.quorum is None:
        raise PolicyInvalid(0, "quorum is missing")
    return Policy(
        logs=tuple(draft.logs),
        witnesses=tuple(draft.witnesses),
        groups=tuple(draft.groups),
        quorum=draft.quorum,
    )


def _need(holds: object, reason: str) -> None:
    if not holds:
        raise NoteInvalid(reason)


def _add(draft: _Draft, items: list[str]) -> None:
    match items:
        case ["log", vkey, *url] if len(url) <= 1:
            key = VerifierKey.parse(vkey)
            _need(all(key.public != other.public for other in draft.logs), "log is there twice")
            draft.logs.append(key)
        case ["witness", name, vkey, *url] if len(url) <= 1:
            _define(draft, name)
            cosigner = CosignerKey.parse(vkey)
            known = (other.key.public for other in draft.witnesses)
            _need(cosigner.public not in known, "witness is there twice")
            draft.witnesses.append(PolicyWitness(name, cosigner, *url))
        case ["group", name, need, *members] if members:
            _add_group(draft, name, need, members)
        case ["quorum", name]:
            _need(draft.quorum is None, "quorum is there twice")
            _need(name == _NONE or name in draft.names, "name is not defined")
            draft.quorum = name
        case _:
            _need(holds=False, reason="line is malformed")


def _define(draft: _Draft, name: str) -> None:
    _need(name != _NONE and name not in draft.names, "name is taken")
    draft.names.add(name)
    draft.free.add(name)


def _add_group(draft: _Draft, name: str, need: str, members: list[str]) -> None:
    _need(len(set(members)) == len(members), "member is there twice")
    _need(draft.free.issuperset(members), "member is not defined, or in a group already")
    count = {"all": len(members), "any": 1}.get(need)
    if count is None:
        _need(_COUNT.fullmatch(need) and int(need) <= len(members), "threshold is out of range")
        count = int(need)
    draft.free.difference_update(members)
    _define(draft, name)
    draft.groups.append(Group(name, count, tuple(members)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A checkpoint that a known log signed, and what its cosignatures are worth."""

    checkpoint: Checkpoint
    origin: str
    cosigned: Mapping[str, int]
    """When (POSIX seconds) each witness of the policy cosigned it, by the witness's name."""
    quorum: bool


def judge_checkpoint(note: str, policy: Policy) -> Judged:
    """Verify a checkpoint's signatures under a policy; an unmet quorum is an answer, no error.

    1. The note is a checkpoint.
    2. Every signature by a key of the policy holds; all others are passed over.
    3. A log of the policy whose name is the origin signed it.
    4. The witnesses that cosigned it satisfy the quorum, or not. A cosignature of time 0 does
       not count: it does not say that this is the largest tree seen (c2sp.org/tlog-cosignature).

    Raises:
        NoteInvalid: steps 1 to 3.
    """
    text, signatures = split_note(note)
    origin, size, root = read_checkpoint_text(text)  # 1
    logs = check_signatures(text, signatures, policy.logs)  # 2
    keys = {witness.key: witness.name for witness in policy.witnesses}
    found = check_signatures(text, signatures, keys)
    if not any(key.name == origin for key, _ in logs):  # 3
        reason = "checkpoint is not signed by a log of the policy"
        raise NoteInvalid(reason)
    cosigned: dict[str, int] = {}
    for key, blob in found:
        time_s = int.from_bytes(blob[:8])
        if not time_s:  # it holds, but does not say that no larger tree was seen
            continue
        cosigned[keys[key]] = max(time_s, cosigned.get(keys[key], 0))
    return Judged(
        checkpoint=Checkpoint(note=note, size=size, root=root),
        origin=origin,
        cosigned=cosigned,
        quorum=policy.holds(cosigned),  # 4
    )

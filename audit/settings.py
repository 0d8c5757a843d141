"""What an operator may turn on the audit service. Units end the names."""

from __future__ import annotations

from pathlib import Path
from re import fullmatch
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from audit.console.settings import ConsoleSettings
from audit.privacy.subjects import CLASS_PATTERN
from meshkit.settings import MeshSettings

__all__ = ["AuditSettings"]

_MIB = 1024 * 1024


class AuditSettings(MeshSettings):
    """Environment `AUDIT_*`."""

    model_config = SettingsConfigDict(env_prefix="AUDIT_")

    data_dir: Path = Field(
        Path("audit"),
        description="Holds log/ (tlog-tiles), wal/, payloads/, index.sqlite and vkey. Local disk.",
    )
    writer_wait_ms: int = Field(
        0,
        ge=0,
        description="How long to wait at start for another process to let go of the log, as in a "
        "hand-over; then CONFLICT.",
    )
    standby_file: Path | None = Field(
        None, description="Made once that wait begins: for those who started us."
    )
    publish_interval_ms: int = Field(
        400,
        ge=10,
        description="At most so often a checkpoint is signed and published: with a round's own "
        "time, an event is public within about a second; near the highest rate it takes longer.",
    )
    publish_retry_ms: int = Field(
        1_000, ge=10, description="Pause after signing, locking or writing tiles failed."
    )
    round_events_max: int = Field(
        16_384, gt=0, description="Events put into the tree by one checkpoint; about 1 kB each."
    )
    fresh_bytes_max: int = Field(
        16 * _MIB,
        ge=0,
        description="Durable events kept in memory until they are in the tree; of more, or of "
        "those from before a start, the write-ahead log is read.",
    )
    group_events_max: int = Field(
        1_024, gt=0, description="Events one fsync makes durable, at most."
    )
    mover_process_events: int = Field(
        256,
        ge=0,
        description="Once so many durable events wait for payload store and index (they are moved "
        "ten times a second), a process of its own moves them, some 30 MB large, until none was "
        "needed for a minute; 0: never.",
    )
    intake_events_max: int = Field(
        4_096, gt=0, description="Events waiting for their fsync; beyond: OVERLOADED."
    )
    group_bytes_max: int = Field(
        4 * _MIB, gt=0, description="Sealed payloads one fsync makes durable, about; at least one."
    )
    intake_bytes_max: int = Field(
        64 * _MIB, gt=0, description="Payloads waiting for their fsync; beyond: OVERLOADED."
    )
    overloaded_retry_ms: int = Field(50, gt=0, description="What an OVERLOADED caller is told.")
    backlog_events_max: int = Field(
        2_000_000,
        gt=0,
        description="Durable events not yet in a published checkpoint; beyond: AUDIT_DOWN. The "
        "space they need under wal/ is about 1.5 kB each plus payloads.",
    )
    segment_bytes_max: int = Field(
        8 * _MIB,
        gt=0,
        description="Size of a file under wal/. The next one is laid out in zeros ahead, if there "
        "is room for eight.",
    )
    segment_age_max_s: float = Field(
        60.0,
        gt=0,
        description="A wal/ file is dropped so long after its start, if all of it is published: "
        "sealed payloads outlive their erasure there by as much.",
    )
    recent_events_max: int = Field(
        100_000,
        gt=0,
        description="Event keys kept in memory to find repeats without asking index.sqlite; "
        "about 140 bytes each.",
    )
    open_calls_max: int = Field(
        100_000,
        gt=0,
        description="Calls between INTENT and OUTCOME whose prompt commitment is kept in memory; "
        "for more, the sealed payload is opened.",
    )
    payload_bytes_max: int = Field(
        4 * _MIB, gt=0, description="Screened prompt, released answer and salts of one event."
    )
    pseudonym_life_days: int = Field(
        365, gt=0, description="Then a tenant's workloads, users and subjects get new pseudonyms."
    )
    pseudonym_look_s: float = Field(
        5.0, gt=0, description="How often it is looked whether another process began a new key."
    )
    search_page_records_max: int = Field(
        1_000, gt=0, description="Records in one page of a search, at most; 100 if nothing is said."
    )
    search_page_bytes_max: int = Field(
        4 * _MIB, gt=0, description="Leaves in one page of a search: it ends behind that many."
    )
    search_scan_events_max: int = Field(
        262_144,
        gt=0,
        description="Entries looked at for one page, in blocks of 1,024 that may hold any: beyond, "
        "the page is given as it is, with a token to go on. Some 0.1 µs each.",
    )
    archive_document_bytes_max: int = Field(
        4 * _MIB, gt=0, description="A policy, model manifest or prompt template kept by digest."
    )
    reads_per_s_max: int = Field(
        50,
        gt=0,
        description="Reads of one actor in a second, each recorded before its answer; beyond: "
        "LIMITED, and only counted.",
    )
    key_orders_every_s: float = Field(
        1.0, gt=0, description="How often orders of `sealgate keys` are looked for."
    )
    skew_max_ms: int = Field(
        1_000, gt=0, description="A record whose producer's clock differs by more is flagged."
    )
    mirror_url: str = Field(
        "",
        description="Object store to copy the log to: s3://, gs://, az:// or a folder; empty: "
        "none. Credentials are those of the environment, or:",
    )
    mirror_credentials: Path | None = Field(
        None, description="JSON file of the store's options, keys and endpoint among them; 0600."
    )
    mirror_ca: Path | None = Field(None, description="PEM of a private CA of the store's own.")
    mirror_payloads: bool = Field(
        default=False,
        description="Copy sealed payloads, too. They cannot be erased there, but by their keys.",
    )
    mirror_interval_ms: int = Field(
        10_000,
        ge=100,
        description="Pause between two rounds: what a lost disk may cost of the log.",
    )
    mirror_timeout_ms: int = Field(
        10_000, gt=0, description="For one request, for asking at the start, for a last round."
    )
    mirror_concurrency: int = Field(
        8, gt=0, le=64, description="Files copied at once; each up to 16 MiB in memory."
    )
    checkpoint_key_overlap_days: float = Field(
        30.0,
        ge=0,
        description="After a rotation of the key that signs checkpoints the one before signs them, "
        "too, for so long: auditors and callers have that time to get the new verifier key.",
    )
    checkpoint_key_look_s: float = Field(
        30.0, gt=0, description="How often it is looked whether that key was rotated."
    )
    witness_policy: Path | None = Field(
        None,
        description="tlog-policy file: witnesses to ask, with their URLs, and the quorum. None: "
        "checkpoints bear the log's signature alone.",
    )
    witness_required: bool = Field(
        False,  # noqa: FBT003 -- a field's default
        description="Whether a checkpoint waits until the quorum holds (acks go on), or is "
        "published without. Either way it is told.",
    )
    witness_ca: Path | None = Field(
        None, description="PEM of the CA of the witnesses' certificates; system CAs without."
    )
    witness_timeout_ms: int = Field(1_000, gt=0, description="For each witness, all requests.")
    witness_grace_ms: int = Field(
        50, ge=0, description="Once the quorum holds the other witnesses get this long."
    )
    witness_rest_s: float = Field(
        5.0,
        ge=0,
        description="A witness that failed is left alone so long, unless checkpoints wait for it.",
    )
    witness_skew_max_s: int = Field(
        60, gt=0, description="A cosignature whose time differs by more from ours is not taken."
    )
    witness_refresh_s: float = Field(
        600.0,
        gt=0,
        description="A checkpoint that stays the newest is cosigned again so often, about: its age "
        "is how auditors know that nothing newer is kept from them.",
    )
    retention_class: str = Field(
        "standard", description="Of calls whose tenant and purpose have no class of their own."
    )
    retention_days: dict[str, int] = Field(
        {"standard": 30},
        description="How many days the payloads of a class are kept, the day they came not "
        "counted; leaves are never removed. Classes: lower-case labels of at most 24 characters.",
    )
    retention_tenants: dict[str, str] = Field({}, description="Class by tenant.")
    retention_purposes: dict[str, str] = Field(
        {}, description="Class by a call's purpose of use; it goes before the tenant's."
    )
    retention_sweep_s: float = Field(
        3_600.0, gt=0, description="How often it is looked for what is due; also at each start."
    )
    erasure_retry_s: float = Field(
        10.0, gt=0, description="Between tries to finish an erasure that a neighbour held up."
    )
    erasure_proof_ms: int = Field(
        15_000, ge=0, description="How long an erasure waits for a checkpoint that covers it."
    )
    key_backups_days: int = Field(
        30,
        ge=0,
        description="How long copies of keys/ are kept, at most, by whoever makes them: until "
        "then what was erased can be brought back out of one, together with OpenBao. Records of "
        "erasures say it.",
    )
    producer: str = Field(
        "spiffe://sealgate.local/service/gateway",
        description="SPIFFE id recorded for events appended in process, without a connection.",
    )

    console: ConsoleSettings = ConsoleSettings.model_validate({})

    @model_validator(mode="after")
    def _classes_are_known(self) -> Self:
        named = {self.retention_class, *self.retention_tenants.values()}
        named |= {*self.retention_purposes.values()}
        wrong = [each for each in self.retention_days if not fullmatch(CLASS_PATTERN, each)]
        if wrong or any(days < 0 for days in self.retention_days.values()):
            msg = "retention_days: a class is no label, or its days are below zero"
            raise ValueError(msg)
        if named - self.retention_days.keys():
            msg = "retention_days lacks a class that is named elsewhere"
            raise ValueError(msg)
        return self

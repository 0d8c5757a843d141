"""The audit service by itself, over gRPC and mTLS, its keys in memory; its log on the real disk."""

from __future__ import annotations

import os
import shutil
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from audit.keys.pseudonyms import DerivedKeys
from audit.log.locks import SqliteLock
from audit.log.opening import open_audit
from audit.log.signer import MemorySigner
from audit.records.notes import Notes
from audit.records.reads import Reads
from audit.servicer import SERVICE, AuditServicer, admits
from audit.settings import AuditSettings
from bench.certificates import make_identities
from bench.parts import MemoryKeys
from meshkit.authorization import Authorizer
from meshkit.envelope import keyring
from meshkit.interceptors import MeshInterceptor
from meshkit.policies import FOLDER
from meshkit.server import Serving, serving
from meshkit.tls import Certificate, CertificateHolder
from meshkit.wrapped_keys import MemoryWrappedKeys
from sealgate.v1.audit_pb2_grpc import add_AuditServiceServicer_to_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from audit.log.appender import AuditLog

DOMAIN = "bench.test"
ORIGIN = "bench.test/log"


@asynccontextmanager
async def fresh_log(folder: Path, **settings: object) -> AsyncIterator[AuditLog]:
    """Open an empty log under `folder`; what was there before goes. `settings`: AuditSettings'."""
    shutil.rmtree(folder, ignore_errors=True)
    async with (
        keyring(MemoryKeys(), MemoryWrappedKeys()) as keys,
        open_audit(
            AuditSettings.model_validate({"data_dir": folder / "data"} | settings),
            signer=MemorySigner(ORIGIN),
            lock=SqliteLock(folder / "lock.sqlite"),
            sealer=keys,
            pseudonym_key=os.urandom(32),
            naming_keys=DerivedKeys(os.urandom(32)),
        ) as log,
    ):
        yield log


@asynccontextmanager
async def audit_server(folder: Path, **settings: object) -> AsyncIterator[int]:
    """Serve an empty log; yield the port. The caller's certificate is left in `folder`/tls."""
    names = {"server": f"spiffe://{DOMAIN}/service/audit", "client": _GATEWAY}
    own = make_identities(folder / "tls", names)["server"]
    certificate = Certificate.from_pem(
        chain=own.chain.read_bytes(), key=own.key.read_bytes(), peer_ca=own.ca.read_bytes()
    )
    guard = MeshInterceptor(trust_domain=DOMAIN, call_budget_ms=120_000, admits=admits)
    async with (
        fresh_log(folder / "log", **settings) as log,
        serving(
            partial(add_AuditServiceServicer_to_server, AuditServicer(log, _reads(log))),
            address="127.0.0.1:0",
            credentials=CertificateHolder(certificate).server_credentials(),
            guard=guard,
            settings=Serving.model_validate({"lame_duck_ms": 0, "drain_ms": 1_000}),
            names=(SERVICE,),
        ) as port,
    ):
        yield port


def _reads(log: AuditLog) -> Reads:
    return Reads(notes=Notes(log), naming=log, authorizer=Authorizer(FOLDER), per_s_max=50)


_GATEWAY = f"spiffe://{DOMAIN}/service/gateway"

"""`python -m inference.main`: inference by itself, a member of the mesh."""

from __future__ import annotations

from meshkit import tls_floor  # isort: skip -- before grpc, or TLS 1.2 would be let in

import asyncio
import sys
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from inference.model_notes import models_noted
from inference.service import open_inference
from inference.servicer import SERVICE, InferenceServicer, admits
from inference.settings import InferenceSettings
from inference.store.keys import VaultModelKeys
from meshkit.audit_link import AuditLink, journal_over
from meshkit.member import Member, ServerSettings, run
from meshkit.own_events import service_noted
from meshkit.screening_keys import Watching, watched_screening_keys
from meshkit.screening_mac import mac_verifier
from meshkit.server import serving_neighbours
from sealgate.v1.audit_pb2_grpc import AuditServiceStub
from sealgate.v1.inference_pb2_grpc import add_InferenceServiceServicer_to_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from meshkit.contract import Inference, ReleaseDesk
    from meshkit.server import Listening
    from meshkit.tls import CertificateHolder

__all__ = ["InferenceServer", "inference_at", "serve"]

assert tls_floor.in_time()


class InferenceServer(InferenceSettings, ServerSettings):
    """Environment `INFERENCE_*`: the service's own settings, and how it joins the mesh."""

    model_config = SettingsConfigDict(env_prefix="INFERENCE_")

    port: int = Field(50_054, ge=0, le=65_535, description="0 asks the kernel for a free one.")
    screening_keys: Watching = Watching()
    audit: AuditLink = AuditLink()


def inference_at(
    settings: Listening,
    inference: Inference,
    certificate: CertificateHolder,
    *,
    desk: ReleaseDesk | None = None,
    healthy: Callable[[], bool] | None = None,
) -> AbstractAsyncContextManager[int]:
    """Serve a service object, and its releases; yield the port. Tests enter here.

    Its health is that of `healthy`. Raises as `serving`.
    """
    register = partial(add_InferenceServiceServicer_to_server, InferenceServicer(inference, desk))
    return serving_neighbours(
        settings, register, certificate, name=SERVICE, admits=admits, healthy=healthy
    )


@asynccontextmanager
async def serve(settings: InferenceServer, member: Member) -> AsyncIterator[int]:
    """Load the model and serve it; yield the port."""
    async with (
        journal_over(settings.audit, member.certificate, AuditServiceStub) as journal,
        watched_screening_keys(member.keys, settings.screening_keys) as mac_keys,
        open_inference(
            settings,
            verify=mac_verifier(mac_keys),
            keys=VaultModelKeys(member.keys, asyncio.get_running_loop()),
            journal=journal,
        ) as inference,
        inference_at(
            settings,
            inference,
            member.certificate,
            desk=inference.desk,
            healthy=lambda: inference.healthy,
        ) as port,
    ):
        with (
            service_noted(journal, "inference", certificate=member.certificate),
            models_noted(journal, inference.desk, embedding=inference.embedding_models),
        ):
            yield port


if __name__ == "__main__":
    sys.exit(run("inference", InferenceServer, serve))

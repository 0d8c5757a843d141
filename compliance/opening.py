"""What compliance is made of, put together from settings: patterns, name models, policies."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from compliance.engine import Engine, expressions
from compliance.names import load_names
from compliance.names_triton import TritonLatinNames, TritonPlace
from compliance.policy_finder import Finders
from compliance.policy_store import PolicySource, PolicyStore
from compliance.prefilter import HyperscanPrefilter
from compliance.recognizers import ALL
from compliance.scanner import NameRunner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from compliance.scanner import Scanner
    from compliance.settings import ComplianceSettings

__all__ = ["finders_of", "open_policies", "open_scanner"]


def finders_of(settings: ComplianceSettings) -> Finders:
    """Make what policies are tried and run with. Seconds, if no compiled patterns are kept."""
    return Finders(Engine(ALL, HyperscanPrefilter(expressions(ALL), settings.cache_dir)))


def _served_latin(settings: ComplianceSettings) -> TritonLatinNames | None:
    """The Latin name model, run by a Triton; None if there is none."""
    if not settings.names_triton_url:
        return None
    place = TritonPlace(
        address=settings.names_triton_url,
        model=settings.names_triton_model,
        ca=settings.names_triton_ca,
        certificate=settings.names_triton_certificate,
        key=settings.names_triton_key,
        ask_ms=settings.names_triton_ask_ms,
        asks_max=settings.names_triton_asks_max,
        failures_max=settings.names_triton_failures_max,
        hold_off_ms=settings.names_triton_hold_off_ms,
    )
    return TritonLatinNames(settings.models_dir / "rampart", place, threads=settings.name_threads)


@asynccontextmanager
async def open_policies(settings: ComplianceSettings) -> AsyncIterator[PolicyStore]:
    """Load policies, patterns and name models; stop the models' threads at the end.

    Raises:
        compliance.policy.PolicyError: a policy file cannot be used, or one of its tests fails.
        compliance.names.WeightsError: a model's file is missing or not the pinned one.
        ImportError: a Triton is given, and tritonclient is not installed.
        OSError: the archive of policies cannot be written.
    """
    names = None
    if settings.names:
        names = NameRunner(
            load_names(
                settings.models_dir, threads=settings.name_threads, latin=_served_latin(settings)
            ),
            workers=settings.name_workers,
            queue_max=settings.name_queue_max,
            memo_entries_max=settings.memo_entries_max,
        )
    try:
        yield PolicyStore(
            PolicySource(settings.policy_dir, settings.policy_file),
            finders_of(settings),
            names,
            archive=settings.policy_archive,
        )
    finally:
        if names is not None:
            names.close()


@asynccontextmanager
async def open_scanner(settings: ComplianceSettings) -> AsyncIterator[Scanner]:
    """Open the scanner of the policy for tenants that are not named. Raises as `open_policies`."""
    async with open_policies(settings) as policies:
        yield policies.of("")

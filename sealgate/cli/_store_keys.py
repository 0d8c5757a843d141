"""What the commands of a store share: which store, its limits, and a login at OpenBao."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from appliance.operating import logged_in
from inference.store.keys import VaultModelKeys
from inference.store.rules import Rules
from inference.store.settings import ModelsSettings
from inference.store.sources import Limits
from inference.store.store import ModelStore

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

    from inference.store.keys import ModelKeys

__all__ = ["login_to_look", "offline", "with_keys"]

T = TypeVar("T")
_LOGINS = ("model-admin.json", "operator.json")


def offline(args: argparse.Namespace, keys: ModelKeys | None = None) -> tuple[ModelStore, Limits]:
    """Open the store that was meant. Raises ValueError: a setting is out of range."""
    settings = ModelsSettings.load()
    limits = Limits(
        files_max=settings.add_files_max,
        bytes_max=settings.add_bytes_max,
        ratio_max=settings.add_ratio_max,
        ratio_free_bytes=settings.add_ratio_free_bytes,
    )
    rules = Rules(plain_dir=settings.plain_dir)
    return ModelStore(args.store or settings.dir, keys, rules), limits


async def with_keys(
    args: argparse.Namespace,
    login: Path,
    work: Callable[[ModelStore, Limits, VaultModelKeys], T],
) -> T:
    """Log in, and do `work` in a thread, from which OpenBao can be asked.

    Raises:
        OSError: no OpenBao there, or its files are not for us.
        Refusal: KEYS_DOWN.
        ModelFileError: as `work`.
    """
    async with logged_in(args.data, login) as vault:
        keys = VaultModelKeys(vault, asyncio.get_running_loop())
        store, limits = offline(args, keys)
        return await asyncio.to_thread(work, store, limits, keys)


def login_to_look(args: argparse.Namespace) -> Path | None:
    """Return whose login to verify with; None where there is none: then what needs it is not held.

    The operator's reads the public keys; only the model administrator's opens sealed files.
    """
    if args.login is not None:
        given: Path = args.login
        return given
    found = [args.data / "openbao" / name for name in _LOGINS]
    return next((path for path in found if path.is_file()), None)

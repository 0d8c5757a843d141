"""Object stores as mirror and backup use them: S3 and what speaks it, GCS, Azure, or a folder.

    s3://bucket/prefix    gs://bucket/prefix    az://container/prefix    file:///folder    /folder

Credentials come from the environment, as the store's own tools name them (`AWS_*`, `GOOGLE_*`,
`AZURE_*`: instance and workload identities among them), or from a JSON file of obstore's options:

    {"access_key_id": "...", "secret_access_key": "...", "endpoint": "https://minio.lan:9000"}

Writes to S3 carry a SHA-256, without which a bucket with object lock takes nothing. How long an
object is locked is the bucket's default retention: no retention can be set object by object here.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, from_url

from meshkit.contract import Reason, Refusal

if TYPE_CHECKING:
    from obstore.store import ObjectStore

__all__ = ["STORE_ERRORS", "StorePlace", "newest_numbered", "open_store", "put_once"]

STORE_ERRORS = (BaseError, OSError)
"""What any of these calls may end with: the store is away, refuses, or answers nonsense."""

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_ENDPOINTS = ("endpoint", "aws_endpoint", "endpoint_url", "aws_endpoint_url")
_RETRIES = 2
NUMBER_DIGITS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePlace:
    """Where a store is, and how long to wait for it."""

    url: str
    credentials: Path | None = None
    ca: Path | None = None
    """PEM of a private CA that signed the store's certificate."""
    timeout_ms: int = 10_000


def open_store(place: StorePlace) -> ObjectStore:
    """Reach a store; nothing is asked yet.

    Raises:
        ValueError: the URL or an option is none that is known, or the credentials are no JSON.
        OSError: credentials or CA cannot be read, or the folder cannot be made.
    """
    if "://" not in place.url or place.url.startswith("file://"):
        folder = place.url.removeprefix("file://")
        return LocalStore(Path(folder).absolute(), mkdir=True)
    options: dict[str, Any] = {}
    if place.credentials is not None:
        options = json.loads(place.credentials.read_text(encoding="utf-8"))
    if place.url.startswith("s3"):
        options.setdefault("checksum_algorithm", "SHA256")
    span = timedelta(milliseconds=place.timeout_ms)
    client: dict[str, Any] = {"timeout": span, "connect_timeout": span}
    client |= options.pop("client_options", {})
    if place.ca is not None:
        client["root_certificate"] = place.ca.read_bytes()
    if _is_loopback(options):
        client["allow_http"] = True
    retries = {"max_retries": _RETRIES, "retry_timeout": span}
    reach: Any = from_url  # its overloads tell kinds of stores apart, which the URL does here
    try:
        store: ObjectStore = reach(
            place.url, config=options, client_options=client, retry_config=retries
        )
    except BaseError as unfit:
        msg = f"object store: {type(unfit).__name__}: URL or options are not understood"
        raise ValueError(msg) from None
    return store


def _is_loopback(options: dict[str, Any]) -> bool:
    """Plain HTTP goes no further than this host."""
    given = next((options[name] for name in _ENDPOINTS if name in options), None)
    endpoint = given or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return endpoint is not None and urlsplit(str(endpoint)).hostname in _LOOPBACK


async def put_once(store: ObjectStore, path: str, data: bytes) -> None:
    """Write an object that never changes again.

    An object that is there already is left alone, whoever wrote it: equal bytes are no failure.

    Raises:
        Refusal: EVIDENCE_LOST, if it is there with other bytes.
        BaseError, OSError: the store did not do it; call again.
    """
    try:
        await obstore.put_async(store, path, data, mode="create")
    except AlreadyExistsError:
        found = bytes(await (await obstore.get_async(store, path)).bytes_async())
        if found != data:
            raise Refusal(Reason.EVIDENCE_LOST) from None


async def newest_numbered(store: ObjectStore, prefix: str) -> int | None:
    """Return the largest number among `prefix/<20 digits>`; None if there is none.

    By asking whether anything lies beyond a number, some 60 times at most: a folder of millions
    of names is not read through where the store itself lists from a name on (S3, GCS).

    Raises:
        BaseError, OSError: the store cannot be asked.
    """
    low = await _any_beyond(store, prefix, -1)
    if low is None:
        return None
    high = 2**63
    while low + 1 < high:
        middle = (low + high) // 2
        found = await _any_beyond(store, prefix, middle - 1)
        if found is None:
            high = middle
        else:
            low = max(low, found)
    return low


async def _any_beyond(store: ObjectStore, prefix: str, number: int) -> int | None:
    """Return some number above `number`: the largest that came with the first page."""
    offset = f"{prefix}/{number:0{NUMBER_DIGITS}d}" if number >= 0 else None
    async for page in obstore.list(store, prefix=prefix, offset=offset):
        names = [meta["path"].rpartition("/")[2] for meta in page]
        numbers = [int(name) for name in names if len(name) == NUMBER_DIGITS and name.isdecimal()]
        if numbers:
            return max(numbers)
    return None

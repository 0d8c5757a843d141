"""What stands behind a digest of a record: a policy, a model's manifest, a prompt template."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from aiohttp import web

from audit.console.desk import Desk
from audit.console.gate import rendered, visit_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ROUTES"]

_CHARS_MAX = 200_000
_LINKED_MAX = 64
_DIGEST = re.compile(r"[0-9a-f]{64}")


async def page(request: web.Request) -> web.Response:
    """GET /archive/<digest>."""
    digest = request.match_info["digest"]
    document = await Desk(visit_of(request)).document(bytes.fromhex(digest))
    try:
        text = document.content.decode()
    except UnicodeDecodeError:
        text = None
    return rendered(
        request,
        "archive.html",
        digest=digest,
        kind=document.kind,
        text=None if text is None else text[:_CHARS_MAX],
        cut=text is not None and len(text) > _CHARS_MAX,
        size=len(document.content),
        linked=sorted(set(_linked(text or "")) - {digest})[:_LINKED_MAX],
    )


def _linked(text: str) -> Iterator[str]:
    """Find the digests that a manifest names. Nothing else is linked."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return
    todo = [told]
    while todo:
        each = todo.pop()
        if isinstance(each, dict):
            todo += each.values()
        elif isinstance(each, list):
            todo += each
        elif isinstance(each, str) and _DIGEST.fullmatch(each):
            yield each


ROUTES = (web.get(r"/archive/{digest:[0-9a-f]{64}}", page),)

"""What is not a page: the style sheet, the verifier key."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from aiohttp import web

from audit.console.house import CONSOLE

__all__ = ["ROUTES", "attached"]

_SHEET = Path(__file__).parent.parent / "static" / "console.css"


def attached(text: str, name: str) -> web.Response:
    """Answer with a file to keep; `name` is a constant or a number of ours."""
    return web.Response(
        text=text,
        content_type="text/plain",
        charset="utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@cache
def _sheet() -> str:
    return _SHEET.read_text(encoding="utf-8")


async def sheet(request: web.Request) -> web.Response:  # noqa: ARG001 -- aiohttp's signature
    """GET /static/console.css."""
    return web.Response(
        text=_sheet(),
        content_type="text/css",
        charset="utf-8",
        headers={"Cache-Control": "no-cache"},
    )


async def vkey(request: web.Request) -> web.Response:
    """GET /vkey: public by nature, so no read is recorded."""
    return attached(f"{request.app[CONSOLE].log.vkey}\n", "vkey")


ROUTES = (web.get("/static/console.css", sheet), web.get("/vkey", vkey))

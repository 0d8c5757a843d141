"""Pictures of the console for docs/console.md: `python -m tests.console.screenshots`.

A console over made-up records of two weeks, as the tests have it, in Debian's Chromium.
"""

import asyncio
import tempfile
from pathlib import Path

from playwright.async_api import async_playwright

import tests.conftest  # noqa: F401 -- the TLS floor, before grpc
from tests.console.conftest import CHROMIUM, sign_in
from tests.console.world import a_call, house, traced

IMAGES = Path(__file__).parent.parent.parent / "docs" / "images"
BYTES_MAX = 150_000
TRACE = bytes(range(1, 17))
SIZE = {"width": 1_120, "height": 760}


async def recorded(running):
    """Two weeks of calls, and one with spans of all services; return its id."""
    for day in reversed(range(14)):
        for number in range(1 + day * 7 % 5):
            refused = "BLOCKED" if (day + number) % 4 == 3 else ""
            await a_call(running.log, user=f"user-{number}", ago_s=day * 86_400, refused=refused)
    call = await a_call(running.log, user="ada", trace_id=TRACE, pause_s=0.79)
    await running.published()
    return call


async def pictures(running, browser):
    call = (await recorded(running)).hex()
    await traced(running, call)
    certificate = running.certificate(workload="dpo")
    context = await browser.new_context(
        ignore_https_errors=True,
        base_url=running.url,
        viewport=SIZE,
        client_certificates=[
            {"origin": running.url, "cert": certificate.chain_pem, "key": certificate.key_pem}
        ],
    )
    page = await context.new_page()
    await sign_in(page)
    trace = TRACE.hex()
    for name, path, scheme in (
        ("overview", "/", "light"),
        ("record", f"/calls/{call}/outcome", "light"),
        ("trace", f"/traces/{trace}", "light"),
        ("verdicts", "/verdicts", "dark"),
        ("search", "/search?user=ada&outcome=released", "light"),
        ("people", "/subjects", "light"),
    ):
        await page.emulate_media(color_scheme=scheme)
        await page.goto(path)
        file = IMAGES / f"console-{name}.png"
        await page.screenshot(path=file)
        size = file.stat().st_size
        assert size < BYTES_MAX, f"{file.name}: {size} bytes"
        print(f"{file}: {size:,} bytes")  # noqa: T201 -- a program


async def main():
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        async with house(Path(folder), spans_port=0) as running, async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
            )
            await pictures(running, browser)
            await browser.close()


if __name__ == "__main__":
    asyncio.run(main())

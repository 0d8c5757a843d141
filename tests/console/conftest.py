"""One console and one browser for all tests here; each test signs in as it needs."""

from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import async_playwright

from tests.console.world import a_call, house

CHROMIUM = Path("/usr/bin/chromium")


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def console(tmp_path_factory):
    async with house(tmp_path_factory.mktemp("console"), spans_port=0) as running:
        for number in range(3):
            await a_call(running.log, ago_s=number * 86_400)
        await a_call(running.log, user="grace", refused="BLOCKED")
        await a_call(running.log, tenant="globex", user="eve")
        await running.published()
        yield running


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def chromium():
    assert CHROMIUM.exists(), "these tests need Debian's chromium: deploy/system-packages.sh"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        await browser.close()


@pytest.fixture
def browse(chromium):
    """Open a browser of somebody with a certificate, at the console."""

    @asynccontextmanager
    async def opened(running, certificate=None, **options):
        shown = {}
        if certificate is not None:
            shown = {
                "client_certificates": [
                    {
                        "origin": running.url,
                        "cert": certificate.chain_pem,
                        "key": certificate.key_pem,
                    }
                ]
            }
        context = await chromium.new_context(
            ignore_https_errors=True, base_url=running.url, **shown, **options
        )
        context.set_default_timeout(60_000)
        page = await context.new_page()
        broken = heard(page)
        try:
            yield page
        finally:
            await context.close()
        assert broken == [], "the browser complains"

    return opened


def heard(page):
    """Collect what a browser complains of: refused content, scripts, dialogs."""
    broken = []

    def hear(message):
        if not message.text.startswith("Failed to load resource"):  # a status that is expected
            broken.append(message.text)

    page.on("console", hear)
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.on("dialog", lambda dialog: broken.append(dialog.message))
    return broken


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def desk(console, chromium):
    """The page of one who may do everything, signed in once for many tests."""
    certificate = console.certificate(workload="dpo")
    context = await chromium.new_context(
        ignore_https_errors=True,
        base_url=console.url,
        client_certificates=[
            {"origin": console.url, "cert": certificate.chain_pem, "key": certificate.key_pem}
        ],
    )
    context.set_default_timeout(60_000)
    page = await context.new_page()
    broken = heard(page)
    await sign_in(page)
    yield page
    await context.close()
    assert broken == [], "the browser complains"


async def sign_in(page):
    await page.goto("/login")
    await page.get_by_role("button", name="Sign in with this certificate").click()
    await page.wait_for_url("**/")

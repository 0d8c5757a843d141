"""The console as people see it, in a real Chromium."""

import pytest

from tests.console.conftest import sign_in

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_signing_in_by_certificate_and_out_again(console, browse):
    async with browse(console, console.certificate()) as page:
        await sign_in(page)
        assert "The log of" in await page.inner_text("h1")
        assert "holds" in await page.inner_text(".states")
        await page.get_by_role("button", name="Sign out").click()
        await page.wait_for_url("**/login")
        await page.goto("/verdicts")
        assert "/login" in page.url

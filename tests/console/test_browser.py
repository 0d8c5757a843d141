"""The console as people see it, in a real Chromium: flows, looks, keyboard, and what is refused."""

import pytest

from meshkit.tlog import check_proof
from tests.console.looks import complaints
from tests.console.world import EVIL, a_call

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCREENS = {
    "wide": (1_280, "light"),
    "360 px": (360, "light"),
    "1280 px at 200 %": (640, "light"),
    "dark": (1_280, "dark"),
}
"""By name: width in CSS pixels, and what the person prefers."""


async def test_from_signing_in_to_a_checked_proof_and_out_again(console, browse, tmp_path) -> None:
    call = (await a_call(console.log)).hex()
    await console.published()
    async with browse(console, console.certificate()) as page:
        await page.goto(f"/calls/{call}/outcome")
        assert "/login?next=" in page.url
        await page.get_by_role("button", name="Sign in with this certificate").click()
        await page.wait_for_url(f"**/calls/{call}/outcome")  # where they wanted to go
        assert await page.get_by_text("Verified", exact=True).is_visible()
        async with page.expect_download() as waiting:
            await page.get_by_role("link", name="proof file").click()
        await (await waiting.value).save_as(tmp_path / "proof")
        check_proof((tmp_path / "proof").read_text(), console.log.vkey)
        await page.get_by_role("link", name="Search").click()
        await page.get_by_label("Call id").fill(call)
        await page.get_by_role("button", name="Search").click()
        await page.wait_for_url(f"**/calls/{call}")
        await page.get_by_role("button", name="Sign out").click()
        await page.wait_for_url("**/login")
        await page.goto("/verdicts")
        assert "/login" in page.url


async def test_every_page_is_usable_by_everybody(console, desk) -> None:
    """Labels, headings, alternatives, contrast and width: see looks.py."""
    call = (await a_call(console.log)).hex()
    trace = (await console.recorded("chat.stream"))[-1]["trace_id"]
    await console.published()
    wrong = {}
    for path in (
        *(
            "/login",
            "/",
            "/search",
            "/search?user=ada",
            "/search?trace=x",
            "/verdicts",
            "/subjects",
        ),
        *("/checkpoint", f"/calls/{call}/outcome", f"/traces/{trace}"),
    ):
        await desk.goto(path)
        await desk.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        for name, (width, scheme) in SCREENS.items():
            await desk.set_viewport_size({"width": width, "height": 800})
            await desk.emulate_media(color_scheme=scheme)
            if said := await complaints(desk):
                wrong[f"{path} {name}"] = said
    await desk.set_viewport_size({"width": 1_280, "height": 900})
    assert wrong == {}, "\n".join(f"{name}: {said}" for name, said in wrong.items())


async def test_the_keyboard_alone_is_enough_and_focus_is_seen(console, browse) -> None:
    async with browse(console, console.certificate()) as page:
        await page.goto("/login")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.className") == "skip"
        for _ in range(2):
            await page.keyboard.press("Tab")
        outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        assert await page.evaluate("document.activeElement.tagName") == "BUTTON"
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/")
        reached = set()
        for _ in range(40):
            await page.keyboard.press("Tab")
            reached.add(await page.evaluate("document.activeElement.innerText"))
        assert {"Search", "Verdicts", "Checkpoint", "Sign out"} <= reached


async def test_what_is_typed_never_becomes_markup_or_script(desk) -> None:
    """`desk` fails if the browser opens a dialog or says anything on its console."""
    await desk.goto("/search")
    for field in await desk.locator("form.ask input").all():
        await field.evaluate("(node, text) => { node.type = 'text'; node.value = text; }", EVIL)
    await desk.get_by_role("button", name="Search").click()
    await desk.wait_for_url("**/search?*")
    assert await desk.locator("main script, main img").count() == 0
    assert await desk.get_by_label("User").input_value() == EVIL
    assert await desk.evaluate("document.scripts.length") == 0
    await desk.goto("/search?user=王小明")
    assert await desk.get_by_label("User").input_value() == "王小明"
    assert "Nothing found" in await desk.inner_text("main")


async def test_another_site_cannot_post_to_it(console, desk) -> None:
    await desk.route(
        "https://evil.example/**",
        lambda route: route.fulfill(
            content_type="text/html",
            body=f'<form method="post" action="{console.url}/logout">'
            '<input name="csrf" value="x"><button>Win</button></form>',
        ),
    )
    await desk.goto("https://evil.example/")
    async with desk.expect_response("**/logout") as waiting:
        await desk.get_by_role("button", name="Win").click()
    assert (await waiting.value).status in {401, 403}
    await desk.goto("/checkpoint")
    assert "/login" not in desk.url  # still signed in

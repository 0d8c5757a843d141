"""Keys are rotated by the calendar while a house runs: a look that fails is not the last."""

import asyncio
import json

import pytest

from appliance.key_rotation import rotating_keys
from meshkit.background import running
from meshkit.counters import counters


@pytest.mark.parametrize("login", [None, "{", "{}", "[]"])
async def test_a_look_without_a_login_is_not_the_last(tmp_path, login) -> None:
    for folder in ("audit", "openbao"):
        (tmp_path / folder).mkdir()
    (tmp_path / "ready.json").write_text(json.dumps({"audit": "localhost:1"}))
    (tmp_path / "audit" / "vkey").write_text("example.test/audit+00000000+AA==")
    (tmp_path / "openbao" / "openbao.json").write_text(json.dumps({"api_addr": "https://[::1]:1"}))
    if login is not None:
        (tmp_path / "openbao" / "operator.json").write_text(login)
    before = counters().get("keys.not_rotated", 0)
    async with running(rotating_keys(tmp_path, 90.0, 0.0), "rotation"), asyncio.timeout(20.0):
        while counters().get("keys.not_rotated", 0) < before + 2:
            await asyncio.sleep(0)

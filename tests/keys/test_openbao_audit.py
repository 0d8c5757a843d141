"""OpenBao's own audit file goes on in a new piece, and no request is missing between the two."""

import asyncio
import json
import os
import time

from appliance.openbao_audit import AuditFile, rotate, rotating


async def asked(keys, count: int) -> None:
    for _ in range(count):
        await keys.look_up_self()


async def test_a_new_piece_is_begun_and_no_request_is_lost(bao, audit) -> None:
    file = bao.data / "audit" / "openbao.jsonl"
    await asked(audit, 3)
    piece = rotate(file, bao.pid)
    async with asyncio.timeout(10):
        while not file.exists() or not file.stat().st_size:
            await asked(audit, 1)
    await asked(audit, 3)

    lines = [json.loads(line) for part in (piece, file) for line in part.read_text().splitlines()]
    mine = [line for line in lines if line["request"]["path"] == "auth/token/lookup-self"]
    requests = {line["request"]["id"] for line in mine if line["type"] == "request"}
    responses = {line["request"]["id"] for line in mine if line["type"] == "response"}
    assert len(requests) >= 7
    assert requests == responses
    assert not any(b"hvs." in part.read_bytes() for part in (piece, file))


async def test_a_large_file_is_rotated_and_an_old_piece_removed(tmp_path, monkeypatch) -> None:
    told = []
    monkeypatch.setattr("appliance.openbao_audit.os.kill", lambda pid, _signal: told.append(pid))
    file = tmp_path / "openbao.jsonl"
    old = tmp_path / "openbao.jsonl.20200101T000000Z"
    old.write_text("long ago")
    os.utime(old, (time.time() - 401 * 86_400,) * 2)
    file.write_text("x" * 100)
    settings = AuditFile(bytes_max=99, look_s=0.01)
    task = asyncio.create_task(rotating(file, settings, lambda: 7))
    async with asyncio.timeout(10):
        while not told or old.exists():
            await asyncio.sleep(0.01)
    task.cancel()

    assert told == [7]
    (piece,) = tmp_path.glob("openbao.jsonl.*")
    assert piece.read_text() == "x" * 100

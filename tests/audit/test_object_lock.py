"""The mirror against an S3 server with object lock: moto's, in an environment of its own.

python -m venv var/moto && var/moto/bin/pip install -r deploy/moto-requirements.txt
"""

import json
import socket
import subprocess
import time
from pathlib import Path

import obstore
import pytest

from audit.mirror.copier import mirrored_checkpoint
from audit.mirror.objects import StorePlace, open_store, put_once
from meshkit.contract import Refusal
from meshkit.tlog import VerifierKey
from tests.audit.world import make_event
from tests.ports import unused_port

MOTO = Path(__file__).resolve().parent.parent.parent / "var" / "moto" / "bin"
BUCKET = "worm-bucket"
CLIENT = """
import boto3, json, sys
from botocore.exceptions import ClientError
s3 = boto3.client("s3", endpoint_url=sys.argv[1], aws_access_key_id="k",
                  aws_secret_access_key="s", region_name="us-east-1")
"""
MAKE = """
s3.create_bucket(Bucket="worm-bucket", ObjectLockEnabledForBucket=True)
s3.put_object_lock_configuration(Bucket="worm-bucket", ObjectLockConfiguration={
    "ObjectLockEnabled": "Enabled",
    "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}})
"""
DESTROY = """
refused = []
for version in s3.list_object_versions(Bucket="worm-bucket")["Versions"]:
    try:
        s3.delete_object(Bucket="worm-bucket", Key=version["Key"], VersionId=version["VersionId"])
    except ClientError as failure:
        refused.append([version["Key"], failure.response["Error"]["Code"]])
print(json.dumps(refused))
"""


@pytest.fixture
def server():
    if not (MOTO / "moto_server").exists():
        pytest.skip("no moto: a tool of development, in an environment of its own (see above)")
    port = unused_port()
    process = subprocess.Popen(
        [MOTO / "moto_server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    url = f"http://127.0.0.1:{port}"
    client(url, MAKE)
    yield url
    process.terminate()
    process.wait(10)


def client(url, script):
    done = subprocess.run(
        [MOTO / "python", "-c", CLIENT + script, url], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout


@pytest.fixture
def place(server, tmp_path):
    credentials = tmp_path / "mirror.json"
    options = {
        "endpoint": server,
        "access_key_id": "k",
        "secret_access_key": "s",
        "region": "us-east-1",
        # AWS takes the x-amz-checksum-sha256 that is sent anyway; moto wants this one beside it.
        "client_options": {"default_headers": {"x-amz-sdk-checksum-algorithm": "SHA256"}},
    }
    credentials.write_text(json.dumps(options))
    return StorePlace(url=f"s3://{BUCKET}/audit", credentials=credentials)


async def test_what_is_mirrored_to_a_locked_bucket_stays(world, place, server) -> None:
    settings = {"mirror_url": place.url, "mirror_credentials": place.credentials}
    async with world.open(mirror_interval_ms=100, **settings) as audit:
        await audit.append_many([make_event() for _ in range(300)])
    key, store = VerifierKey.parse(world.vkey), open_store(place)
    newest = await mirrored_checkpoint(store, key)
    assert newest.size > 300
    path = f"{key.name}/log/tile/0/000"
    tile = (world.log / "tile" / "0" / "000").read_bytes()
    assert bytes((await obstore.get_async(store, path)).bytes()) == tile

    with pytest.raises(Refusal):  # written over: not by us
        await put_once(store, path, b"another")
    refused = dict(json.loads(client(server, DESTROY)))
    assert f"audit/{path}" in refused, "no version can be deleted"
    assert set(refused.values()) == {"AccessDenied"}
    # By name it can be hidden, and comes back: docs/backup.md says what to do about that.
    await obstore.delete_async(store, path)
    assert f"audit/{path}" in dict(json.loads(client(server, DESTROY)))

"""The templates in protos/ make code in other languages, offline, and that code compiles."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
TOOLS = ROOT / "node_modules" / ".bin"
TEMPLATES = sorted((ROOT / "protos").glob("buf.gen.*.yaml"))
SERVICES = ("Audit", "Cache", "Compliance", "Gateway", "Inference")
JAVA_LIBRARIES = Path("/usr/share/java")

USE_OF_TYPESCRIPT = """
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { ChatRequestSchema, GatewayService } from "./sealgate/v1/gateway_pb.js";
import { ReceiptSchema, Role, type Receipt } from "./sealgate/v1/common_pb.js";

const turn = { role: Role.USER, content: "hi" };
const asked = create(ChatRequestSchema, { model: "m", messages: [turn] });
const receipt: Receipt = create(ReceiptSchema, { origin: "log", index: 2n ** 62n });
const back = fromBinary(ReceiptSchema, toBinary(ReceiptSchema, receipt));
console.log(JSON.stringify([
  asked.messages[0].content, back.index.toString(), GatewayService.method.chatStream.methodKind,
]));
"""


def ran(*words: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """Run a tool without any way out; return what it printed."""
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    done = subprocess.run(
        words,
        cwd=cwd,
        env=os.environ | nowhere | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def generated(tmp_path):
    """Generate by one template into a folder named for the language."""

    def made(language: str) -> Path:
        template = ROOT / "protos" / f"buf.gen.{language}.yaml"
        ran(TOOLS / "buf", "generate", "protos", "--template", template, "--output", tmp_path)
        return tmp_path / language

    return made


def test_no_template_needs_the_network() -> None:
    assert [path.name for path in TEMPLATES] == [
        f"buf.gen.{language}.yaml" for language in ("go", "java", "typescript")
    ]
    for path in TEMPLATES:
        for plugin in yaml.safe_load(path.read_text())["plugins"]:
            assert set(plugin) <= {"local", "protoc_builtin", "out", "opt"}


@pytest.mark.parametrize("folder", ["", "tests/node"])
def test_lock_files_pin_by_hash_and_name_no_registry(folder: str) -> None:
    packages = json.loads((ROOT / folder / "package-lock.json").read_text())["packages"]
    wanted = json.loads((ROOT / folder / "package.json").read_text())
    direct = wanted.get("dependencies", {}) | wanted.get("devDependencies", {})

    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in direct.values())
    assert not any("resolved" in package for package in packages.values())
    # What npm would install here. The registry that the lock was made with had no buf for others.
    ours = {path: each for path, each in packages.items() if path and not foreign(each)}
    assert all("integrity" in package for package in ours.values())
    assert len(ours) >= len(direct)


def foreign(package: dict) -> bool:
    return package.get("os", ["linux"]) != ["linux"] or package.get("cpu") == ["arm"]


def test_typescript_is_made_type_checks_and_works_in_node(generated) -> None:
    at = generated("typescript")
    (at / "node_modules").symlink_to(ROOT / "node_modules")
    (at / "package.json").write_text('{"type": "module"}')
    (at / "use.ts").write_text(USE_OF_TYPESCRIPT)
    # Of ours only: @bufbuild/protobuf declares for a newer TypeScript than its protoplugin pins.
    strict = ["--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022"]
    ran(TOOLS / "tsc", *strict, "use.ts", cwd=at)

    assert json.loads(ran("node", "use.js", cwd=at)) == ["hi", str(2**62), "server_streaming"]


def test_go_is_made_and_compiles(generated, tmp_path) -> None:
    at = generated("go")
    assert {f"{name.lower()}_grpc.pb.go" for name in SERVICES} <= {
        path.name for path in (at / "sealgate" / "v1").iterdir()
    }
    place = tmp_path / "gopath" / "src" / "sealgate.example"
    place.mkdir(parents=True)
    (at / "sealgate").rename(place / "sealgate")
    ran(
        *("go", "build", "./..."),
        cwd=place / "sealgate" / "v1",
        GO111MODULE="off",
        GOPATH=f"{tmp_path / 'gopath'}:/usr/share/gocode",
        GOCACHE=str(ROOT / "var" / "cache" / "go"),
        GOFLAGS="-p=1",
    )


def test_java_is_made_and_compiles(generated, tmp_path) -> None:
    at = generated("java")
    sources = list(at.rglob("*.java"))
    assert {f"{name}ServiceGrpc.java" for name in SERVICES} <= {path.name for path in sources}
    names = ("protobuf", "guava", "grpc-api", "grpc-stub", "grpc-protobuf")
    names += ("geronimo-annotation-1.3-spec",)  # grpc_java_plugin says @javax.annotation.Generated
    jars = ":".join(str(JAVA_LIBRARIES / f"{name}.jar") for name in names)
    ran("javac", "-proc:none", "-nowarn", "-d", tmp_path / "classes", "-cp", jars, *sources)

    assert (tmp_path / "classes" / "org" / "sealgate" / "v1" / "GatewayServiceGrpc.class").exists()

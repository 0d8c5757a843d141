"""Is what Triton serves under a name the model that our manifest speaks of?

Our own model describes itself: the manifest in its description must be ours but for the precision,
which depends on where it runs, and its digest must be that manifest's. Backends of others cannot
say what they serve, so for them the digest only says whom we meant to ask: the precision of its
manifest names the adapter, and one short answer shows that the tensors are as they should be.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from inference.engines.triton.adapters.base import Adapter, Question, ShapeError, one
from inference.engines.triton.adapters.sealgate import SealgateAdapter, describe
from inference.engines.triton.control import State
from inference.engines.triton.engine import Opened
from inference.registry import model_info
from inference.triton_repository.asked import info_of
from meshkit.contract import Ended, Message, Parameters, Role

if TYPE_CHECKING:
    from inference.engines.triton.control import Control
    from inference.store.manifest import Manifest
    from meshkit.contract import ModelInfo

__all__ = ["open_others", "open_own"]

_WARM_UP = Question(messages=(Message(Role.USER, "Hello"),), parameters=Parameters(), most=2)
_MANIFEST = "model.manifest"


def open_own(control: Control, model: str, manifest: Manifest, *, load: bool) -> Opened:
    """Look at a model that runs our engine; it was warm before it was ready.

    Raises:
        ControlError: Triton, or the model, is not there.
        ShapeError: it is another model.
    """
    _loaded(control, model, load=load)
    served = control.served(model)
    SealgateAdapter().check(served)
    (told, *_) = control.answer(model, describe()) or [{}]
    try:
        info = info_of(one(told, "description", bytes) or b"")
    except ValueError:
        msg = "the served model does not say what it is"
        raise ShapeError(msg) from None
    _must_be_ours(info, manifest)
    return Opened(info=info, adapter=SealgateAdapter(info.digest), served=served)


def open_others(
    control: Control,
    model: str,
    manifest: Manifest,
    adapter: Adapter,
    *,
    context_tokens: int,
    precision: str,
    load: bool,
) -> Opened:
    """Look at a model of another backend, and have it answer once.

    Raises:
        ControlError: Triton, or the model, is not there.
        ShapeError: its tensors are not the adapter's.
    """
    _loaded(control, model, load=load)
    served = control.served(model)
    adapter.check(served)
    reading = adapter.reading(_WARM_UP)
    items = [
        item
        for response in control.answer(model, adapter.ask(_WARM_UP, served))
        for item in reading.read(response)
    ]
    if not any(isinstance(item, Ended) for item in (*items, *reading.over())):
        msg = "the served model does not come to an end"
        raise ShapeError(msg)
    info = model_info(replace(manifest, precision=precision), context_tokens=context_tokens)
    return Opened(info=info, adapter=adapter, served=served)


def _loaded(control: Control, model: str, *, load: bool) -> None:
    if load and control.look(model) in (State.NO_MODEL, State.STARTING):
        control.load(model)


def _must_be_ours(info: ModelInfo, manifest: Manifest) -> None:
    told = [each for each in info.documents if each.kind == _MANIFEST]
    if info.name != manifest.name or len(told) != 1 or told[0].digest != info.digest:
        msg = "the served model is another, or its digest is not its manifest's"
        raise ShapeError(msg)
    ours = json.loads(manifest.canonical())
    try:
        theirs = dict(json.loads(told[0].content))
    except (ValueError, TypeError, RecursionError):
        msg = "the served model's manifest is none"
        raise ShapeError(msg) from None
    if {**theirs, "precision": ""} != {**ours, "precision": ""}:
        msg = "the served model's manifest is not ours"
        raise ShapeError(msg)

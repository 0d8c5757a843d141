"""What of the releases outlives a restart, as JSON. PURE.

    {"schema": "sealgate/releases/v1", "models": [{
      "name": "m", "live": "2", "history": ["1"], "older": false,
      "versions": [{"version": "1", "manifest": "<hex>", "digest": "<hex>", "state": "warm",
                    "why": ""}, …],
      "canary": {"version": "3", "share": 1000, "replicas": 0, "ends_s": 1.8e9, "key": "<hex>",
                 "over": false} or null,
      "shadow": {"version": "3", "share": 1000} or null}, …]}

Windows do not: a process judges by what it saw itself. What was loaded is to be loaded again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from inference.release.core import Releases
from inference.release.rules import PER_WHOLE, Rules
from inference.release.states import Canary, Goal, Model, Shadow, State, Version
from inference.release.windows import Window

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MemoryInvalidError", "remembered", "written"]

_SCHEMA = "sealgate/releases/v1"
_KEY_BYTES = 16
_DIGEST_BYTES = 32
_ENDS_S_MAX = 1 << 53
"""Of a time in seconds: beyond it a float has none of its own."""
_AGAIN = {State.WARM: Goal.WARM, State.CANARY: Goal.CANARY, State.LIVE: Goal.LIVE}


class MemoryInvalidError(ValueError):
    """This was not written by us, or only half of it is there."""

    def __init__(self) -> None:
        super().__init__("the file of releases is damaged: put it back from a backup, or remove it")


def written(releases: Releases) -> bytes:
    """Return what is to be kept."""
    models = [_model(model) for _, model in sorted(releases.models.items())]
    told = {"schema": _SCHEMA, "models": models}
    return json.dumps(told, sort_keys=True, indent=1).encode()


def remembered(raw: bytes, rules: Rules, new_key: Callable[[], bytes]) -> Releases:
    """Return the releases as they were; nothing is loaded: see `Releases.again`.

    Raises:
        MemoryInvalidError: anything in it is not as it must be. Nothing is guessed.
    """
    try:
        told = json.loads(raw)
        if told["schema"] != _SCHEMA:
            raise MemoryInvalidError
        models = [_read(each, rules) for each in told["models"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise MemoryInvalidError from None
    if len({model.name for model in models}) != len(models):
        raise MemoryInvalidError
    return Releases(rules, new_key, {model.name: model for model in models})


def _model(model: Model) -> dict[str, object]:
    canary, shadow = model.canary, model.shadow
    return {
        "name": model.name,
        "live": model.live,
        "history": model.history,
        "older": model.older,
        "versions": [_version(model, found) for _, found in sorted(model.versions.items())],
        "canary": canary
        and {
            "version": canary.version,
            "share": canary.share,
            "replicas": canary.replicas,
            "ends_s": canary.ends_s,
            "key": canary.key.hex(),
            "over": canary.over,
        },
        "shadow": shadow and {"version": shadow.version, "share": shadow.share},
    }


def _version(model: Model, found: Version) -> dict[str, str]:
    state: State = State.REGISTERED if found.state is State.LOADED else found.state
    if found.leaving and state is State.WARM:
        state = State.REGISTERED
    if found.version == model.live:  # also while it is being loaded again
        state = State.LIVE
    elif model.canary is not None and found.version == model.canary.version:
        state = State.CANARY
    elif found.goal is Goal.WARM and found.digest and found.state is not State.LOADED:
        # Not before it was up once: to load it may be what ended the process.
        state = State.WARM
    return {
        "version": found.version,
        "manifest": found.manifest.hex(),
        "digest": found.digest.hex(),
        "state": state.value,
        "why": found.why,
    }


def _read(told: dict[str, Any], rules: Rules) -> Model:
    versions = [_read_version(each, rules) for each in told["versions"]]
    known = {found.version: found for found in versions}
    # Files of before have no `older`: what was retired tells.
    older = told.get("older", any(found.state is State.RETIRED for found in versions))
    if type(older) is not bool:
        raise MemoryInvalidError
    model = Model(
        name=_text(told["name"]),
        versions=known,
        live=_text(told["live"], empty=True),
        history=[_text(each) for each in told["history"]],
        older=older,
        canary=_read_canary(told["canary"]) if told["canary"] else None,
        shadow=_read_shadow(told["shadow"], rules) if told["shadow"] else None,
    )
    named = {*model.history, *([model.live] if model.live else [])}
    named |= {part.version for part in (model.canary, model.shadow) if part is not None}
    if not named <= set(known) or len(known) != len(versions):
        raise MemoryInvalidError
    lives = [found.version for found in versions if found.goal is Goal.LIVE]
    trials = [found.version for found in versions if found.goal is Goal.CANARY]
    if lives != [model.live] * bool(model.live) or model.live in model.history:
        raise MemoryInvalidError
    if trials != ([model.canary.version] if model.canary else []):
        raise MemoryInvalidError
    return model


def _read_version(told: dict[str, Any], rules: Rules) -> Version:
    state = State(told["state"])
    again = _AGAIN.get(state)
    return Version(
        version=_text(told["version"]),
        manifest=_bytes(told["manifest"], _DIGEST_BYTES),
        digest=_bytes(told["digest"], _DIGEST_BYTES, empty=True),
        state=State.REGISTERED if again else state,
        why=_text(told["why"], empty=True),
        goal=again,
        calls=Window(rules.window_s),
    )


def _read_canary(told: dict[str, Any]) -> Canary:
    share, replicas, over = told["share"], told["replicas"], told["over"]
    ends_s = told["ends_s"]
    if type(ends_s) not in {int, float} or not 0 <= ends_s < _ENDS_S_MAX:  # nor NaN
        raise MemoryInvalidError
    if type(share) is not int or type(replicas) is not int or type(over) is not bool:
        raise MemoryInvalidError
    if not 0 <= share < PER_WHOLE or replicas < 0 or bool(share) == bool(replicas):
        raise MemoryInvalidError
    return Canary(
        version=_text(told["version"]),
        share=share,
        replicas=replicas,
        ends_s=float(ends_s),
        key=_bytes(told["key"], _KEY_BYTES),
        over=over,
    )


def _read_shadow(told: dict[str, Any], rules: Rules) -> Shadow:
    share = told["share"]
    if type(share) is not int or not 0 < share <= PER_WHOLE:
        raise MemoryInvalidError
    return Shadow(version=_text(told["version"]), share=share, seen=Window(rules.canary_s))


def _text(value: object, *, empty: bool = False) -> str:
    if not isinstance(value, str) or not (value or empty):
        raise MemoryInvalidError
    return value


def _bytes(value: object, size: int, *, empty: bool = False) -> bytes:
    raw = bytes.fromhex(_text(value, empty=empty))
    if len(raw) != size and not (empty and not raw):
        raise MemoryInvalidError
    return raw

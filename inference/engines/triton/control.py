"""What is asked of Triton beside answers: is it well, which models has it, load one, unload one.

Blocking calls, each with a deadline; the engine makes them from a thread, one at a time. Triton's
words are never passed on: a failure is one of the few below, and text of models may be in an error.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import grpc
import tritonclient.grpc as triton
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from tritonclient.utils import InferenceServerException

from inference.engines.triton.adapters.base import Served
from inference.engines.triton.connection import (
    admin_headers,
    channel_options,
    channel_to,
    credentials,
    outputs_of,
    request_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from inference.engines.triton.adapters.base import Value
    from inference.engines.triton.settings import TritonSettings

__all__ = ["Control", "ControlError", "State"]

_MS_PER_S: Final = 1_000
_RESPONSES_MAX: Final = 1_024


class State(StrEnum):
    """How a model in Triton is."""

    AWAY = "away"
    """No Triton answers, or not in time."""
    STARTING = "starting"
    """Neither the model nor Triton is ready: it starts, or loads or unloads one of its models."""
    NO_MODEL = "no_model"
    """The model is not loaded, or not any more."""
    READY = "ready"
    BROKEN = "broken"
    """Triton calls it ready, and it does not answer."""
    NOT_OURS = "not_ours"
    """It answers, and is another model than was opened."""


class ControlError(Exception):
    """Triton did not do what it was asked to."""


class Control:
    """Talks to one Triton. Not thread-safe. Connects anew, certificates read anew, after a failure.

    Close it at the end.
    """

    def __init__(self, settings: TritonSettings) -> None:
        self._settings = settings
        self._client: Any = None

    def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def look(self, model: str) -> State:
        """Tell how a model is, as far as Triton says: never BROKEN or NOT_OURS."""
        within_s = self._settings.control_ms / _MS_PER_S
        try:
            if not self._asked(lambda c: c.is_server_live(client_timeout=within_s)):
                return State.AWAY
            if self._asked(lambda c: c.is_model_ready(model, client_timeout=within_s)):
                return State.READY
            ready = self._asked(lambda c: c.is_server_ready(client_timeout=within_s))
        except ControlError:
            return State.AWAY
        return State.NO_MODEL if ready else State.STARTING

    def load(self, model: str) -> None:
        """Have a model loaded, also one that is; returns once it is ready. Raises ControlError."""
        within_s, headers = self._settings.load_ms / _MS_PER_S, self._headers()
        self._asked(lambda c: c.load_model(model, headers=headers, client_timeout=within_s))

    def unload(self, model: str) -> None:
        """Have a model unloaded; answers under way go on to their end. Raises ControlError."""
        within_s, headers = self._settings.load_ms / _MS_PER_S, self._headers()
        self._asked(lambda c: c.unload_model(model, headers=headers, client_timeout=within_s))

    def served(self, model: str) -> Served:
        """Return what tensors a loaded model has. Raises ControlError."""
        within_s = self._settings.control_ms / _MS_PER_S
        told = self._asked(lambda c: c.get_model_metadata(model, client_timeout=within_s))
        config = self._asked(lambda c: c.get_model_config(model, client_timeout=within_s)).config
        return Served(
            inputs={each.name: each.datatype for each in told.inputs},
            outputs={each.name: each.datatype for each in told.outputs},
            decoupled=config.model_transaction_policy.decoupled,
            batched=config.max_batch_size > 0,
        )

    def answer(self, model: str, values: Sequence[Value]) -> list[dict[str, list[Any]]]:
        """Ask once; return all responses. For descriptions and to warm up. Raises ControlError."""
        within_s = self._settings.load_ms / _MS_PER_S
        # Not by tritonclient's own stream: that leaves a thread behind when it is cancelled.
        request = request_of(model, values)
        try:
            with channel_to(self._settings) as channel:
                call = GRPCInferenceServiceStub(channel).ModelStreamInfer(
                    iter((request,)), timeout=within_s
                )
                try:
                    return _whole(call)
                finally:
                    call.cancel()
        except grpc.RpcError as error:
            msg = f"Triton refused or failed: {error.code()}"
            raise ControlError(msg) from None
        except (OSError, ValueError):
            msg = "Triton could not be asked"
            raise ControlError(msg) from None

    def _headers(self) -> dict[str, str]:
        try:
            return admin_headers(self._settings)
        except (OSError, UnicodeDecodeError) as error:
            msg = "the key for Triton's model control cannot be read"
            raise ControlError(msg) from error

    def _asked(self, ask: Callable[[Any], Any]) -> Any:  # noqa: ANN401 -- tritonclient has no types
        try:
            if self._client is None:
                self._client = triton.InferenceServerClient(
                    self._settings.url,
                    creds=credentials(self._settings),
                    channel_args=channel_options(self._settings),
                )
            return ask(self._client)
        except InferenceServerException as error:
            self.close()
            msg = f"Triton refused or failed: {error.status() or 'in the stream'}"
            raise ControlError(msg) from None
        except OSError:  # certificates that cannot be read
            self.close()
            msg = "Triton could not be asked"
            raise ControlError(msg) from None


def _whole(responses: Iterable[Any]) -> list[dict[str, list[Any]]]:
    found = []
    for response in responses:
        if response.error_message:
            msg = "Triton refused or failed: in the stream"
            raise ControlError(msg)
        found.append(outputs_of(triton.InferResult(response.infer_response)))
        if len(found) > _RESPONSES_MAX:
            msg = "Triton does not come to an end"
            raise ControlError(msg)
    return [each for each in found if each]

"""How Triton is reached: credentials, options of the channel, tensors in its client's form."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import grpc
import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inference.engines.triton.adapters.base import Value
    from inference.engines.triton.settings import TritonSettings

__all__ = [
    "admin_headers",
    "channel_options",
    "channel_to",
    "credentials",
    "inputs_of",
    "outputs_of",
    "request_of",
]

_ADMIN: Final = "triton-grpc-protocol-admin-key"
"""Triton puts its prefix before the name that `--grpc-restricted-protocol` gives the header."""
_BACKOFF_MS: Final = 100
_KEEPALIVE_MS: Final = 10_000
_TYPES: Final = {
    "BYTES": np.object_,
    "BOOL": np.bool_,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT64": np.uint64,
    "FP32": np.float32,
    "FP64": np.float64,
}


def credentials(settings: TritonSettings) -> grpc.ChannelCredentials | None:
    """Read the certificates; None: no TLS. Raises OSError."""
    if settings.ca is None:
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=settings.ca.read_bytes(),
        private_key=None if settings.key is None else settings.key.read_bytes(),
        certificate_chain=(
            None if settings.certificate is None else settings.certificate.read_bytes()
        ),
    )


def channel_options(settings: TritonSettings) -> list[tuple[str, int]]:
    """Return the channel's options: bounded messages, quick returns, dead peers noticed."""
    return [
        # Else a new client would take over the old one's connection, and its waiting.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
        ("grpc.max_receive_message_length", settings.message_bytes_max),
        ("grpc.initial_reconnect_backoff_ms", _BACKOFF_MS),
        # C-core's name for how long a connection may take: on a busy machine, more than a pause.
        ("grpc.min_reconnect_backoff_ms", settings.control_ms),
        ("grpc.max_reconnect_backoff_ms", 10 * _BACKOFF_MS),
        ("grpc.keepalive_time_ms", 3 * _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_MS),
    ]


def channel_to(settings: TritonSettings) -> grpc.Channel:
    """Return a channel of its own: close it. Raises OSError."""
    held, options = credentials(settings), channel_options(settings)
    if held is None:
        return grpc.insecure_channel(settings.url, options)
    return grpc.secure_channel(settings.url, held, options)


def admin_headers(settings: TritonSettings) -> dict[str, str]:
    """Return what the restricted protocols ask for. Raises OSError."""
    if settings.admin_key_file is None:
        return {}
    return {_ADMIN: settings.admin_key_file.read_text("utf-8").strip()}


def inputs_of(values: Iterable[Value]) -> list[Any]:
    """Return tensors as `tritonclient` takes them."""
    made = []
    for value in values:
        tensor = triton.InferInput(value.name, list(value.shape), value.datatype)
        array = np.array(value.values, _TYPES[value.datatype]).reshape(value.shape)
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


def request_of(model: str, values: Iterable[Value]) -> service_pb2.ModelInferRequest:
    """Return a request as it is on the wire, for whoever has a stub of Triton's."""
    request = service_pb2.ModelInferRequest(model_name=model)
    for value in values:
        request.inputs.add(name=value.name, datatype=value.datatype, shape=value.shape)
        request.raw_input_contents.append(
            b"".join(struct.pack("<I", len(each)) + each for each in value.values)
            if value.datatype == "BYTES"
            else np.array(value.values, _TYPES[value.datatype]).tobytes()
        )
    return request


def outputs_of(result: Any) -> dict[str, list[Any]]:  # noqa: ANN401 -- tritonclient has no types
    """Return a response's tensors, flat.

    Raises:
        ValueError: its bytes do not fit the shapes and types that it claims.
    """
    names = [each.name for each in result.get_response().outputs]
    try:
        return {name: result.as_numpy(name).reshape(-1).tolist() for name in names}
    except (struct.error, AttributeError, TypeError):
        # Text cut off; a type that numpy has not, or no bytes at all.
        msg = "a tensor's bytes are not what it claims"
        raise ValueError(msg) from None

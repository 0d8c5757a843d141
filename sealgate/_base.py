"""What the two clients have in common: everything but sending and waiting."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

from sealgate._connect import Connection
from sealgate._shape import ChatOptions, ChatResult, Fold, Prepared, Tries, prepared

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from meshkit.contract import Message
    from sealgate._files import Pem

__all__ = ["BaseClient", "BaseStream"]


class BaseClient(ABC):
    """Talks to one gateway over one connection, which it opens when it is first needed."""

    def __init__(
        self,
        target: str,
        *,
        tls: str | Path | None = None,
        ca: Pem | None = None,
        cert: Pem | None = None,
        key: Pem | None = None,
        token: str = "",
        vkey: str | None = None,
        timeout_s: float = 120.0,
        retries: int = 0,
        retry_wait_ms_max: int = 5_000,
        server_name: str | None = None,
    ) -> None:
        """Prepare; nothing is opened or read yet.

        Args:
            target: host:port of the gateway.
            tls: Folder with `ca.pem`, `client.pem` and `client.key`, as the appliance writes it:
                when they are replaced, the next call shows the new ones; or
            ca: of the gateway's certificate: PEM as bytes, which stays as it is, or the path of a
                file, which may be replaced; and
            cert: the client's own, ECDSA: the same; and
            key: of `cert`: the same.
            token: JWT of the user on whose behalf calls are made.
            vkey: The audit log's verifier key (several: a line each). With it, every answer's
                receipt is checked, and an answer without a sound one is a ReceiptError.
            timeout_s: For each call that names none.
            retries: How often a call is made again that failed before any output because a part is
                down or at a limit. Each try is a call of its own, with its own record; so none
                unless asked for.
            retry_wait_ms_max: The longest pause before one.
            server_name: The name in the gateway's certificate, if `target` has another.

        Raises:
            TypeError: neither a folder nor all of ca, cert and key were given.
        """
        self._reach(Connection.of(target, tls, (ca, cert, key), server_name=server_name))
        self._token = token
        self._vkey = vkey
        self._timeout_s = timeout_s
        self._retries = (retries, retry_wait_ms_max)

    @classmethod
    def from_folder(
        cls, target: str, folder: str | Path, *, token: str = "", vkey: str | None = None
    ) -> Self:
        """Make a client of `ca.pem`, `client.pem` and `client.key` in a folder."""
        return cls(target, tls=folder, token=token, vkey=vkey)

    @abstractmethod
    def _reach(self, connection: Connection) -> None:
        """Make the line and its stub."""

    def _begun(
        self,
        messages: str | Sequence[Message | Mapping[str, str]],
        model: str,
        options: ChatOptions,
    ) -> tuple[Prepared, Fold, Tries]:
        call = prepared(messages, model, options, token=self._token, timeout_s=self._timeout_s)
        return call, Fold(call, self._vkey), Tries(*self._retries)

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self._token}"),) if self._token else ()


class BaseStream:
    """An answer on its way: iterate for its text, then see `result`."""

    def __init__(self, call: Prepared, fold: Fold, tries: Tries) -> None:
        self._prepared = call
        self._fold = fold
        self._tries = tries
        self._over = False

    @property
    def text(self) -> str:
        """All that was delivered so far."""
        return self._fold.text

    @property
    def result(self) -> ChatResult:
        """How the stream ended, and all of its text. Raises BrokenStreamError: it has not yet."""
        return self._fold.result

"""Payloads under the real keyring over a key service in memory, and who takes of them."""

import secrets
from contextlib import asynccontextmanager

from audit.privacy.erasure import open_custody
from audit.privacy.estate import Estate
from audit.privacy.retention import today
from meshkit.contract import Actor
from meshkit.envelope import FolderWrappedKeys, keyring
from meshkit.vault import DataKey
from tests.audit.world import World

OFFICER = Actor(
    spiffe_id="spiffe://example.org/tenant/acme/privacy", tenant="acme", workload="privacy"
)


class KeysInMemory:
    """What OpenBao's transit engine does for a keyring; `wrapped` is what it would not forget."""

    def __init__(self):
        self.wrapped = {}

    async def datakey(self, name, *, aad):
        made = DataKey(plaintext=secrets.token_bytes(32), wrapped=secrets.token_hex(8))
        self.wrapped[made.wrapped] = (name, aad, made.plaintext)
        return made

    async def decrypt(self, name, wrapped, *, aad):
        whose, bound, plaintext = self.wrapped[wrapped]
        assert (name, aad) == (whose, bound)
        return plaintext


class Caches:
    """A cache that can be away, and what it was told to forget."""

    def __init__(self):
        self.purged = []
        self.fails = None

    async def purge(self, tenant, subject):
        if self.fails is not None:
            raise self.fails
        self.purged.append((tenant, subject))
        return 3


class CustodyWorld(World):
    """A world whose payloads are sealed under keys of their own. `live()` runs all of it."""

    def __init__(self, folder, service=None):
        super().__init__(folder)
        self.service = service or KeysInMemory()
        self.keys = self.data / "keys"
        self.store = FolderWrappedKeys(self.keys)
        self.caches = Caches()
        self.day = today()

    @asynccontextmanager
    async def live(self, **settings):
        async with keyring(self.service, self.store) as self.sealer, self.open(**settings) as audit:
            estate = Estate(audit.parts, self.store, self.sealer)
            async with open_custody(
                audit, estate, purges=(self.caches.purge,), clock=lambda: self.day
            ) as custody:
                yield audit, custody

    def payload_bytes(self):
        """All that the payload store holds on the disk."""
        return b"".join(path.read_bytes() for path in self._sealed())

    def key_files(self):
        return sorted(path for path in self.keys.rglob("*.json"))

    def partitions(self):
        return sorted({path.parent.name for path in self._sealed()})

    def _sealed(self):
        return sorted((self.data / "payloads").rglob("*.sealed"))

"""Logs without a service: entries of the test's choice, any size, made in a moment."""

from audit.log.disk import Disk
from audit.log.publisher import signed_note
from audit.log.storage import LogStore
from meshkit.tlog import VerifierKey, checkpoint_text
from tests.audit.world import ORIGIN


async def write_log(folder, signer, sizes):
    """Grow a log through `sizes`; yield after each checkpoint."""
    store = LogStore(Disk(), folder, VerifierKey.parse(signer.vkey))
    store.load()
    at = 0
    for size in sizes:
        leaves = [b'{"n":%d}' % number * (1 + number % 3) for number in range(at, size)]
        tree = store.plan(leaves)
        note = await signed_note(signer, checkpoint_text(ORIGIN, tree.size, tree.root))
        store.apply(tree)
        store.publish(tree, note)
        at = size
        yield store

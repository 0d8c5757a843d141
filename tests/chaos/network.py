"""A network of one's own, in which a port can be cut off without a word.

`enter()` runs this program again in a network namespace (unshare(1)); there, packets from and to a
port can be sent down a veth pair that ends nowhere: nothing is refused, nothing arrives, and
connections that were open hang. So a partition disturbs nobody else on the host, and needs no root
where user namespaces are allowed. Where neither can be had there are no partitions, and the run
says so.
"""

from __future__ import annotations

import os
import subprocess
import sys

INSIDE = "CHAOS_NETWORK"
_HOLE = "hole"
_TABLE = "99"
_SETUP = f"""
ip link set lo up
ip link add {_HOLE} type veth peer name {_HOLE}-end
ip link set {_HOLE} arp off up
ip link set {_HOLE}-end arp off up
echo 1 > /proc/sys/net/ipv4/conf/{_HOLE}/route_localnet
ip route add default dev {_HOLE} table {_TABLE}
ip rule add pref 100 lookup local
ip rule del pref 0
"""
"""The rule `local` moves down, so that a cut can stand above it."""


def _ways() -> list[list[str]]:
    whose = [] if os.geteuid() == 0 else ["--map-root-user"]
    return [["unshare", "--net", *whose], ["unshare", "--net", "--map-root-user"]]


def way_in() -> list[str] | None:
    """Return the command that starts another in a namespace where ports can be cut; None: none."""
    for way in _ways():
        try:
            tried = subprocess.run(
                [*way, "sh", "-euc", _SETUP], capture_output=True, check=False, timeout=20
            )
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return None
        if tried.returncode == 0:
            return way
    return None


def enter() -> bool:
    """Be in such a namespace, starting over if need be; return whether ports can be cut."""
    if os.environ.get(INSIDE) == "yes":
        subprocess.run(["sh", "-euc", _SETUP], check=True)
        return True
    if os.environ.get(INSIDE) == "no" or (way := way_in()) is None:
        return False
    os.environ[INSIDE] = "yes"
    sys.stdout.flush()
    return os.execvp(way[0], [*way, sys.executable, "-m", "tests.chaos", *sys.argv[1:]])


def cut(port: int) -> None:
    """Lose every packet from and to a port of 127.0.0.1, until `heal`."""
    _rules("add", port)


def heal(port: int) -> None:
    """Let packets through again."""
    _rules("del", port)


def _rules(verb: str, port: int) -> None:
    for side in ("dport", "sport"):
        where = ["pref", "10", "ipproto", "tcp", side, str(port), "lookup", _TABLE]
        subprocess.run(["ip", "rule", verb, *where], check=True)

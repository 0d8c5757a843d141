"""Cedar schema, policies and entities: the set a fresh installation starts with.

Reached from the repository as `deploy/policies`; lies in the package so that an installed wheel
finds it too. An operator's own set goes into a folder of its own, named in the settings.
"""

from pathlib import Path

__all__ = ["FOLDER"]

FOLDER = Path(__file__).parent
"""Holds `schema.cedarschema`, `*.cedar` and `entities.json`."""

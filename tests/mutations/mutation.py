"""A line to break, and the test that must fail because of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """`old` stands once in `file`; with `new` in its place `test` fails."""

    name: str
    file: str
    old: str
    new: str
    test: str

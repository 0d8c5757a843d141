"""Places in Latin script: those of the lists, and parts of addresses. PURE."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import TYPE_CHECKING

from compliance.name_patterns import (
    ADDRESS,
    LANDMARK,
    POSTAL_AFTER,
    REALM,
    THING_BEHIND,
    WHERE_BEFORE,
    WORD,
)
from compliance.name_spots import LIKELY, SURE, WEAK, Spot, in_code, is_common
from compliance.name_words import CITIES, COMMON_WORDS, GIVEN_NAMES, PLACES, PLACES_ZH

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PLACES_BY_WORD", "Quiet", "addresses", "place_at", "subtype_of", "with_postal_code"]

_LOWER_PLACE_MIN = 6
"""Characters: a place in lower case must be longer than most words that look like one."""
_WORDS_ELSEWHERE = frozenset(["réunion"])
"""Places that are words of some language in lower case."""
_PART = re.compile(r"[,，、] ?")


class Quiet(IntEnum):
    """Where a place may stand in lower case."""

    NEVER = 0
    BEHIND_PREPOSITION = 1
    ANYWHERE = 2


def _quiet(place: str, lower: str) -> Quiet:
    if lower in GIVEN_NAMES or all(word in COMMON_WORDS for word in lower.split()):
        return Quiet.NEVER
    known = place in PLACES and len(place) >= _LOWER_PLACE_MIN and lower not in _WORDS_ELSEWHERE
    return Quiet.ANYWHERE if known else Quiet.BEHIND_PREPOSITION


def _by_first_word() -> dict[str, list[tuple[str, Quiet]]]:
    """Places by their first word in lower case, the longest first; where that case will do."""
    table: dict[str, list[tuple[str, Quiet]]] = {}
    for place in sorted(PLACES | CITIES, key=lambda p: (-len(p), p)):
        lower = place.lower()
        first = WORD.match(lower)
        if first is not None:
            table.setdefault(first[0], []).append((lower, _quiet(place, lower)))
    return table


PLACES_BY_WORD = _by_first_word()
_KNOWN = frozenset(place.lower() for place in PLACES | CITIES) | PLACES_ZH


def subtype_of(kind: str, value: str) -> str:
    """Return `PLACE` for a known country, region or city: where, but not whose door.

    Streets, postal codes and places that are on no list stay `LOCATION_NAME`, as persons and
    organisations have `PERSON_NAME` and `ORG_NAME`.
    """
    if kind == "LOCATION":
        whole = value.lower()
        if whole in _KNOWN or all(part.rstrip("省市") in _KNOWN for part in _PART.split(whole)):
            return "PLACE"
    return f"{kind}_NAME"


def with_postal_code(window: str, spot: Spot) -> Spot:
    """A place with the postal code behind it, if there is one."""
    if spot.kind != "LOCATION":
        return spot
    found = POSTAL_AFTER.match(window, spot.end)
    return spot if found is None else spot._replace(end=found.end())


def place_at(window: str, start: int, first: str, *, proper: bool) -> Spot | None:
    """The known place that begins with the word `first` at `start`. proper: it is capitalised."""
    for place, quiet in PLACES_BY_WORD.get(first, ()):
        end = start + len(place)
        if window[start:end].lower() != place or window[end : end + 1].isalnum():
            continue
        if THING_BEHIND.match(window, end):
            return None
        if proper and (" " not in place or window[end - len(place.split()[-1])].isupper()):
            return Spot("LOCATION", start, end, LIKELY)
        allowed = quiet is Quiet.ANYWHERE or (
            quiet and WHERE_BEFORE.search(window, max(0, start - 12), start)
        )
        if allowed and not proper and not in_code(window, start, end):
            return Spot("LOCATION", start, end, WEAK)
    return None


def addresses(window: str) -> Iterator[Spot]:
    """Streets of other countries than the United States, flats, boxes and realms."""
    for found in ADDRESS.finditer(window):
        yield Spot("LOCATION", *found.span(), SURE)
        if found.start() < found.start("flat"):
            # By itself too: a pattern may be surer of what stands before it, and take its place.
            yield Spot("LOCATION", *found.span("flat"), SURE)
    for found in LANDMARK.finditer(window):
        if not all(is_common(word) for word in WORD.findall(found[0])):
            yield Spot("LOCATION", *found.span(), WEAK)
    for found in REALM.finditer(window):
        if not is_common(found["name"]):
            yield Spot("LOCATION", *found.span(), LIKELY)

"""Names in Latin script that need no model: titles, given names, known places, firms. PURE.

    Mr J. Keller     a title or initials, then capitalised words         PERSON
    Maria de Keller  a given name, then capitalised words                PERSON
    New Mexico       a country, region or city                           LOCATION
    Apt. 12          a part of an address                                LOCATION
    Bank of Esmond   capitalised words with a noun of institutions       ORG

`survey` reads the words of a window once. It gives the names that rules find, and the places that
may be names but that no rule explains: only those are worth a model's time. What it gives is a
function of the window alone.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from compliance.name_patterns import (
    ACRONYM_MAX,
    ADDRESS,
    ADDRESS_WORDS,
    ANNOUNCED,
    CAMEL,
    CAPITAL,
    CHAIN,
    CODE_AFTER,
    CODE_BEFORE,
    CUES,
    EMPLOYED,
    HEADING_BEFORE,
    INITIALLED,
    LAUGHTER,
    MIDDLE,
    ORG_HEADS,
    ORG_NOUN,
    ORG_OF,
    OTHER_ENDS,
    POSTAL_AFTER,
    QUIETLY_TITLED,
    REALM,
    TITLED,
    TITLES,
    WORD,
)
from compliance.name_words import (
    COMMON_WORDS,
    GIVEN_NAMES,
    ORG_NOUNS,
    PLACES,
    PLAIN_IN_LOWER_CASE,
    SURNAMES_THAT_ARE_WORDS,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["NAME_MIN", "Spot", "Survey", "is_common", "survey"]

SURE = 0.88
LIKELY = 0.8
WEAK = 0.6
NAME_MIN = 2
"""Characters: a single one is an initial or a mistake."""
_PUBLIC = frozenset(
    [
        "agency",
        "authority",
        "board",
        "commission",
        "committee",
        "council",
        "court",
        "ministry",
        "office",
    ]
)
"""What public bodies end with, though all their words be common ones: Legal Aid Board."""
_PUBLIC_WORDS_MIN = 3
_LOWER_PLACE_MIN = 6
"""Characters: a place in lower case must be longer than most words that look like one."""
_LOWER_NAME_MIN = 4


class Spot(NamedTuple):
    """A span that a rule took for a name, in the window's offsets."""

    kind: str
    start: int
    end: int
    score: float


class Survey(NamedTuple):
    """What the words of a window say.

    spots: what rules found. open: words that no rule explains. likely: those of them that are given
    names, or capitalised and side by side: weak evidence, which a model may confirm.
    """

    spots: list[Spot]
    open: list[tuple[int, int]]
    likely: list[tuple[int, int]]


def is_common(word: str) -> bool:
    """Whether a word names nobody by itself; its case does not matter."""
    lower = word.lower()
    return lower in COMMON_WORDS or lower.removesuffix("'s").removesuffix("’s") in COMMON_WORDS


def _by_first_word() -> dict[str, list[tuple[str, bool]]]:
    """Places by their first word in lower case, the longest first; whether lower case will do."""
    table: dict[str, list[tuple[str, bool]]] = {}
    for place in sorted(PLACES, key=lambda p: (-len(p), p)):
        lower = place.lower()
        first = WORD.match(lower)
        if first is not None:
            plain = first[0] in COMMON_WORDS and first[0] != "united"
            quiet = len(place) >= _LOWER_PLACE_MIN and lower not in GIVEN_NAMES and not plain
            table.setdefault(first[0], []).append((lower, quiet))
    return table


_PLACES = _by_first_word()
_QUIET = frozenset(
    [name for name in GIVEN_NAMES - PLAIN_IN_LOWER_CASE if len(name) >= _LOWER_NAME_MIN]
    + [first for first, places in _PLACES.items() if any(quiet for _, quiet in places)]
    + [title for title in TITLES if title.islower()]
)
"""Words in lower case that may begin a name."""


def survey(window: str, core: int) -> Survey | None:
    """Read the words of `window`; None if `window[core:]` holds nothing that may be a name.

    About 20 us for 200 characters without names.
    """
    seen = set(WORD.findall(window))
    words = [] if seen.isdisjoint(CUES) else _announced(window, core)
    address = not seen.isdisjoint(ADDRESS_WORDS)
    if not (words or address or _striking(seen)):
        return None
    places: list[Spot] = []
    for found in WORD.finditer(window, core):
        word, (start, end) = found[0], found.span()
        lower = word.lower()
        if lower in _PLACES and (place := _place_at(window, start, lower, proper=word != lower)):
            places.append(place)
        elif _may_name(word, lower) and not _in_code(window, start, end):
            words.append((start, end))
    if words or places or address or not seen.isdisjoint(TITLES):
        return _explained(window, core, (seen, places, words))
    return None


def _striking(seen: set[str]) -> bool:
    """Whether any of these words may begin a name."""
    if not seen.isdisjoint(_QUIET):
        return True
    for word in seen:
        if not word.islower():
            lower = word.lower()
            if lower in _PLACES or word in TITLES or _may_name(word, lower):
                return True
    return False


def _announced(window: str, core: int) -> list[tuple[int, int]]:
    """Words in lower case behind `my name is` and the like, where a name may follow."""
    return [
        found.span("name")
        for found in ANNOUNCED.finditer(window)
        if found.end() > core and not is_common(found["name"])
    ]


def _explained(
    window: str, core: int, read: tuple[set[str], list[Spot], list[tuple[int, int]]]
) -> Survey | None:
    seen, places, words = read
    spots = [*_people(window, core, seen), *places, *_addresses(window), *_firms(window, seen)]
    spots = [_with_postal_code(window, spot) for spot in spots if spot.end > core]
    if not spots and not words:
        return None
    unexplained = [
        (start, end)
        for start, end in words
        if not any(spot.start <= start and end <= spot.end for spot in spots)
    ]
    likely = [(a, b) for a, b in unexplained if window[a:b].lower() in GIVEN_NAMES]
    for one, other in pairwise(unexplained):
        both = window[one[0]].isupper() and window[other[0]].isupper()
        if both and window[one[1] : other[0]] == " ":
            likely += (one, other)
    return Survey(spots, unexplained, likely)


def _may_name(word: str, lower: str) -> bool:
    """Whether a word is capitalised and unusual, or a given name in lower case."""
    if not word[0].isupper():
        return word in _QUIET and word in GIVEN_NAMES
    if len(word) == 1 or is_common(lower):
        return False
    if word.isupper():
        return len(word) > ACRONYM_MAX or lower in GIVEN_NAMES
    return CAMEL.match(word) is None and LAUGHTER.fullmatch(word) is None


def _in_code(window: str, start: int, end: int) -> bool:
    """Whether a word stands in an identifier, a call, a path or between backticks."""
    return (start > 0 and window[start - 1] in CODE_BEFORE) or (
        end < len(window) and window[end] in CODE_AFTER
    )


def _with_postal_code(window: str, spot: Spot) -> Spot:
    if spot.kind != "LOCATION":
        return spot
    found = POSTAL_AFTER.match(window, spot.end)
    return spot if found is None else spot._replace(end=found.end())


def _people(window: str, core: int, seen: set[str]) -> Iterator[Spot]:
    if not seen.isdisjoint(TITLES):
        for found in TITLED.finditer(window):
            end = _person_end(window, found.start("name"), found.end("name"), titled=True)
            if end:
                yield Spot("PERSON", found.start("name"), end, SURE)
        for found in QUIETLY_TITLED.finditer(window):
            if not is_common(found["name"]):
                yield Spot("PERSON", *found.span("name"), WEAK)
    if any(len(word) == 1 and word.isupper() for word in seen):
        yield from _initialled(window)
    yield from _given(window, core)


def _initialled(window: str) -> Iterator[Spot]:
    for found in INITIALLED.finditer(window):
        last = WORD.findall(found["name"])[-1]
        heading = HEADING_BEFORE.search(window, 0, found.start())
        if len(last) < NAME_MIN or is_common(last) or last.lower() in ORG_NOUNS:
            continue
        if heading is None or found["name"].count(".") > 1:
            yield Spot("PERSON", *found.span("name"), LIKELY)
    for found in MIDDLE.finditer(window):
        if not is_common(found["first"]) and not is_common(found["last"]):
            yield Spot("PERSON", *found.span("name"), LIKELY)


def _given(window: str, core: int) -> Iterator[Spot]:
    done = 0
    for word in CAPITAL.finditer(window):
        if word.start() < done or word[0].lower() not in GIVEN_NAMES:
            continue
        chain = CHAIN.match(window, word.start())
        place = _place_at(window, word.start(), word[0].lower(), proper=True)
        several = place is not None and place.end > word.end()
        if chain is None or chain.end() <= core or several:
            continue
        end = _person_end(window, chain.start(), chain.end(), titled=False)
        if end > word.end():
            done = end
            yield Spot("PERSON", chain.start(), end, SURE)


def _person_end(window: str, start: int, end: int, *, titled: bool) -> int:
    """Where the name ends that begins a chain of capitalised words; 0 if it is none."""
    last = 0
    for word in WORD.finditer(window, start, end):
        value, owner = _without_owner(word[0])
        lower = value.lower()
        if not titled and (lower in ORG_NOUNS or lower in OTHER_ENDS):
            return 0
        if not value[0].isupper():
            if lower == "of" and not titled:
                break
            continue
        if titled and not last and value in TITLES:
            continue
        if len(lower) > 1 and is_common(lower) and lower not in SURNAMES_THAT_ARE_WORDS:
            break
        last = word.start() + len(value)
        if owner:
            break
    return last


def _without_owner(word: str) -> tuple[str, bool]:
    """A word without its possessive ending, and whether it had one."""
    bare = word.removesuffix("'s").removesuffix("’s")
    return bare, bare != word


def _place_at(window: str, start: int, first: str, *, proper: bool) -> Spot | None:
    """The known place that begins with the word `first` at `start`. proper: it is capitalised."""
    for place, quiet in _PLACES.get(first, ()):
        end = start + len(place)
        if window[start:end].lower() != place or window[end : end + 1].isalnum():
            continue
        if proper and (" " not in place or window[end - len(place.split()[-1])].isupper()):
            return Spot("LOCATION", start, end, LIKELY)
        if quiet and not proper and not _in_code(window, start, end):
            return Spot("LOCATION", start, end, WEAK)
    return None


def _addresses(window: str) -> Iterator[Spot]:
    for found in ADDRESS.finditer(window):
        yield Spot("LOCATION", *found.span(), SURE)
        if found.start() < found.start("flat"):
            # By itself too: a pattern may be surer of what stands before it, and take its place.
            yield Spot("LOCATION", *found.span("flat"), SURE)
    for found in REALM.finditer(window):
        if not is_common(found["name"]):
            yield Spot("LOCATION", *found.span(), LIKELY)


def _firms(window: str, seen: set[str]) -> Iterator[Spot]:
    if not seen.isdisjoint(ORG_HEADS):
        for found in ORG_OF.finditer(window):
            yield Spot("ORG", *found.span(), LIKELY)
    if any(word.lower() in ORG_NOUNS for word in seen):
        for found in ORG_NOUN.finditer(window):
            words = WORD.findall(found[0])
            public = words[-1].lower() in _PUBLIC and len(words) >= _PUBLIC_WORDS_MIN
            if public or any(not is_common(word) for word in words[:-1]):
                yield Spot("ORG", *found.span(), LIKELY)
    for found in EMPLOYED.finditer(window):
        if not all(is_common(word) for word in WORD.findall(found["name"])):
            yield Spot("ORG", *found.span("name"), WEAK)

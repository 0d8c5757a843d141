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
    ADDRESS_WORDS,
    ANNOUNCED,
    CAMEL,
    CAPITAL,
    CHAIN,
    CUES,
    EMPLOYED,
    FIRM,
    HEADING_BEFORE,
    INITIALLED,
    JOINING,
    LABELLED,
    LABELS,
    LAUGHTER,
    LEGAL_FORMS,
    MIDDLE,
    ORG_HEADS,
    ORG_NOUN,
    ORG_OF,
    OTHER_ENDS,
    QUIET_PAIR,
    QUIETLY_TITLED,
    SPEAKING,
    SPOKEN_OF,
    TITLED,
    TITLES,
    WORD,
)
from compliance.name_places import PLACES_BY_WORD, addresses, place_at, with_postal_code
from compliance.name_spots import LIKELY, SURE, WEAK, Spot, in_code, is_common
from compliance.name_words import (
    COMMON_WORDS,
    GIVEN_NAMES,
    KNOWN_BY_ONE_NAME,
    ORG_NOUNS,
    PLAIN_IN_LOWER_CASE,
    SURNAMES,
    SURNAMES_THAT_ARE_WORDS,
)

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator

__all__ = ["NAME_MIN", "Spot", "Survey", "is_acronym", "is_common", "survey"]

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
_LOWER_NAME_MIN = 4
_LETTERS_END = 0x250
"""Behind the last letter that a word may hold: `name_patterns.LETTERS`."""
_ACRONYMS = frozenset(
    ["ADA", "ALBERT", "ARIA", "BERT", "DORA", "ELMO", "ERNIE", "ISA", "LISA", "PAM", "SAM"]
)
"""Given names that are programs, models or protocols in capitals."""
_SHOUTED = 0.5
"""From this share of words in capitals on, a text has no other case, and they say nothing."""


class Survey(NamedTuple):
    """What the words of a window say.

    spots: what rules found. open: words that no rule explains. likely: those of them that are given
    names, or capitalised and side by side: weak evidence, which a model may confirm. shouting: the
    text is in capitals.
    """

    spots: list[Spot]
    open: list[tuple[int, int]]
    likely: list[tuple[int, int]]
    shouting: bool


_QUIET = frozenset(
    [name for name in GIVEN_NAMES - PLAIN_IN_LOWER_CASE if len(name) >= _LOWER_NAME_MIN]
    + [name for name in SURNAMES if len(name) > _LOWER_NAME_MIN]
    + [
        next(word for word in place.split() if word not in COMMON_WORDS)
        for places in PLACES_BY_WORD.values()
        for place, quiet in places
        if quiet
    ]
    + [title for title in TITLES if title.islower()]
)
"""Words in lower case that may begin a name."""
_INITIALS = frozenset(one for one in map(chr, range(_LETTERS_END)) if one.isupper())
"""Capital letters, alone."""


def survey(window: str, core: int) -> Survey | None:
    """Read the words of `window`; None if `window[core:]` holds nothing that may be a name.

    About 20 us for 200 characters without names.
    """
    seen = set(WORD.findall(window))
    words = [] if seen.isdisjoint(CUES) else _announced(window, core)
    address = not seen.isdisjoint(ADDRESS_WORDS)
    if not (words or address or _striking(seen)):
        return None
    shouting = _shouting(seen)
    places: list[Spot] = []
    for found in WORD.finditer(window, core):
        word, (start, end) = found[0], found.span()
        lower = word.lower()
        if lower in PLACES_BY_WORD and (
            place := place_at(window, start, lower, proper=word != lower)
        ):
            places.append(place)
        elif lower in KNOWN_BY_ONE_NAME and not in_code(window, start, end):
            places.append(Spot("PERSON", start, end, WEAK))
        elif (
            (word[0].isupper() or word in _QUIET)
            and _may_name(word, lower)
            and (shouting or word not in _ACRONYMS)
            and not in_code(window, start, end)
        ):
            words.append((start, end))
    if words or places or address or not seen.isdisjoint(TITLES | LABELS):
        return _explained(window, core, (seen, places, words), shouting=shouting)
    return None


def _striking(seen: set[str]) -> bool:
    """Whether any of these words may begin a name."""
    if not seen.isdisjoint(_QUIET):
        return True
    for word in seen:
        if not word.islower():
            lower = word.lower()
            if lower in PLACES_BY_WORD or word in TITLES or _may_name(word, lower):
                return True
    return False


def _is_likely(word: str) -> bool:
    lower = word.lower()
    return lower in GIVEN_NAMES or (lower in SURNAMES and word != lower)


def _shouting(seen: set[str]) -> bool:
    """Whether the text is written in capitals."""
    words = [word for word in seen if len(word) > 1]
    return sum(map(str.isupper, words)) > _SHOUTED * len(words)


def is_acronym(word: str) -> bool:
    """Whether a single word in capitals, in a text that is not, is nobody's known name."""
    lower = word.lower()
    return word.isupper() and word.isalpha() and not (lower in GIVEN_NAMES or lower in SURNAMES)


def _announced(window: str, core: int) -> list[tuple[int, int]]:
    """Words in lower case behind `my name is` and the like, where a name may follow."""
    return [
        found.span("name")
        for found in ANNOUNCED.finditer(window)
        if found.end() > core and not is_common(found["name"])
    ]


def _explained(
    window: str,
    core: int,
    read: tuple[set[str], list[Spot], list[tuple[int, int]]],
    *,
    shouting: bool,
) -> Survey | None:
    seen, places, words = read
    spots = [*_people(window, core, seen), *places, *addresses(window), *_firms(window, seen)]
    spots = [with_postal_code(window, spot) for spot in spots if spot.end > core]
    if not spots and not words:
        return None
    firms = (
        [] if seen.isdisjoint(LEGAL_FORMS) else [found.span() for found in FIRM.finditer(window)]
    )
    explained = [(spot.start, spot.end) for spot in spots] + firms
    unexplained = [
        (start, end)
        for start, end in words
        if not any(first <= start and end <= last for first, last in explained)
    ]
    likely = [(a, b) for a, b in unexplained if _is_likely(window[a:b])]
    for one, other in pairwise(unexplained):
        both = window[one[0]].isupper() and window[other[0]].isupper()
        if both and window[one[1] : other[0]] == " ":
            likely += (one, other)
    return Survey(spots, unexplained, likely, shouting=shouting)


def _may_name(word: str, lower: str) -> bool:
    """Whether a word is capitalised and unusual, or a given name in lower case."""
    if not word[0].isupper():
        return word in _QUIET and (word in GIVEN_NAMES or word in SURNAMES)
    if len(word) == 1 or is_common(lower):
        return False
    if word.isupper():
        return len(word) > ACRONYM_MAX or lower in GIVEN_NAMES or lower in SURNAMES
    return CAMEL.match(word) is None and LAUGHTER.fullmatch(word) is None


def _people(window: str, core: int, seen: set[str]) -> Iterator[Spot]:
    if not seen.isdisjoint(TITLES):
        for found in TITLED.finditer(window):
            end = _person_end(window, found.start("name"), found.end("name"), titled=True)
            if end:
                yield Spot("PERSON", found.start("name"), end, SURE)
        for found in QUIETLY_TITLED.finditer(window):
            if not is_common(found["name"]):
                yield Spot("PERSON", *found.span("name"), WEAK)
    if not seen.isdisjoint(LABELS):
        yield from _labelled(window)
    if not seen.isdisjoint(_INITIALS):
        yield from _initialled(window)
    yield from _given(window, core)
    yield from _given_quietly(window, core, seen)
    if not seen.isdisjoint(SPEAKING):
        yield from _spoken_of(window, core)


def _labelled(window: str) -> Iterator[Spot]:
    for found in LABELLED.finditer(window):
        if not all(is_common(word) for word in WORD.findall(found["name"])):
            yield Spot("PERSON", *found.span("name"), SURE)


def _spoken_of(window: str, core: int) -> Iterator[Spot]:
    for found in SPOKEN_OF.finditer(window, core):
        which = "name" if found["name"] else "subject"
        if found[which].lower() in SURNAMES:
            yield Spot("PERSON", *found.span(which), LIKELY)


def _initialled(window: str) -> Iterator[Spot]:
    for found in INITIALLED.finditer(window):
        last = WORD.findall(found["name"])[-1]
        heading = HEADING_BEFORE.search(window, 0, found.start())
        if len(last) < NAME_MIN or is_common(last) or last.lower() in ORG_NOUNS:
            continue
        if (
            heading is None
            or found["name"].count(".") > 1
            or last.lower() in SURNAMES
            or window.startswith((",", ";"), found.end())
        ):
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
        place = place_at(window, word.start(), word[0].lower(), proper=True)
        several = place is not None and place.end > word.end()
        if chain is None or chain.end() <= core or several:
            continue
        end = _person_end(window, chain.start(), chain.end(), titled=False)
        if end > word.end():
            done = end
            yield Spot("PERSON", chain.start(), end, SURE)


def _given_quietly(window: str, core: int, seen: set[str]) -> Iterator[Spot]:
    """A given name and a family name in lower case."""
    if seen.isdisjoint(GIVEN_NAMES):  # which are in lower case
        return
    for found in QUIET_PAIR.finditer(window, core):
        if found["first"] in GIVEN_NAMES and found["last"] in SURNAMES:
            yield Spot("PERSON", *found.span(), WEAK)


def _person_end(window: str, start: int, end: int, *, titled: bool) -> int:
    """Where the name ends that begins a chain of capitalised words; 0 if it is none."""
    last = 0
    for word in WORD.finditer(window, start, end):
        value, owner = _without_owner(word[0])
        lower = value.lower()
        if not titled and value in LEGAL_FORMS:
            return last
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


def _firm_start(found: re.Match[str]) -> int:
    """Where the firm begins: behind `and` and `of`, if what stands before may be a person."""
    before = ""
    start = found.start()
    for part in JOINING.finditer(found[0]):
        before = found[0][: part.start()]
        if not all(is_common(word) for word in WORD.findall(before)):
            start = found.start() + part.end()
    return start


def _firms(window: str, seen: set[str]) -> Iterator[Spot]:
    if not seen.isdisjoint(ORG_HEADS):
        for found in ORG_OF.finditer(window):
            yield Spot("ORG", *found.span(), LIKELY)
    if not ORG_NOUNS.isdisjoint(map(str.lower, seen)):
        for found in ORG_NOUN.finditer(window):
            start = _firm_start(found)
            words = WORD.findall(window, start, found.end())
            if words[-1].islower():
                continue
            public = words[-1].lower() in _PUBLIC and len(words) >= _PUBLIC_WORDS_MIN
            if public or any(not is_common(word) for word in words[:-1]):
                yield Spot("ORG", start, found.end(), LIKELY)
    for found in EMPLOYED.finditer(window):
        if not all(is_common(word) for word in WORD.findall(found["name"])):
            yield Spot("ORG", *found.span("name"), WEAK)

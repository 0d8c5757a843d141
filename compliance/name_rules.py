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

import re
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from compliance.name_words import (
    COMMON_WORDS,
    GIVEN_NAMES,
    ORG_NOUNS,
    PLACES,
    SURNAMES_THAT_ARE_WORDS,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LETTERS", "Spot", "Survey", "is_common", "survey"]

LETTERS = "A-Za-zÀ-ÖØ-öø-ɏ"
_UPPER = "A-Z" + "".join(c for c in map(chr, range(0xC0, 0x250)) if c.isupper())
_WORD = re.compile(rf"[{LETTERS}]+(?:['’][{LETTERS}]+)?")
_NAME = rf"[{_UPPER}][{LETTERS}]*(?:['’-][{LETTERS}]+)*"
_INITIALS = rf"(?:[{_UPPER}]\.[ -]?){{1,3}}"
_PARTICLE = (
    r"(?:de la|de los|de las|de|del|della|di|da|dos|das|do|du|des|van der|van den|van de|van"
    r"|von der|von|vom|zu|zur|ten|ter|bin|ibn|al|el|la|le|of|y)"
)
_MORE = rf"(?: {_PARTICLE})?[ ](?:{_INITIALS}[ ]?)?{_NAME}"
_CHAIN = re.compile(rf"(?:{_INITIALS}[ ]?)?{_NAME}(?:{_MORE}){{0,3}}")
_TITLED = re.compile(
    rf"(?<![{LETTERS}0-9.])(?:(?:Mr|Mrs|Ms|Mx|Dr|Prof|Mme|Mlle|MM|Sr|Sra|Srta|Sres|Hr|Dott|Sig|Dña)\.?"
    r"|(?:M|D|Fr|Sen|Rep|Gov|Capt|Lt|Sgt|Col|Gen|Rev|Hon|Mgr)\."
    r"|Professor|Sir|Dame|Lord|Lady|Monsieur|Madame|Mademoiselle|Maître|Señora?|Señorita|Herrn?|Frau"
    r"|Signora?|Detective|Nurse|Uncle|Aunt|Don|Doña|Judge|Justice|Senator|President|Chancellor)"
    rf"[  ]+(?P<name>{_CHAIN.pattern})"
)
_TITLE_WORDS = """
Mr Mrs Ms Mx Dr Prof Mme Mlle MM Sr Sra Srta Sres Hr Dott Sig Dña M Sen Rep Gov Capt Lt Sgt Col
Rev Hon Mgr Professor Sir Dame Lord Lady Monsieur Madame Mademoiselle Señor Señora Señorita Herr
Frau Signor Signora Judge Justice Senator President mr mrs ms dr
"""
_TITLES = frozenset(_TITLE_WORDS.split())
_INITIALLED = re.compile(rf"(?<![{LETTERS}0-9.&])(?P<name>{_INITIALS}[ ]?{_NAME})")
_QUIETLY_TITLED = re.compile(rf"(?<![{LETTERS}])(?:mr|mrs|ms|dr)\.? (?P<name>[{LETTERS}]{{3,20}})")
_ADDRESS = re.compile(
    rf"(?<![{LETTERS}0-9])(?:"
    rf"(?:(?:[0-9]{{1,5}} )?(?:{_NAME} ){{1,3}}[0-9]{{1,5}}[,\s]{{1,3}})?"
    r"(?i:apt|apartment|suite|ste|appt|wohnung)\.? ?#? ?[0-9]{1,5}[A-Za-z]?"
    r"|(?:Unit|PSC) [0-9]{2,5},? Box [0-9]{2,5}(?:,?[\n ]{1,2}(?:APO|FPO|DPO),? A[AEP] [0-9]{5})?"
    r"|(?:APO|FPO|DPO),? A[AEP] [0-9]{5}"
    r"|P\.? ?O\.? Box [0-9]{1,6}"
    r"|(?:[0-9]{1,5} )?(?i:rue|avenue|boulevard|via|viale|piazza|calle|avenida|plaza|rua|ul\.)"
    rf"(?: (?:de la|de los|de l'|del|delle|della|de|du|des|d'))? ?{_NAME}(?: {_NAME}){{0,2}}"
    r",? [0-9]{1,5}[A-Za-z]?"
    rf"|(?:[0-9]{{1,5}} )?[{_UPPER}][{LETTERS}]+(?:stra(?:ß|ss)e|gasse|platz|weg|vej|gade|gatan"
    r"|vägen|katu|tie|gata|veien|laan|straat|plein|utca|braut) [0-9]{1,4}[A-Za-z]?"
    rf")(?![{LETTERS}0-9])"
)
_ADDRESS_HINT = re.compile(r"(?i:\b(?:apt|apartment|suite|ste|appt|box|[afd]po)\b)")
_REALM = re.compile(
    rf"(?<![{LETTERS}])(?:Republic|República|République|Republik|Kingdom|State|Province|County|City"
    rf"|Principality|Comté|Département|Provincia|Estado|Land)"
    r" (?:of|de la|de|du|d['’]|del)(?: the)? ?"
    rf"(?P<name>{_NAME}(?: {_NAME}){{0,2}})"
)
_POSTAL_AFTER = re.compile(
    r"(?:,? |, ?\n ?)(?!(?:19|20)[0-9]{2}\b)[0-9]{4,6}(?:-[0-9]{3,4})?(?![0-9A-Za-z])"
)
_MIDDLE = re.compile(
    rf"(?<![{LETTERS}0-9])(?P<name>(?P<first>{_NAME}) (?:[{_UPPER}]\.? ){{1,2}}(?P<last>{_NAME}))"
)
_CODE_BEFORE = "_./@=\\`<{[$"
_CODE_AFTER = "_(=/\\`>{["
_CAMEL = re.compile(rf"(?!Mc|Mac|De|Di|La|Le|Du|Van|Fitz|O['’])[{LETTERS}]*[a-zß-öø-ÿ][{_UPPER}]")
_LAUGHTER = re.compile(r"(?:[hx]+[aeiu]+){2,}h*|l+o+l+|l+m+a+o+|r+o+f+l+", re.IGNORECASE)
_ACRONYM_MAX = 5
_ORG_OF = re.compile(
    rf"(?<![{LETTERS}])(?:Bank|University|Ministry|Department|Institute|Office|House|College|School|Court"
    r"|Ministère|Ministerio|Universidad|Université|Universität|Università|Banco|Banque|Cámara|Chambre)"
    r" (?:of|for|de la|de los|de|des|du|del|di|für)(?: the)? "
    rf"{_NAME}(?:(?: of| and| et| y| de la| de| des)? {_NAME}){{0,3}}"
)
_ORG_NOUN = re.compile(
    rf"(?<![{LETTERS}])(?:{_NAME} (?:(?:and|&|of) )?){{1,4}}"
    rf"(?i:{'|'.join(sorted(ORG_NOUNS, key=len, reverse=True))})(?![{LETTERS}])"
)
_EMPLOYED = re.compile(
    rf"(?<![{LETTERS}])(?i:works? (?:at|for)|worked (?:at|for)|working (?:at|for)|employed by"
    r"|employee of|employer:|company(?: name)?:|an? year at|CEO of|founder of|shares (?:of|in)) "
    rf"(?P<name>{_NAME}(?: (?:& )?{_NAME}){{0,3}})"
)
_HEADING_BEFORE = re.compile(r"(?:^|[.:;!?\n])\s*$")
"""Before `B. Findings`, a heading rather than a person."""
_PLACE_NOUNS = """
street road avenue boulevard lane drive court square trail terrace place villages bridge river
lake mountain valley county city town island islands park beach bay airport station hall
"""
_OTHER_ENDS = frozenset(_PLACE_NOUNS.split())
"""What capitalised words end with that name a place, not a person."""
SURE = 0.88
LIKELY = 0.8
WEAK = 0.6
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
    """Places by their first word in lower case, the longest first."""
    table: dict[str, list[tuple[str, bool]]] = {}
    for place in sorted(PLACES, key=lambda p: (-len(p), p)):
        first = _WORD.match(place)
        if first is not None:
            quiet = len(place) >= _LOWER_PLACE_MIN and place.lower() not in GIVEN_NAMES
            table.setdefault(first[0].lower(), []).append((place.lower(), quiet))
    return table


_PLACES = _by_first_word()


def survey(window: str, core: int) -> Survey | None:
    """Read the words of `window`; None if `window[core:]` holds nothing that may be a name.

    About 20 us for 200 characters without names.
    """
    places: list[Spot] = []
    words: list[tuple[int, int]] = []
    titled = False
    for found in _WORD.finditer(window):
        word, (start, end) = found[0], found.span()
        if end <= core:
            continue
        lower = word.lower()
        titled = titled or word in _TITLES
        if lower in _PLACES and (
            place := _place_at(window, start, lower, proper=word[0].isupper())
        ):
            places.append(place)
        elif _may_name(word, lower) and not _in_code(window, start, end):
            words.append((start, end))
    if words or places or titled or _ADDRESS_HINT.search(window, core):
        return _explained(window, core, places, words)
    return None


def _explained(
    window: str, core: int, places: list[Spot], words: list[tuple[int, int]]
) -> Survey | None:
    spots = [*_people(window, core), *places, *_addresses(window), *_institutions(window)]
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
        return len(word) >= _LOWER_NAME_MIN and word in GIVEN_NAMES
    if len(word) == 1 or is_common(lower):
        return False
    if word.isupper():
        return len(word) > _ACRONYM_MAX or lower in GIVEN_NAMES
    return _CAMEL.match(word) is None and _LAUGHTER.fullmatch(word) is None


def _in_code(window: str, start: int, end: int) -> bool:
    """Whether a word stands in an identifier, a call, a path or between backticks."""
    return (start > 0 and window[start - 1] in _CODE_BEFORE) or (
        end < len(window) and window[end] in _CODE_AFTER
    )


def _with_postal_code(window: str, spot: Spot) -> Spot:
    if spot.kind != "LOCATION":
        return spot
    found = _POSTAL_AFTER.match(window, spot.end)
    return spot if found is None else spot._replace(end=found.end())


def _people(window: str, core: int) -> Iterator[Spot]:
    for found in _TITLED.finditer(window):
        end = _person_end(window, found.start("name"), found.end("name"), titled=True)
        if end:
            yield Spot("PERSON", found.start("name"), end, SURE)
    for found in _INITIALLED.finditer(window):
        last = _WORD.findall(found["name"])[-1]
        if len(last) > 1 and not is_common(last) and last.lower() not in ORG_NOUNS:
            if _HEADING_BEFORE.search(window, 0, found.start()) and found["name"].count(".") == 1:
                continue
            yield Spot("PERSON", *found.span("name"), LIKELY)
    for found in _MIDDLE.finditer(window):
        if not is_common(found["first"]) and not is_common(found["last"]):
            yield Spot("PERSON", *found.span("name"), LIKELY)
    for found in _QUIETLY_TITLED.finditer(window):
        if not is_common(found["name"]):
            yield Spot("PERSON", *found.span("name"), WEAK)
    yield from _given(window, core)


def _given(window: str, core: int) -> Iterator[Spot]:
    done = 0
    for word in _WORD.finditer(window):
        if word.start() < done or not word[0][0].isupper() or word[0].lower() not in GIVEN_NAMES:
            continue
        chain = _CHAIN.match(window, word.start())
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
    for word in _WORD.finditer(window, start, end):
        value, owner = _without_owner(word[0])
        lower = value.lower()
        if not titled and (lower in ORG_NOUNS or lower in _OTHER_ENDS):
            return 0
        if not value[0].isupper():
            if lower == "of" and not titled:
                break
            continue
        if titled and not last and value in _TITLES:
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
    for found in _ADDRESS.finditer(window):
        yield Spot("LOCATION", *found.span(), SURE)
    for found in _REALM.finditer(window):
        if not is_common(found["name"]):
            yield Spot("LOCATION", *found.span(), LIKELY)


def _institutions(window: str) -> Iterator[Spot]:
    for found in _ORG_OF.finditer(window):
        yield Spot("ORG", *found.span(), LIKELY)
    for found in _ORG_NOUN.finditer(window):
        words = _WORD.findall(found[0])
        if any(not is_common(word) for word in words[:-1]):
            yield Spot("ORG", *found.span(), LIKELY)
    for found in _EMPLOYED.finditer(window):
        if not all(is_common(word) for word in _WORD.findall(found["name"])):
            yield Spot("ORG", *found.span("name"), WEAK)

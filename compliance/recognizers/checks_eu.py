"""Checksums of identifiers of people in Europe, each from its issuer's rule. PURE.

As in `compliance.recognizers.checks`: any string goes in, separators included, and none raises.
"""

# ruff: noqa: PLR2004 -- lengths and moduli are the standards' own

from __future__ import annotations

import re
from operator import mul
from typing import TYPE_CHECKING

from compliance.recognizers.checks import bare, digits_of, is_day, luhn

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "at_svnr",
    "be_national",
    "bg_egn",
    "ch_ahv",
    "cy_tic",
    "cz_rodne",
    "de_bsnr",
    "de_health",
    "de_lanr",
    "de_mrz",
    "de_passport",
    "de_pension",
    "ee_lt_code",
    "es_cif",
    "es_social",
    "fr_spi",
    "gr_afm",
    "gr_amka",
    "hr_oib",
    "hu_personal",
    "hu_taj",
    "hu_tax",
    "ie_pps",
    "is_kennitala",
    "iso7064_11_10",
    "lu_matricule",
    "lv_code",
    "no_fnr",
    "pl_id_card",
    "pl_nip",
    "pt_cc",
    "pt_nif",
    "ro_cnp",
    "si_emso",
    "weighted",
]


def weighted(digits: str, weights: Sequence[int]) -> int:
    """Sum of digits times weights; what has no weight counts nothing."""
    return sum(map(mul, weights, map(int, digits)))


def iso7064_11_10(value: str) -> bool:
    """ISO 7064 MOD 11,10: Croatian OIB, German VAT and tax numbers."""
    digits = digits_of(value)
    product = 10
    for digit in digits[:-1]:
        total = (int(digit) + product) % 10 or 10
        product = total * 2 % 11
    return len(digits) > 1 and (11 - product) % 10 == int(digits[-1])


def _short_date(digits: str, order: str) -> bool:
    """Whether six digits are a day in the order `ymd` or `dmy`, of either century."""
    year, month, day = (int(digits[2 * order.index(part) :][:2]) for part in "ymd")
    return is_day(1900 + year, month, day) or is_day(2000 + year, month, day)


def at_svnr(value: str) -> bool:
    """Austrian insurance number: weights 3 7 9 - 5 8 4 2 1 6, modulo 11 at the fourth digit."""
    digits = digits_of(value)
    if len(digits) != 10 or digits[0] == "0":
        return False
    return weighted(digits, (3, 7, 9, 0, 5, 8, 4, 2, 1, 6)) % 11 == int(digits[3])


def be_national(value: str) -> bool:
    """Belgian rijksregisternummer: 97 minus the rest modulo 97, with a 2 before it from 2000 on."""
    digits = digits_of(value)
    if len(digits) != 11:
        return False
    first, check = digits[:9], int(digits[9:])
    return check in {97 - int(first) % 97, 97 - int(f"2{first}") % 97}


def bg_egn(value: str) -> bool:
    """Bulgarian EGN: weights 2 4 8 5 10 9 7 3 6, modulo 11 and then 10."""
    digits = digits_of(value)
    if len(digits) != 10 or int(digits[2:4]) % 20 not in range(1, 13):
        return False
    return weighted(digits, (2, 4, 8, 5, 10, 9, 7, 3, 6)) % 11 % 10 == int(digits[9])


def ch_ahv(value: str) -> bool:
    """Swiss AHV number: EAN-13 with prefix 756."""
    digits = digits_of(value)
    return (
        len(digits) == 13 and digits[:3] == "756" and weighted(digits, (1, 3) * 6 + (1,)) % 10 == 0
    )


_CY_ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21)


def cy_tic(value: str) -> bool:
    """Cypriot tax code: eight digits, the odd ones mapped, modulo 26 gives the letter."""
    code = bare(value)
    if not re.fullmatch(r"[0-9]{8}[A-Z]", code):
        return False
    total = sum(_CY_ODD[int(d)] for d in code[0:8:2]) + sum(int(d) for d in code[1:8:2])
    return chr(65 + total % 26) == code[8]


def cz_rodne(value: str) -> bool:
    """Czech and Slovak rodné číslo: a day, months raised by 20, 50 or 70, divisible by 11."""
    digits = digits_of(value)
    if len(digits) not in {9, 10}:
        return False
    month = int(digits[2:4])
    month -= next((raised for raised in (70, 50, 20) if month > raised), 0)
    if not 1 <= month <= 12 or not 1 <= int(digits[4:6]) <= 31:
        return False
    if len(digits) == 9:
        return True
    return int(digits) % 11 == 0 or (int(digits[:9]) % 11 == 10 and digits[9] == "0")


def de_bsnr(value: str) -> bool:
    """German practice number: nine digits and not one digit alone; it has no check digit."""
    return re.fullmatch(r"[0-9]{9}", value) is not None and len(set(value)) > 1


def de_health(value: str) -> bool:
    """German health-insurance number (KVNR): the letter as two digits, weights 1 2, modulo 10."""
    code = bare(value)
    if not re.fullmatch(r"[A-Z][0-9]{9}", code):
        return False
    digits = f"{ord(code[0]) - 64:02}{code[1:9]}"
    return sum(_cross(int(d) * (1 + i % 2)) for i, d in enumerate(digits)) % 10 == int(code[9])


def _cross(number: int) -> int:
    return number // 10 + number % 10


def de_lanr(value: str) -> bool:
    """German physician number: six digits with weights 4 9, difference to ten, two more."""
    digits = digits_of(value)
    if len(digits) != 9:
        return False
    return (10 - weighted(digits[:6], (4, 9) * 3) % 10) % 10 == int(digits[6])


def de_mrz(value: str) -> bool:
    """German passport or identity card: ICAO 9303-3, weights 7 3 1 over eight characters."""
    code = bare(value)
    if not re.fullmatch(r"[CFGHJKLMNPRTVWXYZ][0-9CFGHJKLMNPRTVWXYZ]{7}[0-9]{1,2}", code):
        return False
    values = [int(character, 36) for character in code]
    total = sum(v * (7, 3, 1)[i % 3] for i, v in enumerate(values[:8]))
    if len(code) == 9:
        return total % 10 == values[8]
    return (total + values[8] * 1) % 10 == values[9] or (total + values[8] * 7) % 10 == values[9]


def de_passport(value: str) -> bool:
    """German passport: as the card, nine characters, begun by a letter of a passport authority."""
    return len(bare(value)) == 9 and bare(value)[0] in "CFGHJKL" and de_mrz(value)


def de_pension(value: str) -> bool:
    """German pension-insurance number: weights 2 1 2 5 7 1 2 1 2 1 2 1, cross sums, modulo 10."""
    code = bare(value)
    if not re.fullmatch(r"[0-9]{8}[A-Z][0-9]{3}", code):
        return False
    month = int(code[4:6])
    if not 1 <= int(code[2:4]) % 50 <= 31 or not 1 <= month <= 12:
        return False
    digits = f"{code[:8]}{ord(code[8]) - 64:02}{code[9:11]}"
    weights = (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1)
    total = sum(_cross(int(d) * w) for d, w in zip(digits, weights, strict=True))
    return total % 10 == int(code[11])


def ee_lt_code(value: str) -> bool:
    """Estonian and Lithuanian personal code: two rounds of weights modulo 11."""
    digits = digits_of(value)
    if len(digits) != 11 or not _short_date(digits[1:7], "ymd"):
        return False
    rest = weighted(digits, (1, 2, 3, 4, 5, 6, 7, 8, 9, 1)) % 11
    if rest == 10:
        rest = weighted(digits, (3, 4, 5, 6, 7, 8, 9, 1, 2, 3)) % 11 % 10
    return rest == int(digits[10])


def es_cif(value: str) -> bool:
    """Spanish CIF: Luhn over seven digits, as digit or as letter."""
    code = bare(value)
    if not re.fullmatch(r"[ABCDEFGHJNPQRSUVW][0-9]{7}[0-9A-J]", code):
        return False
    odd = sum(_cross(2 * int(d)) for d in code[1:8:2])
    check = -(odd + sum(int(d) for d in code[2:8:2])) % 10
    return code[8] in {str(check), "JABCDEFGHI"[check]}


def es_social(value: str) -> bool:
    """Spanish social-security number: province, eight digits, rest modulo 97."""
    digits = digits_of(value)
    if len(digits) != 12:
        return False
    number = int(digits[:10]) if digits[2] != "0" else int(digits[:2] + digits[3:10])
    return number % 97 == int(digits[10:])


def fr_spi(value: str) -> bool:
    """French tax number (SPI): the first ten digits modulo 511 are the last three."""
    digits = digits_of(value)
    return len(digits) == 13 and int(digits[:10]) % 511 == int(digits[10:])


def gr_afm(value: str) -> bool:
    """Greek tax number: powers of two, modulo 11 and then 10."""
    digits = digits_of(value)
    if len(digits) != 9 or len(set(digits)) == 1:
        return False
    return weighted(digits, [2 ** (8 - i) for i in range(8)]) % 11 % 10 == int(digits[8])


def gr_amka(value: str) -> bool:
    """Greek social-security number: day of birth and Luhn."""
    digits = digits_of(value)
    return len(digits) == 11 and _short_date(digits[:6], "dmy") and luhn(digits)


def hr_oib(value: str) -> bool:
    """Croatian OIB: eleven digits, ISO 7064 MOD 11,10."""
    return len(digits_of(value)) == 11 and iso7064_11_10(value)


def hu_personal(value: str) -> bool:
    """Hungarian személyi szám: weights 1 to 10, or 10 to 1 before 1997, modulo 11."""
    digits = digits_of(value)
    if len(digits) != 11 or not _short_date(digits[1:7], "ymd"):
        return False
    rests = {weighted(digits, range(1, 11)) % 11, weighted(digits, range(10, 0, -1)) % 11}
    return int(digits[10]) in rests


def hu_taj(value: str) -> bool:
    """Hungarian TAJ: weights 3 and 7, modulo 10."""
    digits = digits_of(value)
    return len(digits) == 9 and weighted(digits, (3, 7) * 4) % 10 == int(digits[8])


def hu_tax(value: str) -> bool:
    """Hungarian tax code: begins with 8, weights 1 to 9, modulo 11."""
    digits = digits_of(value)
    if len(digits) != 10 or digits[0] != "8":
        return False
    return weighted(digits, range(1, 10)) % 11 == int(digits[9])


def ie_pps(value: str) -> bool:
    """Irish PPS number: weights 8 to 2, a second letter times 9, modulo 23."""
    code = bare(value)
    if not re.fullmatch(r"[0-9]{7}[A-W][A-IW]?", code):
        return False
    total = weighted(code, range(8, 1, -1))
    if len(code) == 9 and code[8] != "W":
        total += 9 * (ord(code[8]) - 64)
    return "WABCDEFGHIJKLMNOPQRSTUV"[total % 23] == code[7]


def is_kennitala(value: str) -> bool:
    """Icelandic kennitala: weights 3 2 7 6 5 4 3 2, modulo 11."""
    digits = digits_of(value)
    if len(digits) != 10 or digits[9] not in "089":
        return False
    return -weighted(digits, (3, 2, 7, 6, 5, 4, 3, 2)) % 11 == int(digits[8])


_VERHOEFF_D = (
    *("0123456789", "1234067895", "2340178956", "3401289567", "4012395678"),
    *("5987604321", "6598710432", "7659821043", "8765932104", "9876543210"),
)
_VERHOEFF_P = (
    *("0123456789", "1576283094", "5803796142", "8916043527"),
    *("9453126870", "4286573901", "2793806415", "7046913258"),
)
_VERHOEFF = [
    [{str(digit): int(row[int(place[digit])]) for digit in range(10)} for place in _VERHOEFF_P]
    for row in _VERHOEFF_D
]
"""State, place modulo 8 from the right, digit -> next state."""


def verhoeff(value: str) -> bool:
    """Verhoeff's check digit over the dihedral group D5 (1969)."""
    digits = digits_of(value)
    state = 0
    for place, digit in enumerate(reversed(digits)):
        state = _VERHOEFF[state][place & 7][digit]
    return bool(digits) and state == 0


def lu_matricule(value: str) -> bool:
    """Luxembourg matricule: day of birth, then Luhn and Verhoeff digits over the first eleven."""
    digits = digits_of(value)
    if len(digits) != 13 or not is_day(int(digits[:4]), int(digits[4:6]), int(digits[6:8])):
        return False
    return luhn(digits[:12]) and verhoeff(digits[:11] + digits[12])


def lv_code(value: str) -> bool:
    """Latvian personas kods: day of birth and weights modulo 11; since 2017 32 and no meaning."""
    digits = digits_of(value)
    if len(digits) != 11:
        return False
    if digits[:2] == "32":
        return True
    total = weighted(digits, (1, 6, 3, 7, 9, 10, 5, 8, 4, 2))
    return _short_date(digits[:6], "dmy") and (1101 - total) % 11 % 10 == int(digits[10])


def no_fnr(value: str) -> bool:
    """Norwegian fødselsnummer and D-number: two check digits modulo 11."""
    digits = digits_of(value)
    if len(digits) != 11 or not 1 <= int(digits[:2]) % 40 <= 31:
        return False
    first = -weighted(digits, (3, 7, 6, 1, 8, 9, 4, 5, 2)) % 11
    second = -weighted(digits, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11
    return (first, second) == (int(digits[9]), int(digits[10]))


def pl_id_card(value: str) -> bool:
    """Polish identity card: three letters, weights 7 3 1 9 7 3 1 7 3, modulo 10."""
    code = bare(value)
    if not re.fullmatch(r"[A-Z]{3}[0-9]{6}", code):
        return False
    values = [int(character, 36) for character in code]
    return sum(v * w for v, w in zip(values, (7, 3, 1, 9, 7, 3, 1, 7, 3), strict=True)) % 10 == 0


def pl_nip(value: str) -> bool:
    """Polish NIP: weights 6 5 7 2 3 4 5 6 7, modulo 11."""
    digits = digits_of(value)
    if len(digits) != 10 or len(set(digits)) == 1:
        return False
    return weighted(digits, (6, 5, 7, 2, 3, 4, 5, 6, 7)) % 11 == int(digits[9])


def pt_cc(value: str) -> bool:
    """Portuguese cartão de cidadão: Luhn over base-36 characters."""
    code = bare(value)
    if not re.fullmatch(r"[0-9]{9}[A-Z]{2}[0-9]", code):
        return False
    total = 0
    for place, character in enumerate(reversed(code)):
        number = int(character, 36) << (place & 1)
        total += number - 9 if place & 1 and number > 9 else number
    return total % 10 == 0


def pt_nif(value: str) -> bool:
    """Portuguese NIF: weights 9 to 2, modulo 11."""
    digits = digits_of(value)
    if len(digits) != 9 or digits[0] not in "12356789":
        return False
    rest = weighted(digits, range(9, 1, -1)) % 11
    return (0 if rest < 2 else 11 - rest) == int(digits[8])


def ro_cnp(value: str) -> bool:
    """Romanian CNP: day of birth, county, weights 2 7 9 1 4 6 3 5 8 2 7 9, modulo 11."""
    digits = digits_of(value)
    if len(digits) != 13 or digits[0] == "0" or not _short_date(digits[1:7], "ymd"):
        return False
    rest = weighted(digits, (2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9)) % 11
    return (1 if rest == 10 else rest) == int(digits[12])


def si_emso(value: str) -> bool:
    """Slovenian EMŠO and the JMBG it comes from: weights 7 to 2 twice, modulo 11."""
    digits = digits_of(value)
    if len(digits) != 13 or not (
        1 <= int(digits[:2]) <= 31 and 1 <= int(digits[2:4]) <= 12 and digits[4] in "890"
    ):
        return False
    return -weighted(digits, (7, 6, 5, 4, 3, 2) * 2) % 11 == int(digits[12])

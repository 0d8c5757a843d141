"""Checksums and plausibility rules, each from its standard. PURE.

Every function takes the value as it stood in (folded) text, separators included, and returns
whether it holds. None raises on any string.
"""

# ruff: noqa: PLR2004 -- lengths and moduli are the standards' own

from __future__ import annotations

import ipaddress
import math
import re
from collections import Counter
from datetime import date

__all__ = [
    "IBAN_LENGTHS",
    "bare",
    "card",
    "cn_resident_15",
    "cn_resident_18",
    "codice_fiscale",
    "de_tax_id",
    "digits_of",
    "es_dni",
    "fi_hetu",
    "fr_nir",
    "iban",
    "ipv4",
    "ipv6",
    "is_day",
    "it_vat",
    "luhn",
    "mac",
    "mixed_case_random",
    "nhs",
    "nl_bsn",
    "not_a_placeholder",
    "pl_pesel",
    "plausible_date",
    "random_looking",
    "routing_number",
    "se_personnummer",
    "us_phone",
    "us_ssn",
    "uscc",
]

_SEPARATORS = re.compile(r"[^0-9A-Za-z]")
_NON_DIGITS = re.compile(r"[^0-9]")


def digits_of(value: str) -> str:
    """Only the ASCII digits."""
    return _NON_DIGITS.sub("", value)


def bare(value: str) -> str:
    """Only ASCII letters and digits, in upper case."""
    return _SEPARATORS.sub("", value).upper()


_DOUBLED = str.maketrans("0123456789", "0246813579")
"""Twice a digit, and the sum of that number's digits."""


def luhn(value: str) -> bool:
    """Check digit of ISO/IEC 7812-1, Annex B."""
    return _luhn(digits_of(value))


def _luhn(digits: str) -> bool:
    total = sum(map(int, digits[::-2])) + sum(map(int, digits[-2::-2].translate(_DOUBLED)))
    return bool(digits) and total % 10 == 0


_DECIMAL = re.compile(r"[0-9]{1,3}\.[0-9]+")
_CARD_PREFIX = re.compile(r"4|5[0-8]|2[2-7]|3[04-9]|6|1800|2131|81|9|1[0-9]{14}$")


def card(value: str) -> bool:
    """Luhn, an issuer range of ISO/IEC 7812, more than one digit, and no decimal number."""
    digits = digits_of(value)
    return (
        _DECIMAL.fullmatch(value) is None
        and len(set(digits)) > 1
        and _CARD_PREFIX.match(digits) is not None
        and _luhn(digits)
    )


IBAN_LENGTHS = {
    item[:2]: int(item[2:])
    for item in re.findall(
        r"[A-Z]{2}[0-9]{2}",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 "
        "DO28 EE20 EG29 ES24 FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 "
        "IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 "
        "MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SE24 SI19 SK24 "
        "SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 ",
    )
}


def iban(value: str) -> bool:
    """ISO 13616: the country's length and remainder 1 modulo 97."""
    code = bare(value)
    if IBAN_LENGTHS.get(code[:2]) != len(code):
        return False
    rearranged = code[4:] + code[:4]
    return int("".join(str(int(character, 36)) for character in rearranged)) % 97 == 1


_CN_PROVINCES = frozenset(
    re.findall("..", "111213141521222331323334353637414243444546505152535461626364657181828391")
)


def is_day(year: int, month: int, day: int) -> bool:
    """Whether the calendar has the day, between 1850 and 2100."""
    try:
        date(year, month, day)
    except ValueError:
        return False
    return 1850 <= year <= 2100


def cn_resident_18(value: str) -> bool:
    """GB 11643-1999: province, day of birth and ISO 7064 MOD 11-2 check character."""
    code = bare(value)
    if len(code) != 18 or not code[:17].isdigit() or code[:2] not in _CN_PROVINCES:
        return False
    if not is_day(int(code[6:10]), int(code[10:12]), int(code[12:14])):
        return False
    total = sum(int(digit) * pow(2, 17 - i, 11) for i, digit in enumerate(code[:17]))
    return "10X98765432"[total % 11] == code[17]


def cn_resident_15(value: str) -> bool:
    """The form before 1999: province and a day of birth in the 1900s; it has no check digit."""
    code = bare(value)
    return (
        len(code) == 15
        and code.isdigit()
        and code[:2] in _CN_PROVINCES
        and is_day(1900 + int(code[6:8]), int(code[8:10]), int(code[10:12]))
    )


_USCC = "0123456789ABCDEFGHJKLMNPQRTUWXY"


def uscc(value: str) -> bool:
    """GB 32100-2015: unified social credit code, check character modulo 31."""
    code = bare(value)
    if len(code) != 18 or any(character not in _USCC for character in code):
        return False
    total = sum(_USCC.index(character) * pow(3, i, 31) for i, character in enumerate(code[:17]))
    return _USCC[-total % 31] == code[17]


def us_ssn(value: str) -> bool:
    """SSA: no area 000, 666 or 9xx, no group 00, no serial 0000, none of the advertised ones."""
    digits = digits_of(value)
    return (
        len(digits) == 9
        and digits[:3] not in {"000", "666"}
        and digits[0] != "9"
        and digits[3:5] != "00"
        and digits[5:] != "0000"
        and digits not in {"078051120", "219099999"}
        and len(set(digits)) > 1
    )


def us_phone(value: str) -> bool:
    """NANP: area and exchange begin with 2 to 9 and are no N11."""
    digits = digits_of(value)
    digits = digits[1:] if len(digits) == 11 and digits[0] == "1" else digits
    return (
        len(digits) == 10
        and digits[0] in "23456789"
        and digits[3] in "23456789"
        and digits[1:3] != "11"
    )


def routing_number(value: str) -> bool:
    """ABA routing number: weights 3 7 1, modulo 10."""
    digits = digits_of(value)
    weighted = sum(int(d) * (3, 7, 1)[i % 3] for i, d in enumerate(digits))
    return len(digits) == 9 and weighted % 10 == 0 and weighted > 0


def nhs(value: str) -> bool:
    """NHS number: weights 10 to 2, modulo 11 (NHS Data Dictionary)."""
    digits = digits_of(value)
    if len(digits) != 10 or len(set(digits)) == 1:
        return False
    rest = 11 - sum(int(d) * (10 - i) for i, d in enumerate(digits[:9])) % 11
    return rest % 11 == int(digits[9])


def de_tax_id(value: str) -> bool:
    """German tax id: one digit twice or thrice in the first ten, ISO 7064 MOD 11,10."""
    digits = digits_of(value)
    if len(digits) != 11 or digits[0] == "0":
        return False
    if max(Counter(digits[:10]).values()) not in {2, 3}:
        return False
    product = 10
    for digit in digits[:10]:
        total = (int(digit) + product) % 10 or 10
        product = total * 2 % 11
    return (11 - product) % 10 == int(digits[10])


def fr_nir(value: str) -> bool:
    """French social-security number: 97 minus the rest modulo 97; Corsica's letters count."""
    code = bare(value).replace("2A", "19", 1).replace("2B", "18", 1)
    if len(code) != 15 or not code.isdigit():
        return False
    return 97 - int(code[:13]) % 97 == int(code[13:])


def es_dni(value: str) -> bool:
    """Spanish DNI and NIE: letter by the number modulo 23."""
    code = bare(value)
    number = code[:-1].replace("X", "0").replace("Y", "1").replace("Z", "2")
    return number.isdigit() and "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == code[-1]


_CF_ODD = dict(
    zip(
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        (
            *(1, 0, 5, 7, 9, 13, 15, 17, 19, 21),
            *(1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22),
            *(25, 24, 23),
        ),
        strict=True,
    )
)


def it_vat(value: str) -> bool:
    """Italian partita IVA: eleven digits, Luhn, not all the same."""
    digits = digits_of(value)
    return len(digits) == 11 and len(set(digits)) > 1 and luhn(digits)


def se_personnummer(value: str) -> bool:
    """Swedish personnummer: ten digits without the century, Luhn."""
    return len(digits_of(value)) >= 10 and luhn(digits_of(value)[-10:])


def codice_fiscale(value: str) -> bool:
    """Italian tax code: check letter of the decree of 23 December 1976."""
    code = bare(value)
    if len(code) != 16:
        return False
    total = sum(_CF_ODD[c] for c in code[:15:2])
    total += sum(int(c) if c.isdigit() else ord(c) - 65 for c in code[1:15:2])
    return chr(65 + total % 26) == code[15]


def pl_pesel(value: str) -> bool:
    """Polish PESEL: weights 1 3 7 9, modulo 10."""
    digits = digits_of(value)
    total = sum(int(d) * (1, 3, 7, 9)[i % 4] for i, d in enumerate(digits[:10]))
    return len(digits) == 11 and -total % 10 == int(digits[10]) and len(set(digits)) > 1


def nl_bsn(value: str) -> bool:
    """Dutch BSN: weights 9 to 2 and minus 1, modulo 11."""
    digits = digits_of(value)
    if len(digits) != 9 or len(set(digits)) == 1:
        return False
    total = sum(int(d) * (9 - i) for i, d in enumerate(digits[:8])) - int(digits[8])
    return total % 11 == 0


def fi_hetu(value: str) -> bool:
    """Finnish personal identity code: nine digits modulo 31 choose the last character."""
    number = digits_of(value[:6] + value[7:10])
    if len(number) != 9 or not any(
        is_day(century + int(number[4:6]), int(number[2:4]), int(number[:2]))
        for century in (1800, 1900, 2000)
    ):
        return False
    return "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(number) % 31] == value[-1:]


_OCTET_MAX = 255


def ipv4(value: str) -> bool:
    """Four octets, RFC 791; the unspecified and loopback addresses name nobody."""
    octets = value.partition("/")[0].split(".")
    if octets[0] in {"0", "127"}:
        return False
    return all(octet.isdecimal() and int(octet) <= _OCTET_MAX for octet in octets)


def ipv6(value: str) -> bool:
    """RFC 4291, 2.2, zone and prefix length aside; the loopback address names nobody."""
    value, _, prefix = value.partition("/")
    value = value.partition("%")[0]
    if prefix and not (prefix.isdecimal() and int(prefix) <= 128):
        return False
    try:
        address = ipaddress.IPv6Address(value)
    except ValueError:
        return False
    return not (address.is_unspecified or address.is_loopback) and len(value) > 3


def mac(value: str) -> bool:
    """IEEE 802: neither broadcast nor all zeros."""
    return len(set(bare(value))) > 1


_DATE = re.compile(r"([0-9]{1,4})\D+([0-9]{1,2})\D+([0-9]{1,4})")


def plausible_date(value: str) -> bool:
    """A day of the calendar in some order; with the month's name in it, taken as it is."""
    found = _DATE.search(value)
    if found is None:
        return re.search(r"[A-Za-z]{3}", value) is not None or len(digits_of(value)) == 8
    a, b, c = (int(part) for part in found.groups())
    return any(1 <= month <= 12 and 1 <= day <= 31 for month, day in ((b, c), (a, b), (b, a)))


_KINDS = (re.compile(r"[a-z]"), re.compile(r"[A-Z]"), re.compile(r"[0-9]"))
_BITS_PER_CHARACTER_MIN = 3.0


def random_looking(value: str) -> bool:
    """Letters and digits mixed, and at least three bits a character (Shannon)."""
    if sum(kind.search(value) is not None for kind in _KINDS) < 2:
        return False
    size = len(value)
    bits = -sum(n / size * math.log2(n / size) for n in Counter(value).values())
    return bits >= _BITS_PER_CHARACTER_MIN


def mixed_case_random(value: str) -> bool:
    """`random_looking`, with digits and both cases, and no path or UUID in disguise."""
    return (
        all(kind.search(value) is not None for kind in _KINDS)
        and value.count("/") + value.count("-") + value.count("_") <= len(value) // 8
        and random_looking(value)
    )


_PLACEHOLDER = re.compile(
    r"\W*(?:x+|\*+|\.+|_+|<.*|\$.*|%.*|\{.*|\[.*|null|none|true|false|yes|no|nil|undefined|required"
    r"|optional|string|str|int|bool|text|value|secret|password|token|key|changeme|example|hidden"
    r"|redacted|your.*|my.*|get.*|os\..*|process\..*|env.*|config.*|self\..*|request.*|input.*"
    r"|incorrect|wrong|invalid|expired|missing|reset|forgotten|correct|here|this|that|the)\W*",
    re.ASCII | re.IGNORECASE,
)


def not_a_placeholder(value: str) -> bool:
    """Whether an assigned value is one, rather than a type, a variable or dots."""
    return _PLACEHOLDER.fullmatch(value) is None

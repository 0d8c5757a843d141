"""VAT numbers of the European Union and neighbours, by country. PURE.

The rules are those the Commission's VIES checks; a country without one here is taken by its form.
"""

# ruff: noqa: PLR2004 -- lengths and moduli are the standards' own

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from compliance.recognizers.checks import bare, es_dni, luhn
from compliance.recognizers.checks_eu import (
    bg_egn,
    cy_tic,
    cz_rodne,
    es_cif,
    gr_afm,
    iso7064_11_10,
    pl_nip,
    pt_nif,
    weighted,
)

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["VAT_FORMS", "ch_uid", "vat"]

VAT_FORMS = {
    "AT": "U[0-9]{8}",
    "BE": "[01]?[0-9]{9}",
    "BG": "[0-9]{9,10}",
    "CY": "[0-9]{8}[A-Z]",
    "CZ": "[0-9]{8,10}",
    "DE": "[0-9]{9}",
    "DK": "[0-9]{8}",
    "EE": "[0-9]{9}",
    "EL": "[0-9]{9}",
    "ES": "[0-9A-Z][0-9]{7}[0-9A-Z]",
    "FI": "[0-9]{8}",
    "FR": "[0-9A-HJ-NP-Z]{2}[0-9]{9}",
    "GB": "[0-9]{9}(?:[0-9]{3})?",
    "HR": "[0-9]{11}",
    "HU": "[0-9]{8}",
    "IE": "[0-9][0-9A-Z+*][0-9]{5}[A-W][A-IW]?",
    "IT": "[0-9]{11}",
    "LT": "(?:[0-9]{9}|[0-9]{12})",
    "LU": "[0-9]{8}",
    "LV": "[0-9]{11}",
    "MT": "[0-9]{8}",
    "NL": "[0-9]{9}B[0-9]{2}",
    "PL": "[0-9]{10}",
    "PT": "[0-9]{9}",
    "RO": "[0-9]{5,10}",
    "SE": "[0-9]{10}01",
    "SI": "[0-9]{8}",
    "SK": "[0-9]{10}",
}
"""Country -> what follows it, without separators."""


def _at(body: str) -> bool:
    digits = body[1:]
    total = sum(int(d) * 2 // 10 + int(d) * 2 % 10 if i % 2 else int(d) for i, d in _first7(digits))
    return (96 - total) % 10 == int(digits[7])


def _first7(digits: str) -> enumerate[str]:
    return enumerate(digits[:7])


def _be(body: str) -> bool:
    digits = body.zfill(10)
    return 97 - int(digits[:8]) % 97 == int(digits[8:])


def _bg(body: str) -> bool:
    if len(body) == 10:
        return bg_egn(body) or weighted(body, (4, 3, 2, 7, 6, 5, 4, 3, 2, 1)) % 11 == 0
    rest = weighted(body, range(1, 9)) % 11
    if rest == 10:
        rest = weighted(body, range(3, 11)) % 11 % 10
    return rest == int(body[8])


def _cz(body: str) -> bool:
    if len(body) > 8:
        return cz_rodne(body)
    return (11 - weighted(body, range(8, 1, -1)) % 11) % 10 == int(body[7])


def _es(body: str) -> bool:
    return es_cif(body) or es_dni(body)


def _fr(body: str) -> bool:
    siren = body[2:]
    if not luhn(siren):
        return False
    return not body[:2].isdigit() or (12 + 3 * (int(siren) % 97)) % 97 == int(body[:2])


def _gb(body: str) -> bool:
    total = weighted(body, range(8, 1, -1)) + int(body[7:9])
    return total % 97 in {0, 42}


def _ie(body: str) -> bool:
    if not body[1].isdigit():
        body = f"0{body[2:7]}{body[0]}{body[7:]}"
    total = weighted(body[:7], range(8, 1, -1))
    if len(body) == 9 and body[8] != "W":
        total += 9 * (ord(body[8]) - 64)
    return "WABCDEFGHIJKLMNOPQRSTUV"[total % 23] == body[7]


def _lt(body: str) -> bool:
    count = len(body) - 1
    rest = weighted(body, [i % 9 + 1 for i in range(count)]) % 11
    if rest == 10:
        rest = weighted(body, [(i + 2) % 9 + 1 for i in range(count)]) % 11 % 10
    return rest == int(body[-1])


def _lv(body: str) -> bool:
    if body[0] in "0123":
        return True
    rest = 3 - weighted(body, (9, 1, 4, 8, 3, 10, 2, 5, 7, 6)) % 11
    if rest < -1:
        rest += 11
    return rest == int(body[10])


def _mt(body: str) -> bool:
    return (weighted(body, (3, 4, 6, 7, 8, 9)) + int(body[6:])) % 37 == 0


def _nl(body: str) -> bool:
    rest = weighted(body, range(9, 1, -1)) % 11
    if rest == int(body[8]):
        return True
    # Since 2020 the number of a sole trader is not their BSN: MOD 97-10 over all of it.
    return int("".join(str(int(c, 36)) for c in f"NL{body}")) % 97 == 1


def _ro(body: str) -> bool:
    digits = body.zfill(10)
    return weighted(digits, (7, 5, 3, 2, 1, 7, 5, 3, 2)) * 10 % 11 % 10 == int(digits[9])


def _si(body: str) -> bool:
    rest = 11 - weighted(body, range(8, 1, -1)) % 11
    return (0 if rest == 10 else rest) == int(body[7])


_RULES: dict[str, Callable[[str], bool]] = {
    "AT": _at,
    "BE": _be,
    "BG": _bg,
    "CY": cy_tic,
    "CZ": _cz,
    "DE": iso7064_11_10,
    "DK": lambda body: weighted(body, (2, 7, 6, 5, 4, 3, 2, 1)) % 11 == 0,
    "EE": lambda body: weighted(body, (3, 7, 1) * 3) % 10 == 0,
    "EL": gr_afm,
    "ES": _es,
    "FI": lambda body: weighted(body, (7, 9, 10, 5, 8, 4, 2, 1)) % 11 == 0,
    "FR": _fr,
    "GB": _gb,
    "HR": iso7064_11_10,
    "HU": lambda body: weighted(body, (9, 7, 3, 1) * 2) % 10 == 0,
    "IE": _ie,
    "IT": luhn,
    "LT": _lt,
    "LU": lambda body: int(body[:6]) % 89 == int(body[6:]),
    "LV": _lv,
    "MT": _mt,
    "NL": _nl,
    "PL": pl_nip,
    "PT": pt_nif,
    "RO": _ro,
    "SE": lambda body: luhn(body[:10]),
    "SI": _si,
    "SK": lambda body: int(body) % 11 == 0,
}


def vat(value: str) -> bool:
    """A VAT number with its country's code: form and check digits."""
    code = bare(value)
    country, body = code[:2], code[2:]
    form = VAT_FORMS.get(country)
    if form is None or re.fullmatch(form, body) is None:
        return False
    return len(set(body)) > 1 and _RULES[country](body)


def ch_uid(value: str) -> bool:
    """Swiss enterprise number CHE-123.456.789: weights 5 4 3 2 7 6 5 4, modulo 11."""
    digits = re.sub("[^0-9]", "", value)
    return len(digits) == 9 and -weighted(digits, (5, 4, 3, 2, 7, 6, 5, 4)) % 11 == int(digits[8])

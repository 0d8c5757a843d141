"""Checksums of identifiers outside Europe and China, and of health-care numbers. PURE.

As in `compliance.recognizers.checks`: any string goes in, separators included, and none raises.
"""

# ruff: noqa: PLR2004 -- lengths and moduli are the standards' own

from __future__ import annotations

import hashlib
import re

from compliance.recognizers.checks import bare, digits_of, is_day, luhn
from compliance.recognizers.checks_eu import verhoeff, weighted

__all__ = [
    "aadhaar",
    "au_abn",
    "au_acn",
    "au_medicare",
    "au_tfn",
    "br_cnpj",
    "br_cpf",
    "ca_sin",
    "crypto_address",
    "dea",
    "hk_id",
    "il_id",
    "imei",
    "in_gstin",
    "in_pan",
    "jp_my_number",
    "kr_brn",
    "mx_curp",
    "ng_nin",
    "npi",
    "ph_tin",
    "sg_fin",
    "sg_uen",
    "th_tnin",
    "tr_tckn",
    "tw_business",
    "tw_id",
    "vin",
    "za_id",
]


def aadhaar(value: str) -> bool:
    """Indian Aadhaar: 12 digits from 2 on, no palindrome, Verhoeff."""
    digits = digits_of(value)
    return (
        len(digits) == 12 and digits[0] not in "01" and digits != digits[::-1] and verhoeff(digits)
    )


def ng_nin(value: str) -> bool:
    """Nigerian NIN: 11 digits, Verhoeff."""
    digits = digits_of(value)
    return len(digits) == 11 and len(set(digits)) > 1 and verhoeff(digits)


def au_abn(value: str) -> bool:
    """Australian business number: one off the first digit, weights 10 1 3 …, modulo 89."""
    digits = digits_of(value)
    if len(digits) != 11 or digits[0] == "0":
        return False
    number = f"{int(digits[0]) - 1}{digits[1:]}"
    return weighted(number, (10, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19)) % 89 == 0


def au_acn(value: str) -> bool:
    """Australian company number: weights 8 to 1, modulo 10."""
    digits = digits_of(value)
    return len(digits) == 9 and -weighted(digits, range(8, 0, -1)) % 10 == int(digits[8])


def au_medicare(value: str) -> bool:
    """Australian Medicare: 2 to 6 first, weights 1 3 7 9 1 3 7 9, modulo 10."""
    digits = digits_of(value)
    if len(digits) not in {10, 11} or digits[0] not in "23456":
        return False
    return weighted(digits, (1, 3, 7, 9) * 2) % 10 == int(digits[8])


def au_tfn(value: str) -> bool:
    """Australian tax file number: weights 1 4 3 7 5 8 6 9 10, modulo 11."""
    digits = digits_of(value)
    if len(digits) != 9 or len(set(digits)) == 1:
        return False
    return weighted(digits, (1, 4, 3, 7, 5, 8, 6, 9, 10)) % 11 == 0


def br_cpf(value: str) -> bool:
    """Brazilian CPF: two check digits modulo 11."""
    digits = digits_of(value)
    if len(digits) != 11 or len(set(digits)) == 1:
        return False
    first = weighted(digits, range(10, 1, -1)) * 10 % 11 % 10
    second = weighted(digits, range(11, 1, -1)) * 10 % 11 % 10
    return f"{first}{second}" == digits[9:]


def br_cnpj(value: str) -> bool:
    """Brazilian CNPJ: two check digits modulo 11."""
    digits = digits_of(value)
    if len(digits) != 14 or len(set(digits)) == 1:
        return False
    weights = (6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2)
    first = -weighted(digits[:12], weights[1:]) % 11 % 10
    second = -weighted(digits[:13], weights) % 11 % 10
    return f"{first}{second}" == digits[12:]


def ca_sin(value: str) -> bool:
    """Canadian SIN: Luhn; 0 and 8 do not begin one."""
    digits = digits_of(value)
    return len(digits) == 9 and digits[0] not in "08" and len(set(digits)) > 1 and luhn(digits)


def dea(value: str) -> bool:
    """US DEA registration: odd digits plus twice the even ones, last digit."""
    digits = digits_of(value)
    if len(digits) != 7 and len(bare(value)) != 9:
        return False
    digits = digits[-7:]
    if len(digits) != 7:
        return False
    total = weighted(digits, (1, 2, 1, 2, 1, 2))
    return total % 10 == int(digits[6])


_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def crypto_address(value: str) -> bool:
    """Bitcoin (Base58Check; BIP 173 and 350) by checksum; Ethereum (EIP-55) by form."""
    if value.startswith("0x"):
        return len(set(value[2:])) > 4
    if value.lower().startswith("bc1"):
        return _bech32(value.lower())
    if any(character not in _BASE58 for character in value):
        return False
    number = 0
    for character in value:
        number = number * 58 + _BASE58.index(character)
    if number >= 1 << 200:
        return False
    raw = number.to_bytes(25, "big")
    return hashlib.sha256(hashlib.sha256(raw[:21]).digest()).digest()[:4] == raw[21:]


def _bech32(value: str) -> bool:
    state = 1
    head = [*(ord(c) >> 5 for c in "bc"), 0, *(ord(c) & 31 for c in "bc")]
    if any(character not in _BECH32 for character in value[3:]):
        return False
    for number in (*head, *(_BECH32.index(c) for c in value[3:])):
        top = state >> 25
        state = (state & 0x1FFFFFF) << 5 ^ number
        for i, generator in enumerate(_GENERATORS):
            state ^= generator if top >> i & 1 else 0
    return state in {1, 0x2BC830A3}


_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def hk_id(value: str) -> bool:
    """Hong Kong identity card: letters as 10 to 35, a blank as 36, weights 9 to 1, modulo 11."""
    code = bare(value)
    if not re.fullmatch(r"[A-Z]{1,2}[0-9]{6}[0-9A]", code):
        return False
    values = [36, *(int(c, 36) for c in code)] if len(code) == 8 else [int(c, 36) for c in code]
    return sum(v * w for v, w in zip(values, range(9, 0, -1), strict=True)) % 11 == 0


def il_id(value: str) -> bool:
    """Israeli identity number: nine digits, Luhn from the left."""
    digits = digits_of(value)
    return len(digits) == 9 and len(set(digits)) > 1 and luhn(digits)


def imei(value: str) -> bool:
    """Device identity, 3GPP TS 23.003: 15 digits, Luhn; a known reporting body begins it."""
    digits = digits_of(value)
    return len(digits) == 15 and len(set(digits)) > 2 and luhn(digits)


def in_pan(value: str) -> bool:
    """Indian PAN: the fourth letter names the kind of holder."""
    return re.fullmatch(r"[A-Z]{3}[ABCEFGHJLPT][A-Z][0-9]{4}[A-Z]", bare(value)) is not None


def in_gstin(value: str) -> bool:
    """Indian GSTIN: state 01 to 37, a PAN's form, an entity, Z."""
    code = bare(value)
    if not re.fullmatch(r"[0-9]{2}[A-Z]{5}[0-9]{4}[A-Z][0-9A-Z]Z[0-9A-Z]", code):
        return False
    return 1 <= int(code[:2]) <= 37


def jp_my_number(value: str) -> bool:
    """Japanese My Number: 12 digits, weights 6 5 4 3 2 7 6 5 4 3 2, modulo 11."""
    digits = digits_of(value)
    if len(digits) != 12 or len(set(digits)) == 1:
        return False
    rest = weighted(digits, (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11
    return (0 if rest <= 1 else 11 - rest) == int(digits[11])


def kr_brn(value: str) -> bool:
    """Korean business number: weights 1 3 7 1 3 7 1 3 5, modulo 10."""
    digits = digits_of(value)
    if len(digits) != 10:
        return False
    total = weighted(digits, (1, 3, 7, 1, 3, 7, 1, 3, 5)) + int(digits[8]) * 5 // 10
    return -total % 10 == int(digits[9])


def mx_curp(value: str) -> bool:
    """Mexican CURP: day of birth and a check digit over 37 characters."""
    code = bare(value)
    if not re.fullmatch(r"[A-Z]{4}[0-9]{6}[HMX][A-Z]{5}[0-9A-Z][0-9]", code):
        return False
    year, month, day = int(code[4:6]), int(code[6:8]), int(code[8:10])
    return is_day(1900 + year, month, day) or is_day(2000 + year, month, day)


def npi(value: str) -> bool:
    """US NPI: Luhn over the number with 80840 before it (45 CFR 162.406)."""
    digits = digits_of(value)
    return (
        len(digits) == 10
        and digits[0] in "12"
        and len(set(digits[:9])) > 1
        and luhn(f"80840{digits}")
    )


def ph_tin(value: str) -> bool:
    """Philippine TIN: eight digits with weights 9 to 2, modulo 11; a branch may follow."""
    digits = digits_of(value)[:9]
    if len(digits) != 9 or len(set(digits)) == 1:
        return False
    return weighted(digits, range(9, 1, -1)) % 11 == int(digits[8])


def sg_fin(value: str) -> bool:
    """Singapore NRIC and FIN: weights 2 7 6 5 4 3 2, offset by series, a letter."""
    code = bare(value)
    if not re.fullmatch(r"[STFGM][0-9]{7}[A-Z]", code):
        return False
    total = weighted(code[1:8], (2, 7, 6, 5, 4, 3, 2)) + {"T": 4, "G": 4, "M": 3}.get(code[0], 0)
    table = {"S": "JZIHGFEDCBA", "T": "JZIHGFEDCBA", "M": "KLJNPQRTUWX"}
    return table.get(code[0], "XWUTRQPNMLK")[total % 11] == code[8]


def sg_uen(value: str) -> bool:
    """Singapore UEN: forms of ACRA, 2009; letters that it does not use are refused."""
    form = r"[0-9]{8}[A-HJ-NR-X]|(?:19|20)[0-9]{7}[A-Z]|[RST][0-9]{2}[A-Z]{2}[0-9]{4}[A-HJ-NR-X]"
    return re.fullmatch(form, bare(value)) is not None


_TH_NO_PROVINCE = frozenset(re.findall("..", "28295968697879878889979899"))


def th_tnin(value: str) -> bool:
    """Thai identification number: province, weights 13 to 2, modulo 11 and then 10."""
    digits = digits_of(value)
    if len(digits) != 13 or "0" in digits[:2] or digits[1:3] in _TH_NO_PROVINCE:
        return False
    return (11 - weighted(digits, range(13, 1, -1)) % 11) % 10 == int(digits[12])


def tr_tckn(value: str) -> bool:
    """Turkish identity number: 7 times the odd digits less the even ones; sum of ten."""
    digits = digits_of(value)
    if len(digits) != 11 or digits[0] == "0":
        return False
    odd, even = weighted(digits[:9:2], (1,) * 5), weighted(digits[1:8:2], (1,) * 4)
    return (7 * odd - even) % 10 == int(digits[9]) and weighted(digits[:10], (1,) * 10) % 10 == int(
        digits[10]
    )


_TW_LETTERS = "ABCDEFGHJKLMNPQRSTUVXYWZIO"


def tw_id(value: str) -> bool:
    """Taiwan identity or resident number: letter as 10 to 35, weights 1 9 8 … 1 1, modulo 10."""
    code = bare(value)
    if not re.fullmatch(r"[A-Z][12890A-D][0-9]{8}", code):
        return False
    head = str(10 + _TW_LETTERS.index(code[0]))
    second = str(_TW_LETTERS.index(code[1]) % 10) if code[1].isalpha() else code[1]
    return weighted(f"{head}{second}{code[2:]}", (1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1)) % 10 == 0


def tw_business(value: str) -> bool:
    """Taiwan firm: weights 1 2 1 2 1 2 4 1, digits of the products, modulo 5; a 7 counts twice."""
    digits = digits_of(value)
    if len(digits) != 8 or len(set(digits)) == 1:
        return False
    products = (int(d) * w for d, w in zip(digits, (1, 2, 1, 2, 1, 2, 4, 1), strict=True))
    total = sum(sum(divmod(product, 10)) for product in products)
    return total % 5 == 0 or (digits[6] == "7" and (total + 1) % 5 == 0)


_VIN_LETTERS = dict(zip("ABCDEFGHJKLMNPRSTUVWXYZ", "12345678123457923456789", strict=True))
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)


def vin(value: str) -> bool:
    """Vehicle identification number, 49 CFR 565.15 and GB 16735: weights 8 to 2, modulo 11."""
    code = bare(value)
    if not re.fullmatch(r"[A-HJ-NPR-Z0-9]{8}[0-9X][A-HJ-NPR-Z0-9]{8}", code):
        return False
    values = (int(_VIN_LETTERS.get(character, character)) for character in code)
    total = sum(v * w for v, w in zip(values, _VIN_WEIGHTS, strict=True))
    return "0123456789X"[total % 11] == code[8]


def za_id(value: str) -> bool:
    """South African identity number: day of birth, citizenship 0 to 2, Luhn."""
    digits = digits_of(value)
    if len(digits) != 13 or digits[10] not in "012" or digits[11] not in "89" or not luhn(digits):
        return False
    year, month, day = int(digits[:2]), int(digits[2:4]), int(digits[4:6])
    return is_day(1900 + year, month, day) or is_day(2000 + year, month, day)

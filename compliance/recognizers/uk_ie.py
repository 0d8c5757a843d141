"""United Kingdom and Ireland, beside what `eu` has. PURE."""

from __future__ import annotations

from compliance.recognizers import checks_eu
from compliance.recognizers.base import NOT_BEFORE, identifier, labelled

_PLATE_WORDS = (
    *("registration", "reg", "plate", "number plate", "car", "vehicle", "van", "vrm", "dvla"),
    *("licence plate", "license plate", "reg no"),
)
_AGES = frozenset(f"{age:02}" for year in range(2, 30) for age in (year, year + 50)) | {"51"}
"""Age marks: March of 2002 to 2029, and 50 more for September."""
_AREA = r"[A-HJ-PR-Y][A-HJ-PR-Y]"
_SERIAL = r"[A-HJ-PR-Z]{3}"

_BYTES = ("KB", "MB", "GB", "TB")
"""A number of them looks like a PPS number."""

UK_IE = (
    identifier(
        "uk_passport",
        "UK_PASSPORT",
        r"[A-Z]{2}[0-9]{7}|[0-9]{9}",
        "HM Passport Office: nine digits, or two letters and seven digits",
        type="PASSPORT",
        score=(0.1, 0.92),
        context=("passport", "passports", "hmpo", "travel document"),
        case=False,
    ),
    identifier(
        "uk_driving_licence",
        "UK_DRIVING_LICENCE",
        r"(?=[A-Z]+9*[0-9])[A-Z9]{5}[0-9](?:[05][1-9]|[16][0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9]"
        r"[A-Z9]{2}[0-9A-Z][A-Z]{2}",
        "DVLA INF1D: surname, decade, month, day, year, initials, check",
        hint=r"[A-Z9]{5}[0-9][0156][0-9][0-3][0-9][0-9][A-Z9]{2}[0-9A-Z][A-Z]{2}",
        score=(0.9, 0.97),
        context=("driving licence", "licence", "dvla", "driver"),
        case=False,
    ),
    identifier(
        "uk_plate",
        "UK",
        rf"{_AREA}(?:0[2-9]|[1-7][0-9])[ \-]?{_SERIAL}",
        "DVLA INF104, marks since 2001: area, age, three letters",
        type="PLATE",
        check=lambda value: value[2:4] in _AGES,
        score=(0.6, 0.92),
        rejected=(0.0, 0.0),
        context=_PLATE_WORDS,
        case=False,
    ),
    identifier(
        "uk_plate_old",
        "UK",
        r"[A-HJ-NPR-TV-Y][0-9]{1,3} ?[A-HJ-PR-Y]{3}|[A-HJ-PR-Y]{3} ?[0-9]{1,3}[A-HJ-NPR-TV-Y]",
        "DVLA INF104, prefix and suffix marks of 1963 to 2001",
        type="PLATE",
        score=(0.1, 0.85),
        context=_PLATE_WORDS,
    ),
    identifier(
        "uk_postcode_closed",
        "UK_POSTCODE",
        r"GIR0AA|[A-PR-UWYZ](?:[0-9][0-9A-HJKPSTUW]?|[A-HK-Y][0-9][0-9ABEHMNPRVWXY]?)"
        r"[0-9][ABD-HJLNP-UW-Z]{2}",
        "Royal Mail, Programmer's Guide to the PAF, written without its space",
        type="LOCATION",
        score=(0.2, 0.85),
        context=("postcode", "post code", "postal code", "address"),
    ),
    labelled(
        "uk_utr",
        "UK_UTR",
        rf"{NOT_BEFORE}(?:utr|unique taxpayer reference)",
        r"[0-9]{5} ?[0-9]{5}K?",
        source="HMRC, unique taxpayer reference",
    ),
    labelled(
        "uk_sort_code",
        "UK_SORT_CODE",
        rf"{NOT_BEFORE}sort[ \-]?code",
        r"[0-9]{2}[ \-]?[0-9]{2}[ \-]?[0-9]{2}",
        source="Pay.UK, sort codes, by their label",
        type="BANK_ACCOUNT",
    ),
    identifier(
        "ie_pps",
        "IE_PPS",
        r"[0-9]{7} ?[A-W][A-IW]?",
        "Social Welfare Consolidation Act 2005, PPS number, modulo 23",
        check=lambda value: not value.upper().endswith(_BYTES) and checks_eu.ie_pps(value),
        score=(0.55, 0.95),
        context=("pps", "ppsn", "pps number", "ppsn:", "personal public service", "uimhir psp"),
        case=False,
    ),
    identifier(
        "ie_eircode",
        "IE_EIRCODE",
        r"(?:[AC-FHKNPRTV-Y][0-9]{2}|D6W) [0-9AC-FHKNPRTV-Y]{4}",
        "Eircode Address Database: routing key and unique identifier",
        type="LOCATION",
        check=lambda value: sum(character.isdigit() for character in value[4:]) >= 1,
        score=(0.5, 0.85),
        rejected=(0.0, 0.0),
        context=("eircode", "address", "dublin", "ireland", "co.", "cork", "galway"),
    ),
)

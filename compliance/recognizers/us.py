"""United States and Canada. PURE."""

from __future__ import annotations

import re

from compliance.recognizers import checks, checks_world
from compliance.recognizers.base import NOT_AFTER, NOT_BEFORE, Recognizer

_STREET = (
    r"(?:street|st|avenue|ave|road|rd|boulevard|blvd|lane|ln|drive|dr"
    r"|court|ct|place|pl|square|terrace|parkway|pkwy|highway|hwy|way)"
)
"""Suffixes that are enough in any case."""
_STREET_RARE = (
    r"(?:Alley"
    r"|Bluff|Branch|Bridge|Brook|Burg|Bypass|Camp|Canyon|Cape"
    r"|Causeway|Center|Centers|Cir|Circle|Cliffs?|Close|Corner|Course"
    r"|Cove|Creek|Crescent|Crest|Crossing|Curve|Dale|Dam|Divide"
    r"|Estates?|Expressway|Extension|Ferry|Fields?|Flats?|Ford|Forest|Fort"
    r"|Freeway|Garden|Gardens?|Gates?|Gateway|Glen|Green|Grove|Harbors?"
    r"|Haven|Heights|Hills?|Hollow|Inlet|Island|Isle|Junction|Keys"
    r"|Knolls?|Lakes?|Landing|Locks?|Lodge|Loop|Meadows?|Mews|Mill"
    r"|Mills|Mission|Motorway|Mount|Mountain|Neck|Orchard|Oval|Overpass"
    r"|Parks?|Pass|Passage|Path|Pike|Pine|Pines|Plains?|Plaza"
    r"|Point|Points|Port|Prairie|Radial|Ranch|Rapids|Rest|Ridge"
    r"|River|Route|Row|Run|Shoals?|Shores?|Skyway|Springs?|Spur"
    r"|Sq|Station|Stravenue|Stream|Summit|Ter|Throughway|Trace|Track"
    r"|Trafficway|Trail|Trl|Tunnel|Turnpike|Underpass|Union|Unions|Valley"
    r"|Viaduct|View|Village|Ville|Vista|Walk|Wall|Ways|Well"
    r"|Wells"
    r")"
)
"""Words with other meanings too: only capitalised, behind capitalised words."""
_UNIT = (
    r"(?:(?:apt|apartment|suite|ste|unit|room|rm|floor|fl|box|building|bldg)\.? ?#?[a-z0-9\-]{1,6})"
)

_IN_PASSING = re.compile(
    rf" [a-z]+ (?:the|this|that|a|an|my|your|our|their|his|her|its|any|each|every|no) {_STREET}\.?$"
)
"""`512 units on the way`; `12 The Avenue` is an address."""

US = (
    Recognizer(
        name="us_ssn",
        type="US_SSN",
        subtype="US_SSN",
        pattern=r"(?<![0-9A-Za-z])(?<![0-9][.\-])[0-9]{3}([ \-.]?)[0-9]{2}\1[0-9]{4}(?!"
        r"[0-9A-Za-z]|[\-.][0-9])",
        source="SSA, RM 10201.035: numbers never issued are refused",
        score=(0.3, 0.95),
        rejected=(0.0, 0.55),
        check=checks.us_ssn,
        context=(
            *("ssn", "social security", "social-security", "soc sec", "social", "ss#", "ssns"),
            *("社会安全号", "社安号"),
        ),
        digits=(9, 9),
    ),
    Recognizer(
        name="us_ssn_dashed",
        type="US_SSN",
        subtype="US_SSN",
        pattern=r"(?<![0-9A-Za-z])(?<![0-9][.\-])[0-9]{3}-[0-9]{2}-[0-9]{4}(?![0-9A-Za-z]|[\-.]"
        r"[0-9])",
        source="SSA: the dashes in these places are unmistakable",
        score=(0.85, 0.97),
        check=checks.us_ssn,
        context=("ssn", "social security", "social"),
        digits=(9, 9),
    ),
    Recognizer(
        name="us_ssn_odd",
        type="US_SSN",
        subtype="US_SSN",
        pattern=r"(?<![0-9A-Za-z])(?<![0-9][.\-])(?:[0-9]{3}-[0-9]{6}|[0-9]{5}-[0-9]{4})(?!"
        r"[0-9A-Za-z]|[\-.][0-9])",
        source="SSA, with one of its two dashes; ZIP+4 looks the same",
        score=(0.1, 0.92),
        check=checks.us_ssn,
        context=("ssn", "social security", "social"),
        digits=(9, 9),
    ),
    Recognizer(
        name="us_driving_licence",
        type="NATIONAL_ID",
        subtype="US_DRIVING_LICENCE",
        pattern=r"(?<![0-9A-Za-z])(?:[A-Z][0-9]{3,14}|[A-Z]{2}[0-9]{3,7}|[A-Z][0-9]{2}[A-Z][0-9]{6})"
        r"(?![0-9A-Za-z])",
        source="AAMVA, formats of the states that begin with letters",
        score=(0.05, 0.75),
        context=("driver's license", "drivers license", "driver license", "driver licence"),
        tight=True,
    ),
    Recognizer(
        name="us_driving_licence_digits",
        type="NATIONAL_ID",
        subtype="US_DRIVING_LICENCE",
        pattern=r"(?<![0-9A-Za-z])[0-9]{8,14}(?![0-9A-Za-z]|[.\-/][0-9])",
        source="AAMVA, formats of the states made of digits; anything without a label",
        score=(0.05, 0.75),
        context=("driver's license", "drivers license", "driver license", "driver licence"),
        digits=(8, 14),
    ),
    Recognizer(
        name="us_bank_account",
        type="BANK_ACCOUNT",
        subtype="ACCOUNT_NUMBER",
        pattern=r"(?<![0-9A-Za-z])[0-9]{8,17}(?![0-9A-Za-z]|[.\-/][0-9])",
        source="ABA: 8 to 17 digits; anything without a label",
        score=(0.05, 0.8),
        context=("bank account", "account number", "checking", "savings account", "acct"),
        digits=(8, 17),
    ),
    Recognizer(
        name="us_passport",
        type="PASSPORT",
        subtype="US_PASSPORT",
        pattern=r"(?<![0-9A-Za-z])[A-Z0-9][0-9]{8}(?![0-9A-Za-z]|[.\-/][0-9])",
        source="US Department of State: nine digits, or a letter and eight digits since 2021",
        score=(0.1, 0.92),
        context=("passport", "travel document", "passeport", "护照"),
        tight=True,
    ),
    Recognizer(
        name="us_itin",
        type="NATIONAL_ID",
        subtype="US_ITIN",
        pattern=r"(?<![0-9A-Za-z])9[0-9]{2}[ \-]?(?:5[0-9]|6[0-5]|7[0-9]|8[0-8]|9[0-24-9])"
        r"[ \-]?[0-9]{4}(?![0-9A-Za-z])",
        source="IRS, ITIN ranges",
        score=(0.35, 0.92),
        context=("itin", "taxpayer", "individual taxpayer", "tax id"),
        digits=(9, 9),
    ),
    Recognizer(
        name="us_phone",
        type="PHONE",
        subtype="US",
        pattern=r"(?<![0-9A-Za-z])(?<![0-9][.\-])(?!1\.[0-9]{8})(?:\+?1[ \-.]?)?\(?[2-9][0-9]{2}\)?"
        r"[ \-./]{0,2}[2-9][0-9]{2}"
        r"[ \-.]?[0-9]{4}(?![0-9A-Za-z]|[\-.][0-9])",
        source="North American Numbering Plan",
        score=(0.6, 0.95),
        check=checks.us_phone,
        context=(
            *("phone", "call", "tel", "telephone", "mobile", "cell", "fax", "contact", "reach"),
            *("text", "sms", "whatsapp", "dial", "ring", "number", "电话", "手机", "联系", "致电"),
        ),
        digits=(10, 11),
    ),
    Recognizer(
        name="us_phone_extension",
        type="PHONE",
        subtype="US",
        pattern=r"(?<![0-9A-Za-z])(?:\+?(?:00)?1[ \-.]?)?\(?[0-9]{3}\)?[ \-./]?[0-9]{3}[ \-.]?"
        r"[0-9]{4}"
        r" ?(?:x|ext\.?|extension) ?[0-9]{1,6}(?![0-9A-Za-z])",
        source="North American Numbering Plan, with an extension",
        score=(0.92, 0.97),
        case=False,
    ),
    Recognizer(
        name="us_routing_number",
        type="BANK_ACCOUNT",
        subtype="US_ROUTING_NUMBER",
        pattern=r"(?<![0-9A-Za-z])(?:0[0-9]|1[0-2]|2[1-9]|3[0-2]|6[1-9]|7[0-2]|80)[0-9]{2}"
        r"(?:[0-9]{5}|-[0-9]{4}-[0-9])(?![0-9A-Za-z])",
        source="ABA routing number, Federal Reserve prefixes, weights 3 7 1",
        score=(0.2, 0.92),
        check=checks.routing_number,
        context=("routing", "aba", "rtn", "routing number"),
        digits=(9, 9),
    ),
    Recognizer(
        name="us_ein",
        type="NATIONAL_ID",
        subtype="US_EIN",
        pattern=r"(?<![a-z])(?:ein|employer identification(?: number)?|tax id)[ :#is]{0,6}"
        r"(?P<v>[0-9]{2}-?[0-9]{7})(?![0-9A-Za-z])",
        source="IRS, employer identification number, by its label",
        score=(0.85, 0.9),
        case=False,
    ),
    Recognizer(
        name="us_npi_dea",
        type="MEDICAL_RECORD",
        subtype="US_PROVIDER_ID",
        pattern=r"(?<![a-z])(?:npi|dea)(?: ?(?:no|number|#))?\.?[ :#is]{0,6}"
        r"(?P<v>[12][0-9]{9}|[a-z]{2}[0-9]{7})(?![0-9A-Za-z])",
        source="CMS NPI and DEA registration numbers, by their label",
        score=(0.85, 0.9),
        case=False,
    ),
    Recognizer(
        name="ca_sin",
        type="NATIONAL_ID",
        subtype="CA_SIN",
        pattern=r"(?<![0-9A-Za-z])[1-79][0-9]{2}([ \-]?)[0-9]{3}\1[0-9]{3}(?![0-9A-Za-z]|-[0-9])",
        source="Canadian SIN, Luhn",
        score=(0.2, 0.92),
        check=checks_world.ca_sin,
        context=(
            *("sin is", "my sin", "sin number", "sin no", "sin:", "sin#", "social insurance"),
            *("nas", "assurance sociale"),
        ),
        digits=(9, 9),
    ),
    Recognizer(
        name="us_plate",
        type="PLATE",
        subtype="US",
        pattern=r"(?<![a-z])(?:licen[cs]e plate|number plate|plates?|registration plate|reg\.? no)"
        r"(?: ?(?:no|number|#))?\.?(?: (?:is|was|reads))?[ :#=]{1,4}"
        r"(?P<v>(?=[A-Z\- ]{0,5}[0-9])[A-Z0-9]{1,4}[ \-]?[A-Z0-9]{2,5})(?![0-9A-Za-z])",
        source="formats vary by state: by its label",
        score=(0.75, 0.85),
        case=False,
    ),
    Recognizer(
        name="street_address",
        type="LOCATION",
        subtype="STREET_ADDRESS",
        pattern=rf"{NOT_BEFORE}[0-9]{{1,6}}[a-z]?,?(?: [a-z][a-z'.\-]{{1,20}}){{1,4}} {_STREET}"
        rf"(?![a-z])\.?"
        rf"(?:,? {_UNIT}(?![a-z0-9]))?"
        r"(?:[,\n]{1,2} ?[a-z][a-z'.\-]{1,20}(?: [a-z][a-z'.\-]{1,20}){0,2},? [A-Z]{2},? "
        r"[0-9]{5}(?:-[0-9]{4})?)?"
        rf"{NOT_AFTER}",
        source="USPS Publication 28, Appendix C1 (street suffixes)",
        check=lambda value: _IN_PASSING.search(value) is None,
        score=(0.6, 0.85),
        context=(
            "address",
            "live",
            "lives",
            "reside",
            "home",
            "located",
            "mail",
            "ship",
            "deliver",
        ),
        case=False,
    ),
    Recognizer(
        name="street_address_rare",
        type="LOCATION",
        subtype="STREET_ADDRESS",
        pattern=rf"{NOT_BEFORE}[0-9]{{1,6}}[a-z]?,?(?: [A-Z][A-Za-z'.\-]{{1,20}}){{1,4}} "
        rf"{_STREET_RARE}"
        rf"(?![a-z])\.?"
        rf"(?:,? (?i:{_UNIT})(?![A-Za-z0-9]))?"
        r"(?:[,\n]{1,2} ?[A-Z][A-Za-z'.\-]{1,20}(?: [A-Z][A-Za-z'.\-]{1,20}){0,2},? [A-Z]{2},? "
        r"[0-9]{5}(?:-[0-9]{4})?)?"
        rf"{NOT_AFTER}",
        source="USPS Publication 28, Appendix C1 (street suffixes)",
        score=(0.6, 0.85),
        context=(
            "address",
            "live",
            "lives",
            "reside",
            "home",
            "located",
            "mail",
            "ship",
            "deliver",
        ),
    ),
    Recognizer(
        name="us_state_zip",
        type="LOCATION",
        subtype="STATE_ZIP",
        pattern=r"(?<![A-Za-z])[A-Z][a-z]{2,20}(?: [A-Z][a-z]{2,20}){0,2}, (?:A[KLRZ]|C[AOT]|D"
        r"[CE]|FL|GA|HI|I[ADLN]"
        r"|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]|T[NX]|UT|V[AT]|W[AIVY])"
        r" [0-9]{5}(?:-[0-9]{4})?(?![0-9A-Za-z])",
        source="USPS Publication 28, Appendix B (states) and ZIP codes",
        score=(0.8, 0.9),
    ),
)

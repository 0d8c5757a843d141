"""Germany, Austria and Switzerland, beside what `eu` has. PURE."""

# ruff: noqa: PLR2004 -- numbers of digits are the formats' own

from __future__ import annotations

from compliance.recognizers import checks_eu, checks_vat
from compliance.recognizers.base import NOT_AFTER, NOT_BEFORE, Recognizer, identifier, labelled
from compliance.recognizers.checks import digits_of

_DACH_STREET = (
    r"(?:stra(?:ß|ss)e|str\.|weg|platz|allee|gasse|ring|ufer|damm|chaussee|promenade|steig|pfad"
    r"|markt|hof|berg|graben|kai)"
)

DACH = (
    identifier(
        "de_passport",
        "DE_PASSPORT",
        r"[CFGHJK][CFGHJKLMNPRTVWXYZ0-9]{7}[0-9]|L[CFGHJKLMNPRTVWXYZ0-9]{7}[0-9]",
        "BMI, ePass serial numbers with the check digit of ICAO Doc 9303-3",
        type="PASSPORT",
        check=lambda value: checks_eu.de_mrz(value) and len(digits_of(value)) >= 3,
        score=(0.3, 0.95),
        context=("reisepass", "pass-nr", "passnummer", "passport", "pass"),
        case=False,
    ),
    identifier(
        "de_id_card_checked",
        "DE_ID_CARD",
        r"[CFGHJKLMNPRTVWXYZ][CFGHJKLMNPRTVWXYZ0-9]{7}[0-9]",
        "BMI, serial number of the identity card with the check digit of ICAO Doc 9303-3",
        check=lambda value: checks_eu.de_mrz(value) and len(digits_of(value)) >= 3,
        score=(0.3, 0.95),
        rejected=(0.0, 0.0),
        context=("personalausweis", "ausweis", "ausweisnummer", "id card", "identity card"),
        case=False,
    ),
    identifier(
        "de_id_card_old",
        "DE_ID_CARD",
        r"T[0-9]{8}",
        "BMI, identity cards with a T series, no check digit in the number",
        score=(0.1, 0.92),
        context=("personalausweis", "ausweis", "ausweisnummer", "id card"),
        case=False,
    ),
    identifier(
        "de_pension_insurance",
        "DE_SOCIAL_SECURITY",
        r"[0-9]{2} ?[0-9]{6} ?[A-Z] ?[0-9]{3}",
        "SGB VI § 147 and VKVV, check digit of the Versicherungsnummer",
        check=checks_eu.de_pension,
        context=("versicherungsnummer", "rentenversicherung", "sozialversicherung", "rvnr"),
    ),
    identifier(
        "de_health_insurance",
        "DE_HEALTH_INSURANCE",
        r"[A-Z][0-9]{9}",
        "SGB V § 290, Krankenversichertennummer with its check digit",
        type="MEDICAL_RECORD",
        check=checks_eu.de_health,
        score=(0.55, 0.97),
        context=("krankenkasse", "kvnr", "egk", "versichertennummer", "krankenversicherung"),
        case=False,
    ),
    identifier(
        "de_physician",
        "DE_LANR",
        r"[0-9]{9}",
        "KBV, Arztnummer (LANR) with its check digit",
        type="MEDICAL_RECORD",
        check=checks_eu.de_lanr,
        score=(0.1, 0.95),
        context=("lanr", "arztnummer", "arzt-nr"),
        digits=(9, 9),
    ),
    identifier(
        "de_practice",
        "DE_BSNR",
        r"(?:0[1-3]|1[37]|20|38|46|5[12]|7[1-3]|8[38]|9[38]|0[4-9]|[1-9][0-9])[0-9]{7}",
        "KBV, Betriebsstättennummer: region, then seven digits",
        type="MEDICAL_RECORD",
        check=checks_eu.de_bsnr,
        score=(0.1, 0.95),
        context=("bsnr", "betriebsstättennummer", "betriebsstaettennummer", "praxis"),
        digits=(9, 9),
    ),
    identifier(
        "de_driving_licence",
        "DE_DRIVING_LICENCE",
        r"[A-Z][0-9]{2}[0-9A-Z][A-Z0-9]{5}[0-9X][0-9A-Z]|[A-Z]{2}[0-9]{8}[A-Z0-9]",
        "FeV Anlage 8, number of a Führerschein",
        score=(0.3, 0.92),
        context=("führerschein", "fuehrerschein", "fahrerlaubnis", "driving licence"),
        case=False,
    ),
    identifier(
        "de_company_register",
        "DE_HANDELSREGISTER",
        r"HR[AB] ?[0-9]{1,6}(?: ?[A-Z]{1,2})?",
        "HGB § 9, Handelsregister",
        score=(0.6, 0.9),
        context=("amtsgericht", "handelsregister", "registergericht"),
        case=False,
    ),
    identifier(
        "de_tax_number",
        "DE_TAX_NUMBER",
        r"[0-9]{2,3}/[0-9]{3,4}/[0-9]{4,5}",
        "Vordruck of the Länder, Steuernummer with slashes",
        score=(0.6, 0.95),
        context=("steuernummer", "st.-nr", "st-nr", "steuer-nr", "finanzamt", "tax number"),
    ),
    identifier(
        "de_tax_number_federal",
        "DE_TAX_NUMBER",
        r"(?:0[1-9]|1[0-6]|2[1-8]|3[0-2]|4[01]|5[0-9])[0-9]{11}",
        "ELSTER, unified thirteen-digit Steuernummer",
        score=(0.1, 0.95),
        context=("steuernummer", "st.-nr", "steuer-nr", "finanzamt", "elster"),
        digits=(13, 13),
    ),
    identifier(
        "de_plate",
        "DE",
        r"[A-ZÄÖÜ]{1,3}-[A-Z]{1,2}[ \-]?[1-9][0-9]{0,3}[EH]?",
        "FZV § 8 and Anlage 1, Kennzeichen",
        type="PLATE",
        score=(0.3, 0.9),
        rejected=(0.0, 0.0),
        context=(
            *("kennzeichen", "kfz", "fahrzeug", "auto", "pkw", "wagen", "nummernschild", "plate"),
            *("zulassung", "halter"),
        ),
        case=False,
    ),
    identifier(
        "de_plate_spaced",
        "DE",
        r"[A-ZÄÖÜ]{1,3} [A-Z]{1,2} [1-9][0-9]{0,3}[EH]?",
        "FZV § 8 and Anlage 1, Kennzeichen written with spaces",
        type="PLATE",
        score=(0.1, 0.85),
        context=("kennzeichen", "kfz", "nummernschild", "amtliches kennzeichen"),
        case=False,
    ),
    identifier(
        "de_postcode",
        "DE_POSTCODE",
        "[0-9]{5}",
        "Deutsche Post, Postleitzahlen",
        type="LOCATION",
        # A digit first, then what stands before it: `re` finds the one fast, and the other slowly.
        pattern=r"[0-9](?<![A-Za-z0-9][0-9])[0-9]{4}(?<!01000)(?<!99999)(?<!00[0-9]{3})"
        + NOT_AFTER,
        hint=r"(?:^|[^A-Za-z0-9])[0-9]{5}(?:$|[^A-Za-z0-9])",
        score=(0.05, 0.85),
        context=("plz", "postleitzahl", "postcode"),
    ),
    Recognizer(
        name="de_address",
        type="LOCATION",
        subtype="DE_ADDRESS",
        pattern=rf"(?<![A-Za-zÀ-ɏ])[A-ZÄÖÜ][A-Za-zÀ-ɏ\-]{{0,30}}(?:(?<=[a-zß\-])|(?<=[a-z]) )"
        rf"(?i:{_DACH_STREET}) ?[0-9]{{1,4}} ?[a-h]?(?![A-Za-z0-9])"
        r"(?:,? {1,2}(?:[DAC]H?-)?[0-9]{4,5} [A-ZÄÖÜ][A-Za-zÀ-ɏ\-]{1,30}"
        r"(?: [A-ZÄÖÜ(][A-Za-zÀ-ɏ\-)]{1,20}){0,2})?",
        hint=r"(?:stra(?:ß|ss)e|str\.|Stra(?:ß|ss)e|Str\.|weg|Weg|platz|Platz|allee|Allee|gasse|Gasse"
        r"|ring|Ring|ufer|Ufer|damm|Damm|chaussee|promenade|steig|pfad|markt|hof|berg|graben|kai"
        r"|Kai) ?[0-9]",
        source="DIN 5008, street and number, postcode and town",
        score=(0.75, 0.9),
        context=("wohnhaft", "wohnt", "adresse", "anschrift", "address"),
    ),
    identifier(
        "at_insurance",
        "AT_SVNR",
        r"[1-9][0-9]{3}[ \-]?(?:0[1-9]|[12][0-9]|3[01])(?:0[1-9]|1[0-5])[0-9]{2}",
        "ASVG § 31, Sozialversicherungsnummer, modulo 11",
        check=checks_eu.at_svnr,
        context=("sozialversicherungsnummer", "svnr", "sv-nummer", "sv-nr", "versicherungsnummer"),
        digits=(10, 10),
    ),
    identifier(
        "ch_ahv",
        "CH_AHV",
        r"756[. \-]?[0-9]{4}[. \-]?[0-9]{4}[. \-]?[0-9]{2}",
        "AHVG Art. 50c, AHV number: EAN-13 with prefix 756",
        check=checks_eu.ch_ahv,
        score=(0.9, 0.97),
        context=("ahv", "avs", "sozialversicherungsnummer", "ahv-nummer", "no avs"),
        digits=(13, 13),
    ),
    identifier(
        "ch_uid",
        "CH_UID",
        r"CHE[ \-]?[0-9]{3}\.?[0-9]{3}\.?[0-9]{3}",
        "UIDG, Swiss enterprise number, modulo 11",
        check=checks_vat.ch_uid,
        context=("uid", "mwst", "tva", "iva"),
    ),
    labelled(
        "at_de_ids_by_label",
        "ID_CARD",
        rf"{NOT_BEFORE}(?:personalausweis|ausweisnummer|identitätskarte|reisepassnummer)",
        r"(?=[a-z]{0,3}[0-9])[a-z0-9]{7,10}",
        source="national identity cards, by their German label",
        score=(0.8, 0.9),
    ),
)

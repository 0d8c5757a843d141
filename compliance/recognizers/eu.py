"""United Kingdom and the European Union. PURE."""

# ruff: noqa: PLR2004 -- numbers of digits are the formats' own

from __future__ import annotations

from compliance.recognizers import checks
from compliance.recognizers.base import NOT_AFTER, NOT_BEFORE, Recognizer

EU = (
    Recognizer(
        name="uk_nino",
        type="NATIONAL_ID",
        subtype="UK_NINO",
        pattern=rf"{NOT_BEFORE}(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?"
        rf"[0-9]{{2}} ?[0-9]{{2}} ?"
        rf"[0-9]{{2}} ?[A-D]{NOT_AFTER}",
        source="HMRC NIM39110, national insurance numbers",
        score=(0.8, 0.95),
        context=("nino", "ni number", "national insurance", "insurance"),
        case=False,
        tight=True,
    ),
    Recognizer(
        name="uk_nhs",
        type="MEDICAL_RECORD",
        subtype="UK_NHS",
        pattern=r"(?<![0-9A-Za-z])[0-9]{3}[ \-]?[0-9]{3}[ \-]?[0-9]{4}(?![0-9A-Za-z])",
        source="NHS Data Dictionary, NHS number, modulo 11",
        score=(0.35, 0.97),
        rejected=(0.0, 0.6),
        check=checks.nhs,
        context=("nhs", "national health", "health service", "patient", "hospital"),
        digits=(10, 10),
    ),
    Recognizer(
        name="uk_postcode",
        type="LOCATION",
        subtype="UK_POSTCODE",
        pattern=rf"{NOT_BEFORE}(?:GIR 0AA|[A-PR-UWYZ][A-HK-Y]?[0-9][0-9A-HJKPSTUW]? [0-9]"
        rf"[ABD-HJLNP-UW-Z]{{2}}){NOT_AFTER}",
        source="Royal Mail, Programmer's Guide to the Postcode Address File",
        score=(0.55, 0.85),
        context=("postcode", "post code", "address", "london", "road", "street", "uk", "lane"),
        tight=True,
    ),
    Recognizer(
        name="de_tax_id",
        type="NATIONAL_ID",
        subtype="DE_TAX_ID",
        pattern=r"(?<![0-9A-Za-z])[1-9][0-9](?:[0-9]{9}|(?: [0-9]{3}){3}|(?:/[0-9]{3}){3})"
        r"(?![0-9A-Za-z])",
        source="AO § 139b, ISO 7064 MOD 11,10",
        score=(0.55, 0.97),
        rejected=(0.0, 0.6),
        check=checks.de_tax_id,
        context=(
            "steuer",
            "steuer-id",
            "steuernummer",
            "idnr",
            "identifikationsnummer",
            "tax id",
            "tin",
        ),
        digits=(11, 11),
    ),
    Recognizer(
        name="de_insurance",
        type="NATIONAL_ID",
        subtype="DE_SOCIAL_SECURITY",
        pattern=rf"{NOT_BEFORE}[0-9]{{2}} ?(?:0[1-9]|[1-9][0-9])(?:0[1-9]|1[0-2])[0-9]{{2}} ?"
        rf"[A-Z] ?[0-9]{{3}}{NOT_AFTER}",
        source="SGB VI § 147, Versicherungsnummer",
        score=(0.0, 0.92),
        context=("versicherungsnummer", "rentenversicherung", "sozialversicherung", "sv-nummer"),
        tight=True,
    ),
    Recognizer(
        name="de_id_card",
        type="NATIONAL_ID",
        subtype="DE_ID_CARD",
        pattern=rf"{NOT_BEFORE}[CFGHJKLMNPRTVWXYZ][CFGHJKLMNPRTVWXYZ0-9]{{8}}[0-9]?{NOT_AFTER}",
        source="BMI, serial numbers of identity cards and passports",
        score=(0.0, 0.92),
        check=lambda value: sum(character.isdigit() for character in value) >= 2,
        context=("personalausweis", "ausweis", "reisepass", "ausweisnummer"),
        tight=True,
    ),
    Recognizer(
        name="fr_nir",
        type="NATIONAL_ID",
        subtype="FR_NIR",
        pattern=rf"{NOT_BEFORE}[1-478] ?[0-9]{{2}} ?(?:0[1-9]|1[0-2]|[2-9][0-9]) ?(?:[0-9]{{2}}"
        rf"|2[AB]) ?[0-9]{{3}} ?"
        rf"[0-9]{{3}} ?[0-9]{{2}}{NOT_AFTER}",
        source="INSEE, numéro d'inscription au répertoire, key 97",
        score=(0.92, 0.97),
        rejected=(0.0, 0.6),
        check=checks.fr_nir,
        context=("nir", "sécurité sociale", "securite sociale", "insee", "carte vitale"),
        tight=True,
    ),
    Recognizer(
        name="es_dni",
        type="NATIONAL_ID",
        subtype="ES_DNI_NIE",
        pattern=rf"{NOT_BEFORE}(?:[0-9]{{7,8}}|[XYZ][ \-]?[0-9]{{7}})[ \-]?"
        rf"[A-HJ-NP-TV-Z]{NOT_AFTER}",
        source="Real Decreto 1553/2005, letter modulo 23",
        score=(0.92, 0.97),
        rejected=(0.0, 0.55),
        check=checks.es_dni,
        context=("dni", "nie", "nif", "documento", "identidad"),
        case=False,
        tight=True,
    ),
    Recognizer(
        name="it_codice_fiscale",
        type="NATIONAL_ID",
        subtype="IT_CODICE_FISCALE",
        pattern=rf"{NOT_BEFORE}[A-Z]{{6}}[0-9LMNP-V]{{2}}[ABCDEHLMPRST][0-9LMNP-V]{{2}}[A-Z]"
        rf"[0-9LMNP-V]{{3}}[A-Z]{NOT_AFTER}",
        source="Decree of 23 December 1976, Agenzia delle Entrate",
        score=(0.97, 0.99),
        rejected=(0.4, 0.8),
        check=checks.codice_fiscale,
        context=("codice fiscale", "c.f.", "cf", "fiscale"),
        tight=True,
    ),
    Recognizer(
        name="it_vat",
        type="NATIONAL_ID",
        subtype="IT_VAT",
        pattern=r"(?<![0-9A-Za-z])[0-9]{11}(?![0-9A-Za-z])",
        source="Partita IVA, Luhn",
        score=(0.1, 0.92),
        rejected=(0.0, 0.6),
        check=checks.it_vat,
        context=("partita iva", "p.iva", "p. iva", "piva"),
        digits=(11, 11),
    ),
    Recognizer(
        name="pl_pesel",
        type="NATIONAL_ID",
        subtype="PL_PESEL",
        pattern=r"(?<![0-9A-Za-z])[0-9]{2}(?:[02468][1-9]|[13579][0-2])(?:0[1-9]|[12][0-9]|3"
        r"[01])[0-9]{5}(?![0-9A-Za-z])",
        source="PESEL, weights 1 3 7 9",
        score=(0.5, 0.95),
        rejected=(0.0, 0.6),
        check=checks.pl_pesel,
        context=("pesel",),
        digits=(11, 11),
    ),
    Recognizer(
        name="nl_bsn",
        type="NATIONAL_ID",
        subtype="NL_BSN",
        pattern=r"(?<![0-9A-Za-z])[0-9]{9}(?![0-9A-Za-z])",
        source="Burgerservicenummer, elfproef",
        score=(0.2, 0.95),
        rejected=(0.0, 0.6),
        check=checks.nl_bsn,
        context=("bsn", "burgerservicenummer", "sofinummer", "sofi"),
        digits=(9, 9),
    ),
    Recognizer(
        name="eu_vat",
        type="NATIONAL_ID",
        subtype="EU_VAT",
        pattern=r"(?<![a-z])(?:vat|ust-?id(?:nr)?\.?|tva|iva|btw)(?: ?(?:no|nr|number|id"
        r"|reg)\.?)?[ :#]{1,4}"
        r"(?P<v>[a-z]{2} ?[0-9a-z]{8,12})(?![0-9A-Za-z])",
        source="Directive 2006/112/EC, Article 215, by its label",
        score=(0.8, 0.85),
        check=lambda value: sum(character.isdigit() for character in value) >= 7,
        case=False,
    ),
    Recognizer(
        name="se_personnummer",
        type="NATIONAL_ID",
        subtype="SE_PERSONNUMMER",
        pattern=r"(?<![0-9A-Za-z])(?:(?:18|19|20)(?=[0-9]{6})|(?=[0-9]{6}[\-+]))[0-9]{2}(?:0[1-9]|1[0-2])(?:[06][1-9]|[1278][0-9]|"
        r"[39][01])[\-+]?[0-9]{4}"
        r"(?![0-9A-Za-z])",
        source="Skatteverket, SKV 704, Luhn over ten digits",
        score=(0.6, 0.95),
        rejected=(0.0, 0.6),
        check=checks.se_personnummer,
        context=("personnummer", "samordningsnummer", "swedish", "pnr", "personnr"),
        digits=(10, 12),
    ),
    Recognizer(
        name="se_personnummer_bare",
        type="NATIONAL_ID",
        subtype="SE_PERSONNUMMER",
        pattern=r"(?<![0-9A-Za-z])[0-9]{2}(?:0[1-9]|1[0-2])(?:[06][1-9]|[1278][0-9]|"
        r"[39][01])[0-9]{4}"
        r"(?![0-9A-Za-z])",
        source="Skatteverket, SKV 704, Luhn over ten digits",
        score=(0.3, 0.95),
        rejected=(0.0, 0.6),
        check=checks.se_personnummer,
        context=("personnummer", "samordningsnummer", "swedish", "pnr", "personnr"),
        digits=(10, 10),
    ),
    Recognizer(
        name="dk_cpr",
        type="NATIONAL_ID",
        subtype="DK_CPR",
        pattern=r"(?<![0-9A-Za-z])(?:0[1-9]|[12][0-9]|3[01])(?:0[1-9]|1[0-2])[0-9]{2}-?[0-9]{4}"
        r"(?![0-9A-Za-z])",
        source="CPR-kontoret, personnummer",
        score=(0.2, 0.92),
        context=("cpr", "cpr-nummer", "cpr-nr", "personnummer"),
        digits=(10, 10),
    ),
    Recognizer(
        name="fi_hetu",
        type="NATIONAL_ID",
        subtype="FI_HETU",
        pattern=rf"{NOT_BEFORE}(?:0[1-9]|[12][0-9]|3[01])(?:0[1-9]|1[0-2])[0-9]{{2}}[-+A-FU-Y]"
        rf"[0-9]{{3}}[0-9A-FHJ-NPR-Y]{NOT_AFTER}",
        hint=r"[0-9]{6}[-+A-FU-Y][0-9]{3}",
        source="DVV, henkilötunnus, character modulo 31",
        score=(0.9, 0.95),
        rejected=(0.0, 0.6),
        check=checks.fi_hetu,
        context=("hetu", "henkilötunnus"),
    ),
)

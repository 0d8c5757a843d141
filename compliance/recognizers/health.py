"""Health care: records, beneficiaries, providers and diagnoses. PURE."""

# ruff: noqa: PLR2004 -- numbers of digits are the formats' own

from __future__ import annotations

import re

from compliance.recognizers import checks_world
from compliance.recognizers.base import Recognizer, identifier

_DIAGNOSIS = (
    *("icd", "icd-10", "icd10", "diagnosis", "diagnosed", "diagnoses", "dx", "patient"),
    *("diagnose", "diagnostic", "diagnóstico", "diagnosi", "rozpoznanie", "诊断", "确诊", "患者"),
)

HEALTH = (
    identifier(
        "us_mbi",
        "US_MBI",
        r"[1-9][AC-HJKMNP-RT-Y][0-9AC-HJKMNP-RT-Y][0-9]-?[AC-HJKMNP-RT-Y]"
        r"[0-9AC-HJKMNP-RT-Y][0-9]-?[AC-HJKMNP-RT-Y]{2}[0-9]{2}",
        "CMS, Medicare Beneficiary Identifier format of 2018",
        type="MEDICAL_RECORD",
        score=(0.9, 0.97),
        context=("mbi", "medicare", "beneficiary", "patient"),
        case=False,
    ),
    identifier(
        "us_npi",
        "US_NPI",
        r"[12][0-9]{3}[ \-]?[0-9]{3}[ \-]?[0-9]{3}",
        "45 CFR 162.406, National Provider Identifier, Luhn with 80840",
        type="MEDICAL_RECORD",
        check=checks_world.npi,
        score=(0.3, 0.95),
        context=("npi", "provider", "provider identifier", "physician", "clinician"),
        digits=(10, 10),
    ),
    identifier(
        "us_dea",
        "US_DEA",
        r"[ABCDEFGHJKLMPRSTUX][A-Z9][0-9]{7}|[ABCDEFGHJKLMPRSTUX][0-9]{8}",
        "21 CFR 1301, DEA registration number with its check digit",
        type="MEDICAL_RECORD",
        check=checks_world.dea,
        score=(0.55, 0.95),
        rejected=(0.0, 0.0),
        context=("dea", "certificate", "prescriber", "registration", "medical license"),
    ),
    Recognizer(
        name="icd10_code",
        type="MEDICAL_RECORD",
        subtype="ICD10",
        pattern=r"(?<![A-Za-z0-9.\-/])[A-TV-Z][0-9][0-9AB](?:\.[0-9A-TV-Z]{1,4})?(?![A-Za-z0-9\-/]"
        r"|\.[0-9A-Za-z])",
        source="WHO ICD-10 and ICD-10-CM, next to a word of diagnosis",
        score=(0.0, 0.75),
        context=_DIAGNOSIS,
        tight=True,
    ),
    Recognizer(
        name="diagnosis_then_code",
        type="MEDICAL_RECORD",
        subtype="ICD10",
        pattern=r"(?<![A-Za-z])(?i:icd[\- ]?1[01](?:-?cm)?|dx|diagnos[a-zóè]{1,4})(?: codes?)?"
        r"[ :#(]{1,3}(?P<v>[A-TV-Z][0-9][0-9AB](?:\.[0-9A-TV-Z]{1,4})?)(?![A-Za-z0-9])",
        source="WHO ICD-10 and ICD-10-CM, by their label",
        score=(0.9, 0.9),
        veto=False,
    ),
    Recognizer(
        name="insurance_number",
        type="MEDICAL_RECORD",
        subtype="INSURANCE",
        pattern=r"(?<![a-z])(?:insurance|policy|member|subscriber|group|claim|beneficiary|plan)"
        r"(?: ?(?:policy|member|plan))?(?: ?(?:no|number|id|#)(?![a-z])\.?)(?: is)?[ :#=]{0,3}"
        r"(?P<v>(?=[a-z\-]{0,5}[0-9])[a-z0-9](?:[a-z0-9]|-(?=[a-z0-9])){5,19})(?![a-z0-9])",
        source="HIPAA Safe Harbor (I): health plan beneficiary numbers, by their label",
        score=(0.8, 0.85),
        check=lambda value: len(re.findall("[0-9]", value)) >= 5,
        case=False,
        veto=False,
    ),
)

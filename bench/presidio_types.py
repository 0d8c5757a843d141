"""Which of our subtypes stands for which of Presidio's entity types, and which check for which."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compliance.recognizers import checks, checks_eu, checks_vat, checks_world

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CLAIMED", "VALIDATORS"]

_PHONES = frozenset(
    {
        "US",
        "INTERNATIONAL",
        "LOCAL",
        "CN_MOBILE",
        "CN_LANDLINE",
        "CN_SERVICE",
        "TR_PHONE",
        "PH_MOBILE",
    }
)

CLAIMED: dict[str, frozenset[str]] = {
    "ABA_ROUTING_NUMBER": frozenset({"US_ROUTING_NUMBER"}),
    "AU_ABN": frozenset({"AU_ABN"}),
    "AU_ACN": frozenset({"AU_ACN"}),
    "AU_MEDICARE": frozenset({"AU_MEDICARE"}),
    "AU_TFN": frozenset({"AU_TFN"}),
    "CA_SIN": frozenset({"CA_SIN"}),
    "CREDIT_CARD": frozenset({"CARD_NUMBER", "CN_BANK_CARD"}),
    "CRYPTO": frozenset({"CRYPTO_WALLET"}),
    "DE_BSNR": frozenset({"DE_BSNR"}),
    "DE_FUEHRERSCHEIN": frozenset({"DE_DRIVING_LICENCE"}),
    "DE_HANDELSREGISTER": frozenset({"DE_HANDELSREGISTER"}),
    "DE_HEALTH_INSURANCE": frozenset({"DE_HEALTH_INSURANCE"}),
    "DE_ID_CARD": frozenset({"DE_ID_CARD"}),
    "DE_KFZ": frozenset({"DE"}),
    "DE_LANR": frozenset({"DE_LANR"}),
    "DE_PASSPORT": frozenset({"DE_PASSPORT"}),
    "DE_PLZ": frozenset({"DE_POSTCODE"}),
    "DE_SOCIAL_SECURITY": frozenset({"DE_SOCIAL_SECURITY"}),
    "DE_TAX_ID": frozenset({"DE_TAX_ID"}),
    "DE_TAX_NUMBER": frozenset({"DE_TAX_NUMBER"}),
    "DE_VAT_ID": frozenset({"EU_VAT"}),
    "EMAIL_ADDRESS": frozenset({"EMAIL"}),
    "ES_NIE": frozenset({"ES_DNI_NIE"}),
    "ES_NIF": frozenset({"ES_DNI_NIE", "ES_CIF"}),
    "ES_PASSPORT": frozenset({"ES_PASSPORT", "PASSPORT"}),
    "FI_PERSONAL_IDENTITY_CODE": frozenset({"FI_HETU"}),
    "IBAN_CODE": frozenset({"IBAN"}),
    "IN_AADHAAR": frozenset({"IN_AADHAAR"}),
    "IN_GSTIN": frozenset({"IN_GSTIN"}),
    "IN_PAN": frozenset({"IN_PAN"}),
    "IN_PASSPORT": frozenset({"IN_PASSPORT", "PASSPORT"}),
    "IN_VEHICLE_REGISTRATION": frozenset({"IN"}),
    "IN_VOTER": frozenset({"IN_VOTER"}),
    "IP_ADDRESS": frozenset({"IPV4", "IPV6"}),
    "IT_DRIVER_LICENSE": frozenset({"IT_DRIVING_LICENCE"}),
    "IT_FISCAL_CODE": frozenset({"IT_CODICE_FISCALE"}),
    "IT_IDENTITY_CARD": frozenset({"IT_IDENTITY_CARD"}),
    "IT_PASSPORT": frozenset({"IT_PASSPORT", "PASSPORT"}),
    "IT_VAT_CODE": frozenset({"IT_VAT"}),
    "KR_BRN": frozenset({"KR_BRN"}),
    "KR_DRIVER_LICENSE": frozenset({"KR_DRIVING_LICENCE"}),
    "KR_FRN": frozenset({"KR_RRN"}),
    "KR_PASSPORT": frozenset({"KR_PASSPORT", "PASSPORT"}),
    "KR_RRN": frozenset({"KR_RRN"}),
    "MAC_ADDRESS": frozenset({"MAC_ADDRESS"}),
    "MEDICAL_LICENSE": frozenset({"US_DEA", "US_PROVIDER_ID"}),
    "NG_NIN": frozenset({"NG_NIN"}),
    "NG_VEHICLE_REGISTRATION": frozenset({"NG"}),
    "PHONE_NUMBER": _PHONES,
    "PH_MOBILE_NUMBER": _PHONES,
    "PH_TIN": frozenset({"PH_TIN"}),
    "PL_PESEL": frozenset({"PL_PESEL"}),
    "SE_ORGANISATIONSNUMMER": frozenset({"SE_ORGANISATIONSNUMMER"}),
    "SE_PERSONNUMMER": frozenset({"SE_PERSONNUMMER"}),
    "SG_NRIC_FIN": frozenset({"SG_NRIC_FIN"}),
    "SG_UEN": frozenset({"SG_UEN"}),
    "TH_TNIN": frozenset({"TH_TNIN"}),
    "TR_LICENSE_PLATE": frozenset({"TR"}),
    "TR_NATIONAL_ID": frozenset({"TR_TCKN"}),
    "TR_PHONE_NUMBER": _PHONES,
    "UK_DRIVING_LICENCE": frozenset({"UK_DRIVING_LICENCE"}),
    "UK_NHS": frozenset({"UK_NHS"}),
    "UK_NINO": frozenset({"UK_NINO"}),
    "UK_PASSPORT": frozenset({"UK_PASSPORT", "PASSPORT"}),
    "UK_POSTCODE": frozenset({"UK_POSTCODE"}),
    "UK_VEHICLE_REGISTRATION": frozenset({"UK"}),
    "URL": frozenset({"URL", "DOMAIN"}),
    "US_BANK_NUMBER": frozenset({"ACCOUNT_NUMBER"}),
    "US_DRIVER_LICENSE": frozenset({"US_DRIVING_LICENCE", "DRIVING_LICENCE"}),
    "US_ITIN": frozenset({"US_ITIN"}),
    "US_MBI": frozenset({"US_MBI"}),
    "US_NPI": frozenset({"US_NPI", "US_PROVIDER_ID"}),
    "US_PASSPORT": frozenset({"US_PASSPORT", "PASSPORT"}),
    "US_SSN": frozenset({"US_SSN"}),
    "ZA_ID_NUMBER": frozenset({"ZA_ID"}),
}
"""Presidio's entity type -> our subtypes. Names and dates that are no birthday are not here."""

VALIDATORS: dict[str, Callable[[str], bool]] = {
    "DE_BSNR": checks_eu.de_bsnr,
    "DE_HEALTH_INSURANCE": checks_eu.de_health,
    "DE_ID_CARD": checks_eu.de_mrz,
    "DE_LANR": checks_eu.de_lanr,
    "DE_PASSPORT": checks_eu.de_passport,
    "DE_SOCIAL_SECURITY": checks_eu.de_pension,
    "DE_TAX_ID": checks.de_tax_id,
    "DE_VAT_ID": checks_vat.vat,
    "IN_AADHAAR": checks_world.aadhaar,
    "IN_GSTIN": checks_world.in_gstin,
    "PL_PESEL": checks.pl_pesel,
    "ZA_ID_NUMBER": checks_world.za_id,
}

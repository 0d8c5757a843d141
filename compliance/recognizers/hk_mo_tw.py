"""Hong Kong, Macau and Taiwan: identity cards, telephones, firms, plates. PURE."""

from __future__ import annotations

from compliance.recognizers import checks_world
from compliance.recognizers.base import NOT_AFTER, NOT_BEFORE, Recognizer, identifier
from compliance.recognizers.cn_words import MOBILE_WORDS, by_label

__all__ = ["HK_MO_TW"]

_CARD_WORDS = (
    "身份證",
    "身分證",
    "身份证",
    "身份",
    "證件",
    "证件",
    "identity card",
    "id card",
    "hkid",
)

_HK_LABELS = (
    "電話|手提|致電|手機|傳真|聯絡|來電|whatsapp|香港电话|香港手机|澳门电话|澳门手机|公司|屋企|住宅"
)

HK_MO_TW = (
    Recognizer(
        name="hk_id",
        type="NATIONAL_ID",
        subtype="HK_ID",
        pattern=rf"{NOT_BEFORE}[A-Z]{{1,2}}[0-9]{{6}} ?\([0-9A]\)",
        source="Hong Kong Immigration Department: letters, six digits, check digit in brackets",
        score=(0.9, 0.95),
        rejected=(0.4, 0.85),
        check=checks_world.hk_id,
        context=(*_CARD_WORDS, "香港"),
    ),
    identifier(
        "hk_id_plain",
        "HK_ID",
        r"[A-Z]{1,2}[0-9]{6}[0-9A]",
        "Hong Kong identity card without the brackets, by its check digit and a word near by",
        check=checks_world.hk_id,
        score=(0.3, 0.92),
        rejected=(0.0, 0.0),
        context=(*_CARD_WORDS, "香港", "hong kong"),
    ),
    Recognizer(
        name="mo_id",
        type="NATIONAL_ID",
        subtype="MO_ID",
        pattern=rf"{NOT_BEFORE}(?:[157][0-9]{{6}} ?\([0-9]\)|[157]/[0-9]{{6}}/[0-9]{NOT_AFTER})",
        source="Macau, Identification Services Bureau: 1, 5 or 7 first, check digit not published",
        score=(0.4, 0.92),
        context=(*_CARD_WORDS, "澳门", "澳門", "macau", "macao", "bir"),
        hint=r"[157][0-9]{6} ?\([0-9]\)|[157]/[0-9]{6}/[0-9]",
    ),
    identifier(
        "tw_id",
        "TW_ID",
        "[A-Z][1289A-D][0-9]{8}",
        "Taiwan, Ministry of the Interior: national and resident numbers, modulo 10",
        check=checks_world.tw_id,
        score=(0.6, 0.95),
        rejected=(0.0, 0.8),
        context=(*_CARD_WORDS, "台湾", "台灣", "臺灣", "居留", "證號", "taiwan", "national id"),
    ),
    by_label(
        "tw_business_number",
        "TW_BUSINESS",
        "統一編|統編|统一编",
        "[0-9]{8}",
        source="Taiwan, Ministry of Finance: eight digits, weights 1 2 1 2 1 2 4 1, modulo 5",
        score=(0.92, 0.92),
        rejected=(0.7, 0.7),
        check=checks_world.tw_business,
    ),
    Recognizer(
        name="tw_mobile",
        type="PHONE",
        subtype="TW_MOBILE",
        pattern=r"(?<![0-9A-Za-z])(?<![0-9][.\-])(?:(?:\+|00)?886[ \-]?\(?0?\)?|0)9[0-9]{2}"
        r"[ \-]?[0-9]{3}[ \-]?[0-9]{3}(?![0-9A-Za-z]|[.\-][0-9])",
        source="Taiwan, National Communications Commission: ten digits from 09",
        score=(0.6, 0.95),
        context=MOBILE_WORDS,
        digits=(10, 15),
    ),
    Recognizer(
        name="tw_landline",
        type="PHONE",
        subtype="TW_LANDLINE",
        pattern=r"(?<![0-9A-Za-z])(?:\(0[2-8][0-9]{0,2}\)|0[2-8][0-9]{0,2}[ \-])[ \-]?"
        r"[0-9]{3,4}[ \-]?[0-9]{4}(?:(?:#|-)[0-9]{1,5})?(?![0-9A-Za-z])",
        source="Taiwan, National Communications Commission: area codes 02 to 089",
        score=(0.4, 0.95),
        context=MOBILE_WORDS,
        digits=(9, 15),
    ),
    Recognizer(
        name="hk_mo_phone",
        type="PHONE",
        subtype="HK_MO_PHONE",
        pattern=rf"(?:{_HK_LABELS})[^0-9A-Za-z+。\n]{{0,8}}"
        r"(?P<v>(?:\(?(?:\+|00)?85[23]\)?[ \-]?)?(?!(?:19|20)[0-9]{2}[01][0-9])"
        r"[2-9][0-9]{3}[ \-]?[0-9]{4})(?![0-9A-Za-z]|[.\-/年元][0-9]?)",
        hint=rf"(?:{_HK_LABELS})[^0-9A-Za-z]{{0,8}}[0-9]",
        source="OFCA (Hong Kong) and CTT (Macau): eight digits, by their label",
        score=(0.85, 0.85),
        case=False,
    ),
    Recognizer(
        name="hk_tw_plate",
        type="PLATE",
        subtype="HK_TW",
        pattern=r"(?:車牌|車號|车号|牌照)(?:號碼?|号码?)?[ :是為]{0,4}"
        rf"(?P<v>[A-Z]{{2}} ?[0-9]{{1,4}}|[A-Z]{{2,3}}-[0-9]{{3,4}}"
        rf"|[0-9]{{3,4}}-[A-Z]{{2}}){NOT_AFTER}",
        hint="(?:車牌|車號|车号|牌照)(?:號碼?|号码?)?[ :是為]{0,4}[A-Z0-9]",
        source="Hong Kong Cap. 374E and Taiwan's plates of 1992 and 2012, by their label",
        score=(0.9, 0.9),
        veto=False,
    ),
)

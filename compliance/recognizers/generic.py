"""What looks the same in every country. PURE."""

# ruff: noqa: PLR2004 -- numbers of digits are the formats' own

from __future__ import annotations

from compliance.recognizers import checks
from compliance.recognizers.base import NOT_AFTER, NOT_BEFORE, Recognizer

_CARD_WORDS = (
    *("card", "credit", "debit", "visa", "mastercard", "amex", "american express", "discover"),
    *("jcb", "diners", "maestro", "cc", "ccn", "pan", "cvv", "cvc", "expiry", "payment", "tarjeta"),
    *("carte", "karte", "信用卡", "银行卡", "卡号", "借记卡", "储蓄卡", "刷卡", "卡片", "有效期"),
)
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}"
_DATE = (
    r"(?:[0-9]{1,2}[./\-][0-9]{1,2}[./\-](?:[0-9]{4}|[0-9]{2})"
    r"|[0-9]{4}[./\-][0-9]{1,2}[./\-][0-9]{1,2}"
    r"|[0-9]{4} ?年 ?[0-9]{1,2} ?月 ?[0-9]{1,2} ?[日号]?"
    rf"|{_MONTH}\.? [0-9]{{1,2}}(?:st|nd|rd|th)?,? [0-9]{{4}}"
    rf"|[0-9]{{1,2}}(?:st|nd|rd|th)?[ \-]{_MONTH}\.?,?[ \-][0-9]{{4}}"
    r"|(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01]))"
)
_TLD = (
    r"(?:com|org|net|edu|gov|mil|int|info|biz|name|pro|app|dev|xyz|online|site|shop|store|tech"
    r"|cloud|club|top|vip|tv|me|io|ai|co|cc|us|uk|ca|au|nz|ie|in|de|fr|es|it|nl|be|ch|at|se|no|dk"
    r"|fi|pl|pt|cz|sk|hu|ro|bg|gr|ru|ua|tr|il|br|mx|ar|cl|jp|kr|cn|tw|hk|sg|my|th|vn|id|ph|za|eu"
    r"|is|lt|lv|ee|lu|li|ly|gl|fm|am|to|ws|st|hr|si|rs|edu)"
)
_IBAN = "|".join(
    rf"(?:{'|'.join(c for c, n in checks.IBAN_LENGTHS.items() if n == length)})"
    rf"[0-9]{{2}}(?:[ \-]?[a-z0-9]){{{length - 4}}}"
    for length in sorted(set(checks.IBAN_LENGTHS.values()))
)
"""By length: a pattern that only stopped at a boundary would swallow the next word."""
_CARD = (
    r"(?:(?:[46][0-9]|5[0-8]|2[2-7]|35)[0-9]{2}([ \-.]?)[0-9]{4}\2[0-9]{4}\2[0-9]{4}"
    r"|3[47][0-9]{2}([ \-.]?)[0-9]{6}\3[0-9]{5}|3[068][0-9]{2}([ \-.]?)[0-9]{6}\4[0-9]{4})"
    r"(?![0-9A-Za-z])"
)
"""Cards of 16, 15 and 14 digits in their usual groups, as the second group of a pattern."""


def _card_beside(name: str, pattern: str) -> Recognizer:
    """A card and another number: `credit_card` would take both for one of up to 19 digits."""
    return Recognizer(
        name=name,
        type="CREDIT_CARD",
        subtype="CARD_NUMBER",
        pattern=pattern,
        source="ISO/IEC 7812-1: a card's number with its expiry or code beside it",
        score=(0.92, 0.98),
        check=checks.card,
        context=_CARD_WORDS,
        digits=(15, 16),
    )


GENERIC = (
    Recognizer(
        name="email",
        type="EMAIL",
        subtype="EMAIL",
        pattern=r"(?<![A-Za-z0-9._%+\-])[A-Za-zÀ-ɏ0-9][A-Za-zÀ-ɏ0-9._%+\-]{0,63}@"
        r"(?:[A-Za-zÀ-ɏ0-9\-]{1,63}\.){1,6}(?:xn--[a-z0-9\-]{2,30}|[A-Za-z]{2,24})"
        r"(?![A-Za-z0-9\-])",
        hint="@",
        source="RFC 5321, 4.1.2 and RFC 6531 for Latin letters, without quoted local parts",
        score=(0.95, 0.99),
        veto=False,
    ),
    Recognizer(
        name="email_spelled",
        type="EMAIL",
        subtype="EMAIL",
        pattern=r"(?<![a-z0-9._%+\-])[a-z0-9][a-z0-9._%+\-]{0,63} {0,2}[\[({] ?at ?[\])}] {0,2}"
        r"[a-z0-9\-]{1,63}(?: {0,2}(?:[\[({] ?dot ?[\])}]|\.) {0,2}[a-z0-9\-]{2,63}){1,4}",
        source="common disguise of an address: name [at] host [dot] org",
        score=(0.9, 0.95),
        case=False,
        veto=False,
    ),
    Recognizer(
        name="url",
        type="URL",
        subtype="URL",
        pattern=r"(?<![a-z0-9])(?:https?|ftps?|wss?)://[a-z0-9\[][^\s\"'<>`，。；：！？、）】》「」一-鿿]{2,400}"
        r"(?<![.,;:!?)\]}*_])",
        source="RFC 3986, schemes of the web",
        score=(0.95, 0.95),
        case=False,
        veto=False,
    ),
    Recognizer(
        name="url_bare",
        type="URL",
        subtype="DOMAIN",
        pattern=r"(?<![a-z0-9@._/\-])(?:www\.(?:[a-z0-9\-]{1,63}\.){1,5}[a-z]{2,24}"
        rf"|(?:[a-z0-9][a-z0-9\-]{{0,62}}\.){{1,4}}{_TLD})(?![a-z0-9@\-(])"
        r"(?:/[^\s\"'<>，。；：！？、）一-鿿]{0,300}(?<![.,;:!?)\]}]))?",
        source="RFC 1035 names under well-known top-level domains",
        score=(0.6, 0.9),
        context=(
            "website",
            "site",
            "url",
            "link",
            "visit",
            "domain",
            "网址",
            "网站",
            "链接",
            "域名",
        ),
        case=False,
        veto=False,
    ),
    Recognizer(
        name="ipv4",
        type="IP_ADDRESS",
        subtype="IPV4",
        pattern=r"(?<![0-9A-Za-z.\-])(?:[0-9]{1,3}\.){3}[0-9]{1,3}"
        r"(?:/(?:[12]?[0-9]|3[0-2])(?![0-9A-Za-z]))?(?![0-9A-Za-z]|\.[0-9])",
        hint=r"[0-9]\.[0-9]{1,3}\.[0-9]",
        source="RFC 791",
        score=(0.7, 0.95),
        check=checks.ipv4,
        context=(
            "ip",
            "host",
            "server",
            "address",
            "ssh",
            "client",
            "地址",
            "服务器",
            "主机",
            "登录",
        ),
    ),
    Recognizer(
        name="ipv6",
        type="IP_ADDRESS",
        subtype="IPV6",
        pattern=r"(?<![0-9A-Za-z:.])(?:[0-9A-Fa-f]{0,4}:){2,7}"
        r"(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3}|[0-9A-Fa-f]{1,4}|(?<=::))(?:%[0-9A-Za-z]{1,15})?"
        r"(?:/[0-9]{1,3}(?![0-9]))?(?![0-9A-Za-z:]|\.[0-9])",
        hint=r":[0-9A-Fa-f]{0,4}:",
        source="RFC 4291, 2.2, with zone (RFC 4007) and prefix length",
        score=(0.8, 0.95),
        check=checks.ipv6,
        context=("ip", "ipv6", "host", "address", "地址"),
    ),
    Recognizer(
        name="ip_of_nobody",
        type="IP_ADDRESS",
        subtype="IPV6",
        pattern=r"(?<![0-9A-Za-z:.\-])(?:::1?(?:/[0-9]{1,3})?|127(?:\.[0-9]{1,3}){3}|0\.0\.0\.0"
        r"(?:/[0-9]{1,2})?)(?![0-9A-Za-z:]|\.[0-9])",
        hint=r"::|127\.|0\.0\.0",
        source="RFC 4291, 2.5 and RFC 6890: unspecified and loopback addresses name nobody",
        score=(0.2, 0.5),
        context=("my ip", "client ip", "user ip"),
    ),
    Recognizer(
        name="mac_address",
        type="IP_ADDRESS",
        subtype="MAC_ADDRESS",
        pattern=r"(?<![0-9A-Za-z:.\-])(?:[0-9A-Fa-f]{2}([:\-])[0-9A-Fa-f]{2}(?:\1[0-9A-Fa-f]{2}){4}"
        r"|[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4})(?![0-9A-Za-z:.\-]{1,2}[0-9A-Fa-f])"
        r"(?![0-9A-Za-z])",
        hint=r"[0-9A-Fa-f]{2}[:\-][0-9A-Fa-f]{2}[:\-][0-9A-Fa-f]{2}[:\-]|[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.",
        check=checks.mac,
        source="IEEE 802, canonical form and Cisco's; broadcast and all zeros name no device",
        score=(0.7, 0.95),
        context=("mac", "ethernet", "device", "物理地址"),
    ),
    Recognizer(
        name="credit_card",
        type="CREDIT_CARD",
        subtype="CARD_NUMBER",
        pattern=r"(?<![0-9A-Za-z])(?<![0-9][.\-])[0-9](?:[ \-.]{0,2}[0-9]){11,18}(?![0-9A-Za-z])",
        source="ISO/IEC 7812-1 with Annex B (Luhn)",
        score=(0.92, 0.98),
        rejected=(0.0, 0.6),
        check=checks.card,
        context=_CARD_WORDS,
        veto=True,
        digits=(12, 19),
    ),
    _card_beside(
        "credit_card_then_number", rf"(?<![0-9A-Za-z])(?P<v>{_CARD})(?=[ \-./]{{1,2}}[0-9])"
    ),
    _card_beside("number_then_credit_card", rf"[0-9][ \-./]{{1,2}}(?P<v>{_CARD})"),
    Recognizer(
        name="iban",
        type="IBAN",
        subtype="IBAN",
        pattern=rf"{NOT_BEFORE}(?:{_IBAN}){NOT_AFTER}",
        hint=r"[a-z]{2}[0-9]{2}[ \-]?[a-z0-9][ \-]?[a-z0-9]",
        source="ISO 13616 (length by country, MOD 97-10)",
        score=(0.97, 0.99),
        check=checks.iban,
        case=False,
        veto=False,
    ),
    Recognizer(
        name="iban_by_label",
        type="IBAN",
        subtype="IBAN",
        pattern=rf"iban[^A-Za-z0-9]{{0,8}}(?P<v>[a-z]{{2}}[0-9]{{2}}(?:[ \-]?[a-z0-9]{{4}}){{2,7}}"
        rf"(?:[ \-]?[a-z0-9]{{1,3}})?){NOT_AFTER}",
        source="ISO 13616; a label stands for the check digits",
        score=(0.8, 0.8),
        case=False,
        veto=False,
    ),
    Recognizer(
        name="date_of_birth",
        type="DATE_OF_BIRTH",
        subtype="DATE_OF_BIRTH",
        pattern=r"(?:(?<![a-z])(?:dob|d\.o\.b\.?|born|birth ?date|birthday|date of birth"
        r"|geb\.|geboren|née?|nacid[oa]|nat[oa] il|urodzon[yae]|født|fødd|född|syntynyt|nascid[oa]"
        r"|naissance|nacimiento|nascita|geburtsdatum|geboortedatum|urodzenia)(?![a-z])|出生|生日|生于|出生日期|出生年月日?)"
        rf"[^0-9\n]{{0,24}}?(?P<v>{_DATE})(?![0-9])",
        hint=r"dob|d\.o\.b|born|birth|geb\.|geboren|né|naissance|nacimiento|geburtsdatum|nacid"
        r"|nat[oa] il|urodz|født|fødd|född|syntynyt|nascid|nascita|geboortedatum|出生|生日|生于",
        source="HIPAA Safe Harbor, 45 CFR 164.514(b)(2)(i)(C): dates of birth, by their label",
        score=(0.92, 0.95),
        rejected=(0.3, 0.3),
        check=checks.plausible_date,
        case=False,
        veto=False,
    ),
    Recognizer(
        name="date_then_birth",
        type="DATE_OF_BIRTH",
        subtype="DATE_OF_BIRTH",
        pattern=rf"(?<![0-9])(?P<v>{_DATE}) ?(?:\(dob\)|出生|生(?![产效成])|born)",
        source="the label behind the date, as in 1990年1月2日出生",
        score=(0.92, 0.95),
        check=checks.plausible_date,
        case=False,
        veto=False,
    ),
    Recognizer(
        name="medical_record",
        type="MEDICAL_RECORD",
        subtype="MRN",
        pattern=r"(?:(?<![a-z])(?:mrn|med(?:ical)? ?rec(?:ord)?|patient|chart|hospital|health plan"
        r"|health card|member|policy|insurance|encounter|medicare|medicaid|hicn|mbi)(?![a-z])"
        r"|病历|病案|住院|门诊|就诊卡?|医保卡?|社保卡?|医疗卡|患者|检查|档案)"
        r" ?(?:(?:no|nr|num|number|id|card|beneficiary|identifier)(?![a-z])\.?|号码?|编号|卡号|ID)?"
        r" ?(?:(?:no|number|id|is)(?![a-z])\.?)?[ :#\-=(为是]{0,4}"
        r"(?P<v>(?=[a-z\-]{0,6}[0-9])[a-z0-9](?:[a-z0-9]|-(?=[a-z0-9])){4,19})(?![a-z0-9])",
        source="HIPAA Safe Harbor (F) and (G): record and beneficiary numbers, by their label",
        score=(0.85, 0.9),
        check=lambda value: sum(character.isdigit() for character in value) >= 4,
        case=False,
        veto=False,
    ),
    Recognizer(
        name="bank_account",
        type="BANK_ACCOUNT",
        subtype="ACCOUNT_NUMBER",
        pattern=r"(?:(?<![a-z])(?:account|acct|a/c|acc|kontonummer|konto|compte|cuenta)"
        r"(?: ?(?:no|nr|num|number|#)(?![a-z])\.?)?"
        r"|账号|帐号|账户|帐户|户头|卡号|对公账户|收款账号)"
        r"(?: (?:is|ending in|with number))?[ :#=为是]{0,4}"
        r"(?P<v>[0-9](?:[ \-]?[0-9]){5,29})(?![0-9A-Za-z])",
        source="account numbers have no common format: the label names them",
        score=(0.75, 0.95),
        context=(
            "bank",
            "wire",
            "transfer",
            "deposit",
            "routing",
            "银行",
            "转账",
            "汇款",
            "开户",
            "收款",
        ),
        case=False,
    ),
    Recognizer(
        name="swift_code",
        type="BANK_ACCOUNT",
        subtype="SWIFT",
        pattern=r"(?:swift|bic)(?: ?code)?[ :#/=]{1,4}(?:bic[ :]{1,3})?"
        rf"(?P<v>[A-Z]{{4}}[A-Z]{{2}}[A-Z0-9]{{2}}(?:[A-Z0-9]{{3}})?){NOT_AFTER}",
        source="ISO 9362, by its label",
        score=(0.8, 0.8),
        case=False,
        veto=False,
    ),
    Recognizer(
        name="passport_by_label",
        type="PASSPORT",
        subtype="PASSPORT",
        pattern=r"(?:(?<![a-z])(?:passports?|passeport|pasaporte|reisepass|travel document)(?!"
        r"[a-z])"
        r"|护照|旅行证)(?: ?(?:(?:no|nr|num|number|id|card)(?![a-z])\.?|号码?|编号))?"
        r"(?: (?:is|was))?[ :#=(为是]{0,4}(?P<v>(?=[a-z]{0,3}[0-9])[a-z0-9]{6,12})(?![a-z0-9])",
        source="ICAO Doc 9303-4: up to nine characters, by its label",
        score=(0.9, 0.95),
        check=lambda value: sum(character.isdigit() for character in value) >= 5,
        case=False,
        veto=False,
    ),
    Recognizer(
        name="driving_licence",
        type="NATIONAL_ID",
        subtype="DRIVING_LICENCE",
        pattern=r"(?:(?<![a-z])(?:driv(?:er'?s?|ing) ?licen[cs]e|dl)(?![a-z])|驾驶证|驾照)"
        r"(?: ?(?:(?:no|number|id)(?![a-z])\.?|号码?|编号))?(?: is)?[ :#=为是]{0,4}"
        r"(?P<v>(?=[a-z]{0,4}[0-9])[a-z0-9][a-z0-9\-]{4,19})(?![a-z0-9])",
        source="AAMVA and national formats vary: by its label",
        score=(0.8, 0.9),
        check=lambda value: sum(character.isdigit() for character in value) >= 5,
        case=False,
        veto=False,
    ),
    Recognizer(
        name="phone_international",
        type="PHONE",
        subtype="INTERNATIONAL",
        pattern=r"(?<![0-9A-Za-z+])(?:\+|00)[1-9][0-9]{0,2}(?:[ \-./]{0,2}\(?"
        r"[0-9]{1,5}\)?){2,6}(?![0-9A-Za-z])",
        source="ITU-T E.164: 8 to 15 digits behind + or 00",
        score=(0.85, 0.95),
        check=lambda value: 8 <= len(checks.digits_of(value)) <= 16,
        context=("phone", "call", "tel", "mobile", "cell", "fax", "电话", "手机", "联系"),
        digits=(8, 17),
    ),
    Recognizer(
        name="phone_national",
        type="PHONE",
        subtype="LOCAL",
        pattern=r"(?<![0-9A-Za-z])(?<![0-9][.\-/])(?:\(0[1-9][0-9]{0,3}\)|0[1-9][0-9]{0,4})"
        r"(?:[ \-/.]{1,3}[0-9]{2,8}){1,5}(?![0-9A-Za-z]|[.\-/][0-9])",
        check=lambda value: 9 <= len(checks.digits_of(value)) <= 12,
        source="ITU-T E.123: trunk prefix 0, then groups",
        score=(0.45, 0.95),
        context=(
            *("phone", "call", "tel", "telephone", "mobile", "number", "fax", "telefon", "handy"),
            *("tél", "téléphone", "teléfono", "telefono", "cellulare", "puhelin", "telefoon"),
            *("appeler", "appelez", "rufen", "anrufen", "rückruf", "mobil", "portable", "chiama"),
            *("rappeler", "rappelez", "joindre", "joignable", "numéro", "erreichbar", "nummer"),
            *("tel", "tél.", "rufnummer", "bel", "bellen", "numero", "número"),
            *("zadzwonić", "dzwonić"),
        ),
        digits=(9, 12),
    ),
    Recognizer(
        name="phone_by_label",
        type="PHONE",
        subtype="LOCAL",
        pattern=r"(?:(?<![a-z])(?:phone|tel|telephone|mobile|cell|fax|call|whatsapp|sms|text|m"
        r"[óo]vil"
        r"|t[ée]l[ée]phone|tel[ée]fono|telefon|telefoon|handy|cellulare"
        r"|ll[áa]m(?:ame|eme|ar)(?: al)?|rappeler|appeler"
        r"|komórk[aię])(?![a-z])(?: ?(?:no|nr|number)\.?(?![a-z]))?"
        r"|电话|手机号?码?|座机|传真|热线)"
        r"(?: (?:is|me at|us at|at|on|è|es|al|est le|ist))?[ :#=(为是]{0,4}"
        r"(?P<v>\(?\+?[0-9](?:[ \-./()]{0,2}[0-9]){6,14}(?: ?(?:x|ext\.?) ?[0-9]{1,6})?)(?!"
        r"[0-9A-Za-z])",
        source="national formats vary: 7 to 15 digits by their label",
        score=(0.75, 0.85),
        case=False,
    ),
    Recognizer(
        name="org_by_form",
        type="ORG",
        subtype="COMPANY",
        pattern=r"(?<![A-Za-zÀ-ɏ0-9])[A-ZÀ-Þ][A-Za-zÀ-ɏ0-9&'’.\-]{0,24}"
        r"(?:(?: | & | de )[A-ZÀ-Þ][A-Za-zÀ-ɏ0-9&'’.\-]{0,24}){0,4},? "
        r"(?:Inc|LLC|L\.L\.C|LLP|Ltd|Limited|PLC|Plc|Corp|Corporation|GmbH|AG|KG|SE|N\.V|B\.V|S\.A|SAS"
        r"|S\.p\.A|S\.L|Pty|Oy|AB|Group|Holdings?|Partners|Technologies|Laboratories|Industries"
        r"|Associates|Bank|University|Hospital|Institute|Foundation)(?![A-Za-z0-9])\.?",
        hint="Inc|LLC|L\\.L|LLP|Ltd|Limited|PLC|Plc|Corp|GmbH|AG|KG|SE|N\\.V|B\\.V|S\\.A|SAS|S\\.p|S\\.L|Pty|Oy"
        "|AB|Group|Holding|Partners|Technologies|Laboratories|Industries|Associates|Bank|University"
        "|Hospital|Institute|Foundation",
        source="ISO 20275, legal forms of entities, and words that name institutions",
        score=(0.9, 0.9),
        veto=False,
    ),
)

"""China, with Hong Kong, Macau and Taiwan. PURE."""

from __future__ import annotations

from compliance.recognizers import checks, checks_world
from compliance.recognizers.base import NOT_AFTER, NOT_BEFORE, Recognizer
from compliance.recognizers.cn_address import CN_ADDRESS
from compliance.recognizers.cn_labelled import CN_LABELLED
from compliance.recognizers.cn_words import MOBILE_WORDS, PROVINCE
from compliance.recognizers.hk_mo_tw import HK_MO_TW

_ID_WORDS = (
    "身份证",
    "证件",
    "居民",
    "身份",
    "公民",
    "居住证",
    "身分證",
    "身份證",
    "社会保障",
    "驾驶证",
    "resident id",
    "identity",
    "id card",
    "id no",
    "id",
)

CN = (
    Recognizer(
        name="cn_resident_id",
        type="CN_RESIDENT_ID",
        subtype="RESIDENT_ID_18",
        pattern=r"(?<![0-9A-Za-z])[1-9][0-9]{5}[ \-]?(?:18|19|20)[0-9]{2}[ \-]?(?:0[1-9]|1"
        r"[0-2])[ \-]?"
        r"(?:0[1-9]|[12][0-9]|3[01])[ \-]?[0-9]{3}[ \-]?[0-9Xx](?![0-9A-Za-z])",
        source="GB 11643-1999, check character by ISO 7064 MOD 11-2; so are residence permits for "
        "people of Hong Kong, Macau and Taiwan (81 to 83) and foreigners' cards of 2023 (9)",
        score=(0.97, 0.99),
        rejected=(0.6, 0.92),
        check=checks.cn_resident_18,
        context=_ID_WORDS,
        digits=(17, 18),
    ),
    Recognizer(
        name="cn_resident_id_old",
        type="CN_RESIDENT_ID",
        subtype="RESIDENT_ID_15",
        pattern=r"(?<![0-9A-Za-z])[1-9][0-9]{7}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])"
        r"[0-9]{3}(?![0-9A-Za-z])",
        source="GB 11643-1989",
        score=(0.4, 0.92),
        check=checks.cn_resident_15,
        context=_ID_WORDS,
        digits=(15, 15),
    ),
    Recognizer(
        name="cn_mobile",
        type="PHONE",
        subtype="CN_MOBILE",
        pattern=r"(?<![0-9A-Za-z])(?<![0-9][.\-])(?:(?:\+|00)?\(?86\)?[ \-]?)?1[3-9][0-9](?:"
        r"[ \-]?[0-9]{4}){2}"
        r"(?![0-9A-Za-z]|[.][0-9])",
        source="MIIT numbering plan, 11 digits from 13 to 19",
        score=(0.75, 0.97),
        context=MOBILE_WORDS,
        digits=(11, 15),
    ),
    Recognizer(
        name="cn_landline",
        type="PHONE",
        subtype="CN_LANDLINE",
        pattern=r"(?<![0-9A-Za-z])(?:(?:\+|00)?86[ \-]?)?\(?0(?:10|2[0-9]|[3-9][0-9]{2})\)?"
        r"[ \-]{0,2}[2-9][0-9]{2,3}"
        r"[ \-]?[0-9]{4}(?:[ \-]{1,2}[0-9]{1,5})?(?![0-9A-Za-z])",
        source="MIIT numbering plan, area code and 7 or 8 digits",
        score=(0.6, 0.95),
        context=MOBILE_WORDS,
        digits=(10, 19),
    ),
    Recognizer(
        name="cn_service_number",
        type="PHONE",
        subtype="CN_SERVICE",
        pattern=r"(?<![0-9A-Za-z])[48]00[ \-]?[0-9]{3}[ \-]?[0-9]{4}(?![0-9A-Za-z])",
        source="MIIT numbering plan, 400 and 800 numbers",
        score=(0.3, 0.9),
        context=MOBILE_WORDS,
        digits=(10, 10),
    ),
    Recognizer(
        name="cn_bank_card",
        type="CREDIT_CARD",
        subtype="CN_BANK_CARD",
        pattern=r"(?<![0-9A-Za-z])62[0-9](?:[ \-]?[0-9]){13,16}(?![0-9A-Za-z])",
        source="UnionPay, BIN 62, 16 to 19 digits, Luhn",
        score=(0.95, 0.98),
        rejected=(0.2, 0.92),
        check=checks.luhn,
        context=(
            "卡号",
            "银行卡",
            "储蓄卡",
            "信用卡",
            "借记卡",
            "银联",
            "银行",
            "card",
            "unionpay",
            "卡",
        ),
        digits=(16, 19),
    ),
    Recognizer(
        name="cn_plate",
        type="PLATE",
        subtype="CN",
        pattern=rf"[{PROVINCE}][A-HJ-NP-Z] ?[·•.\-]? ?(?:[A-HJ-NP-Z0-9]{{5,6}}|"
        rf"[A-HJ-NP-Z0-9]{{4}}[挂学警港澳领试超]){NOT_AFTER}",
        source="GA 36-2018, plates of motor vehicles",
        score=(0.92, 0.97),
        veto=False,
    ),
    Recognizer(
        name="cn_passport",
        type="PASSPORT",
        subtype="CN",
        pattern=rf"{NOT_BEFORE}(?:[EGDSP][A-Z]?[0-9]{{7,8}}|1[45][0-9]{{7}}){NOT_AFTER}",
        source="Exit and Entry Administration, ordinary and official passports",
        score=(0.3, 0.92),
        context=("护照", "passport", "出境", "签证", "護照", "簽證"),
        tight=True,
    ),
    Recognizer(
        name="cn_travel_permit",
        type="PASSPORT",
        subtype="HK_MO_TW_PERMIT",
        pattern=rf"{NOT_BEFORE}(?:[CWTLHM][0-9]{{8}}(?:[0-9]{{2}})?|[CL][A-HJ-NP-Z][0-9]{{7}}){NOT_AFTER}",
        source="Exit and Entry Administration, permits for Hong Kong, Macau and Taiwan",
        score=(0.0, 0.92),
        context=("通行证", "通行證", "回乡证", "回鄉證", "台胞证", "台胞證", "港澳", "permit"),
        tight=True,
    ),
    Recognizer(
        name="cn_uscc",
        type="NATIONAL_ID",
        subtype="CN_USCC",
        pattern=rf"{NOT_BEFORE}[0-9A-HJ-NPQRTUWXY]{{2}}[0-9]{{6}}"
        rf"[0-9A-HJ-NPQRTUWXY]{{10}}{NOT_AFTER}",
        source="GB 32100-2015, check character modulo 31",
        score=(0.8, 0.95),
        rejected=(0.0, 0.75),
        check=checks.uscc,
        context=(
            "统一社会信用代码",
            "信用代码",
            "营业执照",
            "税号",
            "纳税人",
            "uscc",
            "credit code",
        ),
        tight=True,
    ),
    Recognizer(
        name="cn_officer_id",
        type="NATIONAL_ID",
        subtype="CN_MILITARY_ID",
        pattern=rf"[军南北沈兰成济广海空参政后装东西中文士武联火]字第?[A-Z0-9]{{6,10}}号?{NOT_AFTER}",
        source="military officer and soldier certificates",
        score=(0.85, 0.92),
    ),
    Recognizer(
        name="cn_qq_wechat",
        type="NATIONAL_ID",
        subtype="CN_MESSENGER_ID",
        pattern=r"(?:qq(?:号码?)?|微信号?|wechat(?: ?id)?|vx|wx)[ :#=为是]{1,4}"
        r"(?P<v>[a-z0-9][a-z0-9_\-]{4,19})(?![a-z0-9])",
        source="Tencent account names, by their label",
        score=(0.75, 0.85),
        check=lambda value: any(character.isdigit() for character in value),
        case=False,
    ),
    Recognizer(
        name="cn_embassy_plate",
        type="PLATE",
        subtype="CN_EMBASSY",
        pattern=rf"(?<![天大即致促行驱迫假])使 ?[0-9]{{6}}{NOT_AFTER}"
        r"|(?<![0-9A-Za-z])[0-9]{3}[· ]?[0-9]{3}[使领](?!用)",
        source="GA 36-2018, plates of embassies, and those before 2017",
        score=(0.4, 0.95),
        context=("车牌", "号牌", "使馆", "领馆", "车辆", "停", "牌"),
        hint="使 ?[0-9]{6}|[0-9]{3}[· ]?[0-9]{3}[使领]",
    ),
    Recognizer(
        name="cn_military_plate",
        type="PLATE",
        subtype="CN_MILITARY",
        pattern=rf"{NOT_BEFORE}(?:WJ ?[·•.]? ?[{PROVINCE}]? ?[·•.]? ?[0-9]{{4}}[0-9A-Z]"
        rf"|[VKHBSLJNGCEYZ][A-Z] ?[·•][0-9]{{5}}){NOT_AFTER}",
        source="plates of the armed forces, 2013, and of the armed police",
        score=(0.75, 0.95),
        context=("车牌", "号牌", "军车", "军牌", "武警"),
        hint=r"WJ ?[·•.]? ?[^\x00-\x7f]? ?[·•.]? ?[0-9]{4}|[A-Z] ?[·•][0-9]{5}",
    ),
    Recognizer(
        name="vin",
        type="PLATE",
        subtype="VIN",
        pattern=rf"{NOT_BEFORE}(?=[0-9]{{0,3}}[A-Z])[A-HJ-NPR-Z0-9]{{8}}[0-9X]"
        rf"[A-HJ-NPR-Z0-9]{{4}}[0-9]{{4}}{NOT_AFTER}",
        source="GB 16735 and ISO 3779, with the check digit of 49 CFR 565.15",
        score=(0.6, 0.95),
        rejected=(0.0, 0.8),
        check=checks_world.vin,
        context=("vin", "车架", "大架", "车辆", "車架", "车主", "车牌", "vehicle", "chassis"),
        tight=True,
    ),
    CN_ADDRESS,
    *CN_LABELLED,
    *HK_MO_TW,
)

"""China, with Hong Kong, Macau and Taiwan. PURE."""

from __future__ import annotations

from compliance.recognizers import checks
from compliance.recognizers.base import NOT_AFTER, NOT_BEFORE, Recognizer

_PHONE_WORDS = (
    *(
        "电话",
        "手机",
        "联系",
        "致电",
        "拨打",
        "号码",
        "短信",
        "微信",
        "座机",
        "传真",
        "热线",
        "热线电话",
    ),
    *("phone", "mobile", "cell", "call", "tel", "wechat", "contact", "fax", "客服"),
)
_ID_WORDS = (
    "身份证",
    "证件",
    "居民",
    "身份",
    "公民",
    "resident id",
    "identity",
    "id card",
    "id no",
    "id",
)
_PROVINCE = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
_HAN = "一-鿿"

CN = (
    Recognizer(
        name="cn_resident_id",
        type="CN_RESIDENT_ID",
        subtype="RESIDENT_ID_18",
        pattern=r"(?<![0-9A-Za-z])[1-9][0-9]{5}[ \-]?(?:18|19|20)[0-9]{2}[ \-]?(?:0[1-9]|1"
        r"[0-2])[ \-]?"
        r"(?:0[1-9]|[12][0-9]|3[01])[ \-]?[0-9]{3}[ \-]?[0-9Xx](?![0-9A-Za-z])",
        source="GB 11643-1999, check character by ISO 7064 MOD 11-2",
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
        context=_PHONE_WORDS,
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
        context=_PHONE_WORDS,
        digits=(10, 19),
    ),
    Recognizer(
        name="cn_service_number",
        type="PHONE",
        subtype="CN_SERVICE",
        pattern=r"(?<![0-9A-Za-z])[48]00[ \-]?[0-9]{3}[ \-]?[0-9]{4}(?![0-9A-Za-z])",
        source="MIIT numbering plan, 400 and 800 numbers",
        score=(0.3, 0.9),
        context=_PHONE_WORDS,
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
        pattern=rf"[{_PROVINCE}][A-HJ-NP-Z] ?[·•.\-]? ?(?:[A-HJ-NP-Z0-9]{{5,6}}|"
        rf"[A-HJ-NP-Z0-9]{{4}}[挂学警港澳]){NOT_AFTER}",
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
        context=("护照", "passport", "出境", "签证"),
        tight=True,
    ),
    Recognizer(
        name="cn_travel_permit",
        type="PASSPORT",
        subtype="HK_MO_TW_PERMIT",
        pattern=rf"{NOT_BEFORE}(?:[CHM][0-9]{{8}}(?:[0-9]{{2}})?|[0-9]{{8}}){NOT_AFTER}",
        source="Exit and Entry Administration, permits for Hong Kong, Macau and Taiwan",
        score=(0.0, 0.92),
        context=("通行证", "回乡证", "台胞证", "港澳", "permit"),
        tight=True,
    ),
    Recognizer(
        name="hk_id",
        type="NATIONAL_ID",
        subtype="HK_ID",
        pattern=rf"{NOT_BEFORE}[A-Z]{{1,2}}[0-9]{{6}} ?\([0-9A]\)",
        source="Hong Kong identity card: letters, six digits, check digit in brackets",
        score=(0.85, 0.95),
        context=("hkid", "香港身份证", "身份证", "identity card"),
    ),
    Recognizer(
        name="tw_id",
        type="NATIONAL_ID",
        subtype="TW_ID",
        pattern=rf"{NOT_BEFORE}[A-Z][12][0-9]{{8}}{NOT_AFTER}",
        source="Taiwan national identification number",
        score=(0.3, 0.92),
        context=("台湾", "身分證", "身份证", "taiwan", "national id"),
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
        pattern=rf"[军南北沈兰成济广海空参政后装]字第?[A-Z0-9]{{6,8}}号?|士字第?[0-9]{{6,10}}号?{NOT_AFTER}",
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
        name="cn_address",
        type="LOCATION",
        subtype="CN_ADDRESS",
        pattern=r"(?:住在|住于|位于|家住|地址[是为在]?|寄[到往至]|送[到往至]|搬[到去]|现居|[在到住于是])?"
        rf"(?P<v>(?:[{_HAN}]{{2,7}}(?:省|自治区|特别行政区))?(?:[{_HAN}]{{2,6}}(?:市|州|盟|地区))?"
        rf"(?:[{_HAN}]{{1,6}}(?:区|县|市|旗|镇|乡))?[{_HAN}0-9]{{1,12}}(?:路|街|道|巷|弄|胡同|大街|大道|村)"
        rf"[{_HAN}]{{0,6}}[0-9]{{1,5}}(?:-[0-9]{{1,4}})?(?:号院?|弄|栋|幢|座)"
        rf"(?:[{_HAN}A-Za-z0-9\-]{{0,10}}?[0-9A-Za-z]{{1,5}}(?:号楼?|栋|幢|座|单元|层|楼|室|房)){{0,4}})",
        hint="号|弄|栋|幢|座",
        source="GB/T 23705, the order of Chinese addresses",
        score=(0.7, 0.9),
        context=("地址", "住", "位于", "寄", "收货", "户籍", "送", "address"),
    ),
)

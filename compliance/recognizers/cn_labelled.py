"""Chinese values that a label tells: certificates, accounts, passwords, days of birth. PURE."""

# ruff: noqa: PLR2004 -- numbers of digits are the formats' own

from __future__ import annotations

from compliance.recognizers import checks
from compliance.recognizers.base import NOT_AFTER, Recognizer
from compliance.recognizers.cn_words import HAN, PROVINCE, by_label, ends_where_it_says


def _five_digits(value: str) -> bool:
    return len(checks.digits_of(value)) >= 5


def _no_date(value: str) -> bool:
    """A number of at least five digits that is no day written together."""
    digits = checks.digits_of(value)
    if len(digits) == 8 and digits == value:
        return not checks.is_day(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    return len(digits) >= 5


_CODE = r"[A-Z]{0,4}[0-9](?:-?[0-9A-Z]){4,26}"
_BIRTH = "(?:出生(?:日期|年月日?|时间|時間)?|生日|(?<!诞)(?<!誕)生[于於])"
_GAP = r"(?:[ :=(,是为為在]|农历|阴历|農曆|陰曆|新历|公历|阳历|國曆){0,5}"
_NUMERAL = "[一二三四五六七八九十]"
_HAN_DAY = (
    rf"[一二三四五六七八九〇零○]{{4}}年{_NUMERAL}{{1,2}}月"
    rf"(?:{_NUMERAL}{{1,3}}[日号號]?|[初廿]{_NUMERAL})"
)
_LUNAR_DAY = (
    rf"(?:(?:19|20)?[0-9]{{2}}年)?(?:闰?{_NUMERAL}{{1,2}}|[正冬腊臘]|[0-9]{{1,2}})月"
    rf"(?:[初廿卅]{_NUMERAL}|{_NUMERAL}{{2,3}})"
)
_REPUBLIC = (
    r"(?:民[国國] ?[0-9]{1,3} ?"
    r"(?:年 ?[0-9]{1,2} ?月 ?[0-9]{1,2} ?日?|[./\-][0-9]{1,2}[./\-][0-9]{1,2}))"
)
_MONTH = r"(?:(?:19|20)[0-9]{2}(?:年[0-9]{1,2}月(?![0-9])|[.\-/][01]?[0-9](?![0-9.\-/])))"
_MONTH_DAY = r"(?:[0-9]{1,2}月[0-9]{1,2}[日号號])"

CN_LABELLED = (
    by_label(
        "cn_certificate",
        "CN_CERTIFICATE",
        "社会保障|社会保险(?:登记证?)?|社保电脑|社保个人|执业证|律师证|资格证|医师证|护士证|教师证|结婚证|离婚证|户口簿|户口本"
        "|考号|残疾人?证|老年证|优待证|警官证|士官证|士兵证|军官证|文职干部证|学生证|准考证|毕业证|学位证|房产证|营业执照(?:注册)?"
        "|组织机构代码|税务登记证?|出生医学证明|出生证|永久居留证|居留许可|驾驶证档案|从业资格证|暂住证|居住证|工作许可证?"
        "|(?:个人|学籍|学|工|员工|考生|警|注册|养老保险|参保人|核准|报名)(?=编?号|編?號)",
        _CODE,
        source="certificates and registers of the People's Republic, by their label",
        check=_no_date,
    ),
    by_label(
        "cn_real_estate",
        "CN_REAL_ESTATE",
        "不动产权证|不动产权|房产证|房权证|权证",
        rf"[{PROVINCE}] ?\([0-9]{{4}}\) ?[{HAN}]{{2,12}}第 ?[0-9]{{5,10}} ?号",
        hint="不动产权|房产证|房权证|权证",
        source="Ministry of Natural Resources, numbers of real estate certificates, 2015",
    ),
    by_label(
        "cn_medical_label",
        "CN_MEDICAL",
        "健保卡|健康证|诊疗卡|医疗证|农合证|疫苗接种证|献血证|(?:体检|建卡|预约|影像|放射|超声|检查|标本|病理|病歷|住院|門診|健保|就醫|醫保)"
        "(?=编?号|編?號|卡号|卡號)",
        r"[A-Z]{0,4}[0-9](?:-?[0-9A-Z]){4,19}",
        type="MEDICAL_RECORD",
        source="numbers of patients and examinations, by their label",
        check=_five_digits,
    ),
    by_label(
        "cn_account_by_label",
        "ACCOUNT_NUMBER",
        "公积金|公積金|账户|帐户|賬戶|帳戶|账号|帐号|賬號|帳號|卡号|卡號|存折|存摺|戶口號碼|银行卡|銀行卡|信用卡|储蓄卡|提款卡|分行|支行|基本户|一般户",
        r"[0-9](?:[ \-]?[0-9]){8,29}",
        type="BANK_ACCOUNT",
        source="account numbers have no common format: the label names them",
        score=(0.8, 0.95),
        context=("银行", "銀行", "转账", "轉帳", "汇款", "匯款", "户名", "戶名", "开户", "开戶"),
    ),
    Recognizer(
        name="cn_ip_by_label",
        type="IP_ADDRESS",
        subtype="IPV4",
        pattern=r"IP(?:v4)?(?:地址|位址)?[ :是为為]{0,3}"
        r"(?P<v>(?:[0-9]{1,3}\.){3}[0-9]{1,3})(?![0-9A-Za-z]|\.[0-9])",
        hint=r"IP(?:v4)?(?:地址|位址)?[ :是为為]{0,3}[0-9]{1,3}\.[0-9]",
        source="RFC 791, written on to its label",
        score=(0.9, 0.9),
        check=checks.ipv4,
        case=False,
        veto=False,
    ),
    Recognizer(
        name="cn_password_stuck",
        type="SECRET",
        subtype="PASSWORD",
        pattern=r"(?:密码|密碼|口令)(?:已|被|现|現)?[ :=是为為设設改换換成定重置]{0,4}['\"“]?"
        r"(?P<v>(?=[A-Za-z!@#$%^&*_+=.\-]{0,30}[0-9])[A-Za-z0-9!@#$%^&*_+=.\-]{4,64})"
        r"(?![A-Za-z0-9!@#$%^&*_+=.\-]|[位个個次年月日元])",
        hint="(?:密码|密碼|口令)(?:已|被|现|現)?[ :=是为為设設改换換成定重置]{0,4}['\"“]?"
        "[A-Za-z0-9!@#$%^&*]{2}",
        source="how people tell a password in Chinese, written on to its label",
        score=(0.9, 0.92),
        veto=False,
    ),
    Recognizer(
        name="cn_one_time_code",
        type="SECRET",
        subtype="ONE_TIME_CODE",
        pattern=r"(?:验证码|驗證碼|校验码|校驗碼|动态码|動態碼|动态密码|动态口令|激活码|提款码)"
        r"[ :\[【是为為]{0,4}"
        rf"(?P<v>{ends_where_it_says('[0-9]{4,8}')})"
        r"|(?<![0-9A-Za-z.])(?P<q>[0-9]{4,8}) ?(?:\( ?(?:动态|短信|登录|支付)?验证码"
        r"|(?:是|为|為)(?:您|你|本次)?的?[一-鿿]{0,6}(?:验证码|驗證碼))",
        hint="验证码|驗證碼|校验码|校驗碼|动态码|動態碼|动态密码|动态口令|激活码|提款码",
        source="one-time codes of text messages, beside their label",
        score=(0.9, 0.9),
        veto=False,
    ),
    Recognizer(
        name="cn_birth_label",
        type="DATE_OF_BIRTH",
        subtype="DATE_OF_BIRTH",
        pattern=rf"{_BIRTH}{_GAP}(?P<v>{_HAN_DAY}|{_LUNAR_DAY}|{_REPUBLIC}|{_MONTH}|{_MONTH_DAY})",
        hint=rf"{_BIRTH}{_GAP}(?:[0-9]|[一二〇零正冬腊臘闰三四五六七八九十]|民)",
        source="days of birth in Han numerals, by the lunar calendar, by years of the Republic, "
        "and parts of them, by their label",
        score=(0.9, 0.92),
        veto=False,
    ),
    Recognizer(
        name="cn_then_birth",
        type="DATE_OF_BIRTH",
        subtype="DATE_OF_BIRTH",
        pattern=rf"(?P<v>{_HAN_DAY}(?<=[日号號])|{_REPUBLIC}|{_LUNAR_DAY}) ?"
        r"(?:出生|生(?![产產效成意活日]))"
        r"|(?<![0-9])(?P<q>(?:19|20)[0-9]{2}年[0-9]{1,2}月) ?"
        r"(?:出生(?![人率的数缺])|生(?=[人,。;]))",
        hint=r"[0-9日号號] ?(?:出生|生)|月(?:[^\x00-\x7f]{2,3})? ?(?:出生|生)",
        source="the label behind the date, as in 民國75年3月12日生",
        score=(0.9, 0.92),
        veto=False,
    ),
    Recognizer(
        name="cn_messenger",
        type="NATIONAL_ID",
        subtype="CN_MESSENGER_ID",
        pattern=r"(?<![a-z])(?:qq(?:号码?|號碼?|是?多少)?[ :#=为是為?]{0,4}(?P<v>[1-9][0-9]{4,10})"
        r"|(?:微信(?:号|號|id)|v信号?|抖音(?:号|id)|快手(?:号|id)|小红书(?:号|id)|line ?id)"
        r"[ :#=为是為]{0,4}(?P<q>[a-z][a-z0-9_\-]{4,19}))(?![a-z0-9@])",
        hint=r"qq(?:号码?|號碼?|是?多少)?[ :#=为是為?]{0,4}[1-9]"
        r"|(?:微信|v信|抖音|快手|小红书)(?:号|號|id)|line ?id",
        source="names of accounts with messengers, by their label",
        score=(0.85, 0.85),
        case=False,
        veto=False,
    ),
    Recognizer(
        name="cn_wechat_stuck",
        type="NATIONAL_ID",
        subtype="CN_MESSENGER_ID",
        pattern=r"微信[ :=]{0,2}"
        r"(?!android|iphone|ios|ipad|web|win|mac|pay|pc|app|api|sdk|wechat|weixin|http)"
        r"(?P<v>(?=[a-z_\-]{2,16}[0-9])[a-z][a-z0-9_\-]{5,19})(?![a-z0-9@.])",
        hint="微信[ :=]{0,2}[a-z]",
        source="WeChat: six to twenty letters, digits and signs, written on to its name",
        score=(0.75, 0.75),
        case=False,
    ),
    by_label(
        "cn_engine_number",
        "CN_ENGINE_NUMBER",
        "发动机|發動機|引擎",
        r"[A-Z0-9]{6,16}",
        type="PLATE",
        source="GB 16735 and GA 801: engine numbers on vehicle licences, by their label",
        hint="发动机|發動機|引擎",
        check=_five_digits,
    ),
    by_label(
        "cn_vin_by_label",
        "VIN",
        "车架|車架|大架|车辆识别代?|車輛識別|VIN码?",
        r"[A-HJ-NPR-Z0-9]{17}",
        type="PLATE",
        source="GB 16735, vehicle identification numbers, by their label",
        hint="车架|車架|大架|车辆识别|車輛識別|VIN",
        check=_five_digits,
    ),
    Recognizer(
        name="cn_passport_label",
        type="PASSPORT",
        subtype="CN",
        pattern=r"(?:護照|旅行證|通行证|通行證|台胞证|臺胞證|台胞證|回乡证|回鄉證|签注)"
        r"(?:号码?|號碼?|编号|編號)?[ :#=(为是為]{0,4}"
        rf"(?P<v>[A-Z]{{0,2}}[0-9]{{7,10}}(?:\([A-Z]\))?){NOT_AFTER}",
        hint=r"(?:護照|旅行證|通行证|通行證|台胞证|臺胞證|台胞證|回乡证|回鄉證|签注)"
        r"(?:号码?|號碼?|编号|編號)?[ :#=(为是為]{0,4}[A-Z]{0,2}[0-9]",
        source="Exit and Entry Administration, permits and passports by their label",
        score=(0.92, 0.92),
        veto=False,
    ),
)

"""Addresses in Chinese, of the mainland, Hong Kong, Macau and Taiwan. PURE.

    广东省 深圳市 南山区 粤海街道   科技园路   12 号   3 栋 2 单元 1204 室
    province city district town    street    number  parts of a building

From the large to the small; all but street and number may be missing. In traditional script so too:
臺北市信義區信義路五段7號89樓之2.
"""

from __future__ import annotations

import re

from compliance.recognizers.base import Recognizer
from compliance.recognizers.cn_words import ADDRESS_HAN as H

__all__ = ["CN_ADDRESS"]

_NAMES = (
    "北京|天津|上海|重庆|河北|山西|辽宁|吉林|黑龙江|江苏|浙江|安徽|福建|江西|山东|河南|湖北|湖南|广东|海南|四川|贵州"
    "|云南|陕西|甘肃|青海|台湾|臺灣|台灣|内蒙古|广西壮族|广西|西藏|宁夏回族|宁夏|新疆维吾尔|新疆|香港|澳门|澳門|九龍"
    "|九龙|新界"
)
_PROVINCE = rf"(?:(?:{_NAMES})(?:省|市|自治区|特别行政区|特別行政區)?)"
_KNOWN = (
    f"(?:(?:{_NAMES})(?:省|市|自治区|特别行政区)|香港|澳门|澳門|九龍|九龙|新界|内蒙古|广西壮族|新疆维吾尔|(?:杭州|南京"
    "|苏州|成都|武汉|西安|广州|深圳|长沙|郑州|济南|青岛|大连|沈阳|哈尔滨|长春|合肥|福州|厦门|南昌|昆明|贵阳|南宁|海口"
    "|太原|石家庄|兰州|西宁|银川|乌鲁木齐|拉萨|呼和浩特|宁波|温州|无锡|常州|东莞|佛山|珠海|台北|臺北|新北|台中|臺中"
    "|台南|臺南|高雄|桃園)市)"
)
"""What an address begins with wherever it stands: no part that is before it belongs to it."""
_FIRST = "".join(sorted(set(re.findall(r"[(|:]([^(|)?:])", _KNOWN))))
"""What one of those begins with, asked first since that is quick."""

_PARTS = (
    f"(?:[{H}]{{1,6}}?(?:市|州|盟|地区))?(?:[{H}]{{1,6}}?(?:区|區|县|縣|市|旗))?"
    f"(?:[{H}]{{1,5}}?(?:镇|鎮|乡|鄉|街道|开发区|園區|园区))?"
)
_UPPER = f"(?:{_PROVINCE}|(?![{H}]{{1,9}}?(?=[{_FIRST}]){_KNOWN})){_PARTS}"
_STREETS = "路|街|道|巷|胡同|村|里|徑|小区|花园|苑|公寓|家园|大厦|广场|大廈|廣場|花園|邨"
_STREET = rf"[{H}0-9]{{1,10}}?(?:{_STREETS})(?<![电线思]路)(?<![通车频渠管报轨跑知味]道)"
_UNIT = "号院|号楼|号|號|弄|栋|幢|座|棟|组|組|巷"
_NUMBER = r"[0-9]{1,5}(?:[\-之至][0-9]{1,4})?"
_PART = (
    rf"[{H}A-Za-z]{{0,10}}?(?:[0-9A-Za-z\-]{{1,6}}|[一二三四五六七八九十]{{1,3}})"
    r"(?:号院|号楼|号|號|弄|栋|幢|座|棟|塔|组|組|单元|單元|区|區|层|層|楼|樓|期|室|房|户|戶)"
    r"(?:之[0-9]{1,3}|[A-Z](?![A-Za-z0-9室座栋棟房塔]))?"
)

_LAST = (
    rf"(?:[{H}]{{1,8}}?(?:大厦|大廈|广场|廣場|公寓|中心|花园|花園|苑|楼|樓))?"
    r"[0-9]{1,4}[0-9A-Z](?![0-9A-Za-z.%年月日元个人米点])"
)
"""A door at the end that says no more than its number."""

CN_ADDRESS = Recognizer(
    name="cn_address",
    type="LOCATION",
    subtype="CN_ADDRESS",
    pattern=r"(?:所在地|居住地|户籍地|目的地|收件地|联系地|家中?|地点|通讯处)?"
    rf"(?P<v>{_UPPER}{_STREET}[{H}]{{0,6}}?(?:[一二三四五六七八九十]{{1,2}}段)?[{H}]{{0,4}}?"
    rf"{_NUMBER}(?:{_UNIT})(?![线線令球]|公告|文件|选手|公交)"
    rf"(?:{_PART}){{0,6}}(?:{_LAST}|[A-Z]室)?)",
    hint=rf"(?:{_STREETS})[^\x00-\x7f]{{0,13}}{_NUMBER}(?:{_UNIT})",
    source="GB/T 23705, the order of Chinese addresses",
    score=(0.7, 0.9),
    veto=False,
    context=(
        *("地址", "住", "位于", "寄", "收货", "户籍", "送", "address"),
        *("寄到", "送貨", "戶籍", "通訊", "寓所", "位於"),
    ),
)

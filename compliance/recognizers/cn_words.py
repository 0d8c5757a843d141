"""What Chinese recognizers share: how a label is followed by its value. PURE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compliance.recognizers.base import NOT_AFTER, Recognizer

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ADDRESS_HAN", "HAN", "MOBILE_WORDS", "PROVINCE", "by_label", "ends_where_it_says"]

HAN = "一-鿿"

PROVINCE = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
"""Short names of provinces, for within brackets."""

_NEVER_IN_PLACES = (
    *"在住到是于於址我你他她您的了寄送至与與及去这這有请請把给給为為被说說要也就很吗呢吧跟",
    *"叫拨撥写寫係们們",
)
"""Characters of grammar: an address begins behind them, even where nothing else divides."""


def _without(characters: Iterable[str]) -> str:
    """Ranges of `HAN` that leave `characters` out, for within brackets."""
    ranges, first = [], 0x4E00
    for point in [*sorted(map(ord, characters)), 0xA000]:
        if point > first:
            ranges.append(f"{chr(first)}-{chr(point - 1)}")
        first = point + 1
    return "".join(ranges)


ADDRESS_HAN = _without(_NEVER_IN_PLACES)
"""Characters that names of places and streets are made of."""

MOBILE_WORDS = (
    *("电话", "手机", "联系", "致电", "拨打", "号码", "短信", "微信", "座机", "传真", "热线"),
    *("電話", "手機", "手提", "聯絡", "聯繫", "致電", "撥打", "傳真", "簡訊", "來電", "熱線"),
    *("phone", "mobile", "cell", "call", "tel", "wechat", "whatsapp", "contact", "fax", "客服"),
)

_NUMBER = "(?:书|書|卡|证|證|本)?(?:号码?|號碼?|编号|編號|证号|證號|字號|卡号|卡號|ID|id)?"
_LINK = r"[ :#=(为是為]{0,4}"


def ends_where_it_says(pattern: str) -> str:
    """`pattern`, and nothing behind it that makes it a count, a year or a part of more."""
    return rf"{pattern}(?![A-Za-z0-9]|[年月日秒分位次个個元小人件条])"


def by_label(name: str, subtype: str, label: str, value: str, **more: Any) -> Recognizer:  # noqa: ANN401 -- any field of Recognizer
    """Return what only its Chinese label tells: 学号：2019051123.

    label: alternatives; words for "number" may follow. value: the pattern; it holds a digit.
    """
    fields: dict[str, Any] = {
        "type": "NATIONAL_ID",
        "pattern": rf"(?:{label}){_NUMBER}{_LINK}(?P<v>{value}){NOT_AFTER}",
        "hint": rf"(?:{label}){_NUMBER}{_LINK}[A-Z]{{0,4}}[0-9]",
        "score": (0.85, 0.9),
        "veto": False,
    }
    return Recognizer(**fields | {"name": name, "subtype": subtype} | more)

"""Word lists that keep name models from being asked, or believed, in vain. PURE."""

from __future__ import annotations

from importlib.resources import files

__all__ = [
    "CITIES",
    "COMMON_WORDS",
    "GIVEN_NAMES",
    "KNOWN_BY_ONE_NAME",
    "NOT_PEOPLE_ZH",
    "ORG_NOUNS",
    "PLACES",
    "PLACES_ZH",
    "PLAIN_IN_LOWER_CASE",
    "PRODUCTS",
    "SURNAMES",
    "SURNAMES_THAT_ARE_WORDS",
    "SURNAMES_ZH",
]


def _listed(name: str) -> list[str]:
    """Entries of a list in `name_data`, without its comments."""
    text = files("compliance.name_data").joinpath(name).read_text("utf-8")
    return [line for line in text.split("\n") if line and not line.startswith("#")]


COMMON_WORDS = frozenset(_listed("common_words.txt"))
"""Lower-case words that name nobody although a sentence or a label may begin with them."""

GIVEN_NAMES = frozenset(_listed("given_names.txt"))
"""Given names in lower case that are no ordinary English words."""

SURNAMES_THAT_ARE_WORDS = frozenset(_listed("surnames_that_are_words.txt"))
"""Words that are family names behind a given name."""

KNOWN_BY_ONE_NAME = frozenset(_listed("known_by_one_name.txt"))
"""Names in lower case that need nothing beside them."""

ORG_NOUNS = frozenset(_listed("org_nouns.txt"))
"""Words that institutions and firms end with."""

PLAIN_IN_LOWER_CASE = frozenset(_listed("plain_in_lower_case.txt"))
"""Given names that are ordinary words unless a capital says otherwise."""

PLACES = frozenset(_listed("places.txt"))
"""Countries, regions and cities, spelled as they are, that are hardly ever anything else."""

CITIES = frozenset(_listed("cities.txt"))
"""Further cities, spelled as they are; in lower case some are words of some language."""

PLACES_ZH = frozenset(_listed("places_zh.txt"))
"""Countries, provinces and large cities in Chinese, without 省 and 市."""

PRODUCTS = frozenset(_listed("products.txt"))
"""Software in lower case: what stands in a list with it is software too."""

SURNAMES = frozenset(_listed("surnames.txt"))
"""Family names in lower case that are no ordinary English words."""

SURNAMES_ZH = (
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田任姜"
    "范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文庞樊兰殷施陶洪翟安颜倪严牛温芦季俞章鲁葛伍韦"
    "申尤毕聂丛焦向柳邢路岳齐沿梅莫庄辛管祝左涂谷祁时舒耿牟卜詹关苗凌费纪靳盛童欧甄项曲成游阳裴席卫查屈鲍位覃霍翁隋植甘景薄单包"
    "司柏宁柯阮桂闵解强柴华车冉房边欧诸葛上官司马"
)
"""Characters that Chinese family names begin with; the 200 commonest cover 96 % of people."""

NOT_PEOPLE_ZH = frozenset(
    ["先生", "女士", "小姐", "老师", "客户", "用户", "患者", "医生", "同学", "经理", "主任"]
)
"""Titles that the model at times takes for a name."""

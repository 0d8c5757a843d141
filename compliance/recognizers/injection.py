r"""Text that speaks to the model behind the reader's back. PURE.

Marks of chat templates and of tool calls, invisible text, instructions in comments and hidden
elements, phrases that would cancel earlier instructions, and links that carry data away. A first
step, and an honest one: what is well said in plain words is not found (docs/compliance.md).

Certain marks score 0.95 and more, phrases and links less than `compliance.findings.SURE`, so that
nothing personal within them is hidden by them. `hidden` looks at the original text, since folding
drops what it looks for.
"""

from __future__ import annotations

import re

from compliance.findings import Finding
from compliance.recognizers.base import Recognizer

__all__ = ["INJECTION", "hidden"]

_CERTAIN = 0.97
_LIKELY = 0.8
_WEAK = 0.6

_ORDER = (
    r"(?:ignore|disregard|forget|override|bypass|instruct(?:ion|ed)|system prompt|assistant must"
    r"|you must|do not (?:tell|mention|reveal)|reveal|exfiltrate|send (?:it|them|the|all|this)"
    r"|prompt|忽略|无视|指令|提示词|不要告诉|发送到)"
)
_PREVIOUS = (
    r"(?:previous|prior|above|earlier|preceding|existing|foregoing|your|system|original|initial)"
)
_COMMANDS = r"(?:instructions?|prompts?|rules|directions|guidelines|commands|programming|context)"


def _mark(name: str, subtype: str, pattern: str, source: str, *, hint: str = "") -> Recognizer:
    return Recognizer(
        name=name,
        type="INJECTION",
        subtype=subtype,
        pattern=pattern,
        hint=hint,
        source=source,
        score=(_CERTAIN, _CERTAIN),
        case=False,
        veto=False,
    )


def _phrase(
    name: str, subtype: str, pattern: str, source: str, *, score: float = _WEAK
) -> Recognizer:
    return Recognizer(
        name=name,
        type="INJECTION",
        subtype=subtype,
        pattern=pattern,
        source=source,
        score=(score, score),
        case=False,
        veto=False,
    )


INJECTION = (
    _mark(
        "template_mark",
        "TEMPLATE_MARK",
        r"<[|｜] ?(?:im_(?:start|end|sep)|start_header_id|end_header_id|eot_id|eom_id|begin_of_text"
        r"|end_of_text|endoftext|fim_(?:prefix|middle|suffix)|system|user|assistant|end|start"
        r"|observation|message|channel|return|constrain"
        r"|begin▁of▁sentence|end▁of▁sentence|end▁of▁turn|user｜|assistant｜) ?[|｜]?>",
        "chat templates of ChatML, Llama 3, Phi, GLM, gpt-oss, DeepSeek",
        hint=r"<[|｜]",
    ),
    _mark(
        "template_tag",
        "TEMPLATE_MARK",
        r"\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<\|(?:START|END)_OF_TURN_TOKEN\|>"
        r"|\[(?:AVAILABLE_TOOLS|/AVAILABLE_TOOLS|TOOL_RESULTS|/TOOL_RESULTS|SYSTEM_PROMPT)\]",
        "chat templates of Llama 2, Mistral, Gemma, Command R",
    ),
    _mark(
        "tool_call",
        "TOOL_CALL",
        r"</?(?:[a-z]{2,8}:)?(?:tool_call|tool_response|tool_use|function_calls?|function_results)>"
        r"|<(?:[a-z]{2,8}:)?invoke name=[\"'][^\"'<>]{1,64}[\"']>|<\|python_tag\|>"
        r"|\[(?:TOOL_CALLS|/TOOL_CALLS)\]"
        r"|<[|｜]tool▁(?:calls?|outputs?|sep)(?:▁(?:begin|end))?[|｜]>",
        "tool calls of Hermes, Qwen, Llama 3, Mistral, DeepSeek and others",
    ),
    _phrase(
        "role_header",
        "ROLE_HEADER",
        r"(?:^|\n) ?(?:###? ?(?:instruction|system|human|assistant|response|user|指令|系统)s? ?:"
        r"|(?:system|assistant) ?: )",
        "Alpaca and Vicuna headers: ordinary words too, so weak",
        score=0.5,
    ),
    _phrase(
        "ignore_instructions",
        "OVERRIDE_PHRASE",
        r"(?:ignore|disregard|forget|override|bypass|do not follow|stop following)"
        rf" (?:(?:all|any|every|the|of|these|those|my|our|your) ){{0,3}}(?:{_PREVIOUS} ){{1,3}}"
        rf"{_COMMANDS}(?![a-z])",
        "OWASP LLM01: the phrase that most published attacks begin with",
        score=0.7,
    ),
    _phrase(
        "reveal_prompt",
        "OVERRIDE_PHRASE",
        r"(?:reveal|print|repeat|show|output|leak|display) (?:me )?(?:(?:your|the|all|of) ){1,3}"
        r"(?:(?:hidden|system|initial|original|secret|full) ){1,3}(?:prompt|instructions?)"
        r"(?![a-z])",
        "OWASP LLM07: asking for the system prompt",
    ),
    _phrase(
        "new_persona",
        "OVERRIDE_PHRASE",
        r"(?:you are now|act as|pretend to be|from now on,? you are) (?:an? |in )?"
        r"(?:DAN(?![a-z])|unrestricted|uncensored|jailbroken|evil|developer mode|god mode)",
        "OWASP LLM01: jailbreak personas",
    ),
    _phrase(
        "cn_ignore_instructions",
        "OVERRIDE_PHRASE",
        r"(?:忽略|无视|忘记|忘掉|不要(?:理会|遵守|遵循)|绕过|覆盖)(?:掉)?(?:你)?(?:之前|以上|上述|前面|先前|上面"
        r"|此前|原有|所有|全部|一切|系统){1,3}(?:的)?(?:所有|全部|任何)?(?:的)?(?:系统)?"
        r"(?:指令|提示词?|指示|规则|要求|设定|命令|限制|约束)",
        "OWASP LLM01, in Chinese",
        score=0.7,
    ),
    _phrase(
        "cn_reveal_prompt",
        "OVERRIDE_PHRASE",
        r"(?:输出|显示|告诉我|打印|泄露|重复)(?:你的?|一下|出)?(?:的)?(?:完整|全部|所有|初始|隐藏)?(?:的)?"
        r"(?:系统提示词?|系统指令|初始指令|隐藏指令|内部提示词?)",
        "OWASP LLM07, in Chinese",
    ),
    _phrase(
        "hidden_comment",
        "HIDDEN_MARKUP",
        rf"<!--[^<>]{{0,160}}?{_ORDER}",
        "instructions in an HTML comment",
        score=_LIKELY,
    ),
    _phrase(
        "hidden_element",
        "HIDDEN_MARKUP",
        r"<[a-z][a-z0-9]{0,9} [^<>]{0,160}(?:display ?: ?none|visibility ?: ?hidden|opacity ?: ?0"
        r"(?![.0-9])|font-size ?: ?0(?![.0-9])|color ?: ?(?:white|transparent|#fff(?:fff)?))"
        rf"[^<>]{{0,160}}>[^<>]{{0,120}}?{_ORDER}",
        "instructions in an element that is not shown",
        score=_LIKELY,
    ),
    _phrase(
        "exfil_image",
        "EXFIL_IMAGE",
        r"(?:!\[[^\]\n]{0,100}\]\(|<img[^<>]{0,100}?src ?= ?[\"']?)https?://[^\s()<>\"']{1,150}[?&#]"
        r"[^\s()<>\"'=&]{0,40}=(?:[^\s()<>\"'&]{24,300}|[^\s()<>\"']{0,100}%20[^\s()<>\"']{1,200})\)?",
        "an image is fetched without a click: a long query takes text along (CVE-2025-32711)",
        score=_LIKELY,
    ),
    _phrase(
        "exfil_link",
        "EXFIL_LINK",
        r"(?<!!)\[[^\]\n]{1,100}\]\(https?://[^\s()<>\"']{1,150}[?&#][^\s()<>\"'=&]{0,40}="
        r"[^\s()<>\"'&]{40,300}\)?",
        "a link with a long query takes text along when it is followed",
    ),
)
"""Recognizers of type INJECTION."""

_TAGS = re.compile("[\U000e0020-\U000e007f\U000e0001]{2,512}")
_FLAG = "\U0001f3f4"
_FLAG_TAGS_MAX = 7
_ZERO_WIDTH = "\u200b-\u200f\u2060-\u2064\ufeff\u180e\u00ad"
_ZERO_RUN = re.compile(f"[{_ZERO_WIDTH}]{{8,512}}")
_ZERO_BETWEEN = re.compile(f"(?:[!-~ ][{_ZERO_WIDTH}]{{1,8}}){{12,60}}")
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{3,512}")
_OVERRIDE = re.compile("[\u202d\u202e][^\u202c\n]{0,200}\u202c?")
_PLACES = (
    (_TAGS, "HIDDEN_TAGS", _CERTAIN),
    (_SELECTORS, "HIDDEN_SELECTORS", _CERTAIN),
    (_ZERO_RUN, "HIDDEN_ZERO_WIDTH", _CERTAIN),
    (_ZERO_BETWEEN, "INTERLEAVED_ZERO_WIDTH", _WEAK),
    (_OVERRIDE, "BIDI_OVERRIDE", _LIKELY),
)


def hidden(window: str, core: int) -> list[Finding]:
    """Characters in `window[core:]` that carry text and show none; offsets of the window.

    Unicode tag characters but for the flags made of them, runs of variation selectors and of
    zero-width characters, text between zero-width characters, and bidirectional overrides.
    """
    found: list[Finding] = []
    for pattern, subtype, score in _PLACES:
        for match in pattern.finditer(window):
            start, end = match.span()
            flag = window[start - 1 : start] == _FLAG and end - start <= _FLAG_TAGS_MAX
            if end > core and not (pattern is _TAGS and flag):
                name = subtype.lower()
                found.append(Finding("INJECTION", subtype, max(start, core), end, score, name))
    return found

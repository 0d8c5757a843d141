r"""The policy file: what stands where, and how one file builds on another. PURE.

    version: 1
    name: ward-7
    extends: default                  # a file beside this one, or a policy that ships with Sealgate
    default: {prompt: mask, answer: mask, threshold: 0.5}
    types:
      CREDIT_CARD: {keep_last: 4, threshold: {answer: 0.7}}
      SECRET:
        subtypes:
          JWT: {prompt: block}
    dictionaries: [{name: wards, type: CUSTOM_WARD, terms: [Ward 7, 七病区]}]
    patterns: [{name: staff, type: CUSTOM_STAFF, pattern: 'E[0-9]{6}', score: 0.9}]
    tests: [{text: I am E123456, finds: {CUSTOM_STAFF: E123456}}]

Inheritance: the chain of `extends` is laid over itself, its root first, and for each single field
(an action of a direction, a threshold of a direction, `keep_last`, `replacement`, of the default,
of a type, of a subtype) the file nearest to the named one that gives it wins. Dictionaries and
patterns are taken over whole, by name; one of the same name replaces the inherited one. Tests are
not inherited: a file's own are tried when it is loaded. Only then is looked up: subtype before
type before default.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from compliance.findings import TYPES
from compliance.recognizers.base import NOT_AFTER, NOT_BEFORE
from meshkit.contract import Direction

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "CHAIN_MAX",
    "DICTIONARIES_MAX",
    "PATTERNS_MAX",
    "POLICY_BYTES_MAX",
    "TERMS_MAX",
    "Action",
    "Dictionary",
    "Pattern",
    "PolicyError",
    "PolicyFile",
    "PolicyTest",
    "Rule",
    "TypeRule",
    "read_file",
    "read_yaml",
    "valid",
]

M = TypeVar("M", bound=BaseModel)

POLICY_BYTES_MAX = 256 * 1024
CHAIN_MAX = 8
"""Files in a chain of `extends`, the named one included."""
TERMS_MAX = 20_000
"""Terms of all dictionaries of a policy."""
TERM_CHARS_MAX = 128
PATTERNS_MAX = 100
PATTERN_CHARS_MAX = 512
DICTIONARIES_MAX = 32
TESTS_MAX = 200
TEST_CHARS_MAX = 4_096


class PolicyError(Exception):
    """A policy cannot be used; the text says where and why, and quotes no value of it."""


class Action(StrEnum):
    """What happens to a span."""

    ALLOW = "allow"
    """It passes."""
    FLAG = "flag"
    """It passes, and the record says that it was there."""
    MASK = "mask"
    """Its type stands for it, with its last few characters where `keep_last` says so."""
    REPLACE = "replace"
    """The policy's own fixed text stands for it."""
    HASH = "hash"
    """A short digest under the tenant's key stands for it: equal values look equal."""
    TOKENISE = "tokenise"
    """A token stands for it, from which it can be restored."""
    BLOCK = "block"
    """Nothing of its segment passes, nor what comes after."""


def _both(value: object) -> object:
    """Read one number as that of both directions."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"prompt": value, "answer": value}
    return value


def _listed(value: object) -> object:
    """Read one value as a list of one."""
    return [value] if isinstance(value, str) else value


Name = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,47}$")]
PolicyName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.\-]{0,62}$")]
EntryName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
CustomType = Annotated[str, StringConstraints(pattern=r"^CUSTOM_[A-Z_]{1,17}$")]
"""At most 24 characters, as `[CUSTOM_X]` in a text must be known for a mask of ours."""
Score = Annotated[float, Field(ge=0.0, le=1.0)]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-]{0,62}\.txt$")]
Term = Annotated[
    str, StringConstraints(min_length=2, max_length=TERM_CHARS_MAX, pattern=r"^\S(?:.*\S)?$")
]
Word = Annotated[str, StringConstraints(min_length=1, max_length=48)]
CheckName = Literal[
    "card",
    "cn_resident_18",
    "iban",
    "luhn",
    "mod97",
    "nhs",
    "nl_bsn",
    "plausible_date",
    "random_looking",
    "routing_number",
    "uscc",
]
"""Checksums that a pattern may ask for, as `compliance.policy_finder` has them."""
Replacement = Annotated[str, StringConstraints(max_length=64, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
"""What stands for a value that is replaced: at most 64 characters, none of them a control."""

_STRICT = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class _Model(BaseModel):
    model_config = _STRICT


class Thresholds(_Model):
    """By direction; a finding below it is none."""

    prompt: Score | None = None
    answer: Score | None = None


class Rule(_Model):
    """What is done with a kind of finding; what is not given is asked of a wider rule."""

    prompt: Action | None = None
    answer: Action | None = None
    threshold: Annotated[Thresholds, BeforeValidator(_both)] | None = None
    keep_last: Annotated[int, Field(ge=0, le=4)] | None = None
    replacement: Replacement | None = None


class TypeRule(Rule):
    """A rule of a type, and those of its subtypes."""

    subtypes: dict[Name, Rule] = {}


class _Entry(_Model):
    """What dictionaries and patterns have in common."""

    name: EntryName
    type: Name
    subtype: Name | None = None
    """Not given: the name, in upper case."""
    score: Score = 0.9
    whole_words: bool = True
    """Not within a longer Latin word or number."""

    @model_validator(mode="after")
    def know_the_type(self) -> Self:
        """Refuse a type that is neither ours nor marked as the policy's own."""
        if self.type not in TYPES:
            _CustomOnly.model_validate({"type": self.type})
        return self

    @property
    def kind(self) -> str:
        """The subtype of its findings."""
        return self.subtype or self.name.upper()


class _CustomOnly(_Model):
    type: CustomType


class Dictionary(_Entry):
    """Terms to find. `file`: a text file beside the policy, a term a line, `#` begins a comment."""

    terms: list[Term] = []
    file: FileName | None = None
    case: bool = False
    """Whether upper and lower case differ."""


class Pattern(_Entry):
    """A regular expression to find, of the subset that `compliance.policy_gate` lets in."""

    pattern: Annotated[str, StringConstraints(min_length=2, max_length=PATTERN_CHARS_MAX)]
    context_score: Score | None = None
    """With a word of `context` near by; not given: `score`."""
    context: Annotated[list[Word], Field(max_length=64)] = []
    check: CheckName | None = None
    case: bool = True

    @property
    def expression(self) -> str:
        """The pattern with the boundaries that `whole_words` asks for."""
        bare = self.pattern
        return f"{NOT_BEFORE}(?:{bare}){NOT_AFTER}" if self.whole_words else bare


class PolicyTest(_Model):
    """An example that is tried when the policy is loaded; names are not asked."""

    text: Annotated[str, StringConstraints(max_length=TEST_CHARS_MAX)]
    direction: Direction = Direction.PROMPT
    finds: dict[Name, Annotated[list[str], BeforeValidator(_listed)]] = {}
    """By type, values that must be found."""
    lacks: list[Name] | Literal["any"] = []
    """Types of which nothing may be found; `any`: nothing at all may."""
    becomes: str | None = None
    """What must be left of the text. What depends on a tenant's key is `[TYPE#hash]` here, and
    `[TYPE#token]`."""
    blocked: bool | None = None

    @model_validator(mode="after")
    def expect_something(self) -> Self:
        """Refuse a test that nothing can fail."""
        if not (self.finds or self.lacks or self.becomes is not None or self.blocked is not None):
            msg = "a test expects nothing"
            raise ValueError(msg)
        return self


class PolicyFile(_Model):
    """A policy file, or several laid over each other."""

    version: Literal[1]
    name: PolicyName
    extends: PolicyName | None = None
    default: Rule = Rule()
    types: dict[Name, TypeRule] = {}
    dictionaries: Annotated[list[Dictionary], Field(max_length=DICTIONARIES_MAX)] = []
    patterns: Annotated[list[Pattern], Field(max_length=PATTERNS_MAX)] = []
    tests: Annotated[list[PolicyTest], Field(max_length=TESTS_MAX)] = []

    @model_validator(mode="after")
    def know_names_once(self) -> Self:
        """Refuse two entries of one name: which would win?"""
        names = [entry.name for entry in (*self.dictionaries, *self.patterns)]
        if len(set(names)) < len(names):
            msg = "two dictionaries or patterns have the same name"
            raise ValueError(msg)
        return self


# --- reading --------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases, which can blow up, and without a key twice, which hides one.

    Nor with tags: `!!bool maybe` ends PyYAML with a KeyError.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            msg = "aliases are not read"
            raise yaml.YAMLError(msg)
        if getattr(self.peek_event(), "tag", None) is not None:  # type: ignore[no-untyped-call] # PyYAML has none
            msg = "tags are not read"
            raise yaml.YAMLError(msg)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 -- PyYAML's signature
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if any(not isinstance(key, str) for key in keys) or len(set(keys)) < len(keys):
            msg = "a key is no text, or stands twice"
            raise yaml.YAMLError(msg)
        return super().construct_mapping(node, deep=deep)


def read_yaml(text: str | bytes) -> object:
    """Read YAML of at most `POLICY_BYTES_MAX`.

    Raises:
        PolicyError: too large, or not YAML as we read it.
    """
    if len(text) > POLICY_BYTES_MAX:
        msg = f"policy is larger than {POLICY_BYTES_MAX} bytes"
        raise PolicyError(msg)
    try:
        return yaml.load(text, _Loader)  # noqa: S506 -- a SafeLoader
    except (yaml.YAMLError, ArithmeticError, RecursionError, ValueError):
        msg = "policy is not YAML, or has an alias, a tag or a key twice"
        raise PolicyError(msg) from None


def valid(model: type[M], tree: object) -> M:
    """Check a tree. Raises PolicyError, which names the fields and not their values."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        faults = (
            f"{'.'.join(str(part) for part in fault['loc']) or 'policy'}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise PolicyError("; ".join(faults)) from None


def read_file(text: str | bytes, beside: Callable[[str], bytes] | None = None) -> PolicyFile:
    """Read one policy file; `beside` reads its dictionaries' files by name.

    Raises:
        PolicyError: says which field.
    """
    file = valid(PolicyFile, read_yaml(text))
    whole = [_with_terms(entry, beside) for entry in file.dictionaries]
    return file.model_copy(update={"dictionaries": whole})


def _with_terms(entry: Dictionary, beside: Callable[[str], bytes] | None) -> Dictionary:
    terms = list(entry.terms)
    if entry.file is not None:
        if beside is None:
            msg = f"{entry.name}: there is no folder to read its file from"
            raise PolicyError(msg)
        try:
            lines = beside(entry.file).decode("utf-8-sig").splitlines()
        except UnicodeError:
            msg = f"{entry.name}: its file is not UTF-8"
            raise PolicyError(msg) from None
        terms += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not terms or len(terms) > TERMS_MAX:
        msg = f"{entry.name}: a dictionary has 1 to {TERMS_MAX} terms"
        raise PolicyError(msg)
    tree = {**entry.model_dump(), "terms": sorted(set(terms)), "file": None}
    return valid(Dictionary, tree)

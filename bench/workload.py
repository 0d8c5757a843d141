"""What is asked and answered in the benchmarks: English of exactly 200 characters. PURE.

`prompt(n)` and `answer(n)` are functions of `n` alone and differ from one another in each sentence,
so that no memo of sentences can answer for them. A prompt holds two findings: a person's name, so
that the name model has to be asked, and a card number of a test range with a valid check digit. An
answer names a person too: the model is asked both ways.
"""

from __future__ import annotations

import random

TEXT_CHARS = 200
DISTINCT = 64
"""Prompts in the hit workload."""

_VERBS = ("check", "compare", "confirm", "correct", "review", "settle", "update", "verify")
_THINGS = (
    "the freight bill", "the second invoice", "this refund", "the annual fee", "our last order",
    "the open claim", "the late charge", "that transfer", "the monthly plan", "the new quote",
)  # fmt: skip
_WHENS = (
    "before noon", "this week", "after the audit", "by the deadline", "in the next run",
    "once it is posted", "as agreed earlier", "without delay",
)  # fmt: skip
_WHYS = (
    "because the total looks wrong", "since the amount was doubled", "as the customer asked twice",
    "so that the ledger balances", "because the tax line is missing", "since the rate has changed",
)  # fmt: skip

_FIRST = (
    "Maria", "Thomas", "Anna", "Peter", "Julia", "David", "Laura", "Michael", "Sarah", "Robert",
    "Emma", "James", "Olivia", "Daniel", "Helen", "George",
)  # fmt: skip
_LAST = (
    "Keller", "Johnson", "Schneider", "Williams", "Miller", "Andersson", "Rossi", "Dupont",
    "Novak", "Garcia", "Murphy", "Fischer", "Thompson", "Larsen", "Martinez", "Hughes",
)  # fmt: skip


def prompt(number: int) -> str:
    """Return prompt `number`: 200 characters, ASCII, one person and one card number."""
    dice = random.Random(f"prompt {number}")
    head = f"Please {_phrase(dice)} for {_person(dice)}. The card number is {_card(dice)}. "
    return _filled(head, dice)


def answer(number: int) -> str:
    """Return answer `number`: 200 characters, ASCII, one person in it."""
    dice = random.Random(f"answer {number}")
    return _filled(f"We told {_person(dice)} that we {_phrase(dice)}. ", dice)


def tokens(text: str, size: int = 4) -> list[str]:
    """Cut a text into pieces of `size` characters: about what a model's tokens are in English."""
    return [text[start : start + size] for start in range(0, len(text), size)]


def _person(dice: random.Random) -> str:
    return f"{dice.choice(_FIRST)} {dice.choice(_LAST)}"


def _phrase(dice: random.Random) -> str:
    ticket = dice.randrange(10**5)
    parts = (dice.choice(_VERBS), dice.choice(_THINGS), f"of batch {ticket}", dice.choice(_WHENS))
    return " ".join(parts)


def _filled(text: str, dice: random.Random) -> str:
    while len(text) < TEXT_CHARS:
        text += f"Then {_phrase(dice)} {dice.choice(_WHYS)}. "
    return text[: TEXT_CHARS - 1].rstrip(" .").ljust(TEXT_CHARS - 1, "s") + "."


def _card(dice: random.Random) -> str:
    body = f"411111{dice.randrange(10**9):09d}"
    digits = body + str(_check_digit(body))
    return " ".join(digits[start : start + 4] for start in range(0, 16, 4))


def _check_digit(body: str) -> int:
    """Luhn (ISO/IEC 7812-1, annex B): every second digit from the right is doubled."""
    total = 0
    for place, character in enumerate(reversed(body)):
        digit = int(character) * (2 if place % 2 == 0 else 1)
        total += digit - 9 if digit > 9 else digit
    return -total % 10

"""Texts that look like personal data and hold none, made from templates and a seed.

    python tests/compliance/hard_negatives.py > FILE      one record a line, for `evaluate --gold`

Fields: {d8} digits, {a5} small letters, {A3} capitals, {hex32}, {uuid}, {ver}, {date}, {time},
{iso}, {epoch}, {year}, {amount}.
"""

import json
import random
import re
import sys
import uuid
from pathlib import Path

SEED = 20_261_122
FILLINGS = 4
TEMPLATES = Path(__file__).with_name("data") / "hard_negatives.txt"
FIELD = re.compile(r"\{([a-zA-Z]+?)([0-9]*)\}")
SYLLABLES = ("ba", "co", "di", "fu", "ge", "lo", "mi", "nu", "pa", "re", "si", "to", "ve", "xu")


def word(rng, size):
    return "".join(rng.choices(SYLLABLES, k=size))[:size]


def field(rng, name, size):
    kinds = {
        "d": lambda: str(rng.randint(1, 9)) + "".join(rng.choices("0123456789", k=size - 1)),
        "a": lambda: word(rng, size),
        "A": lambda: "".join(rng.choices("ABCDEFGHJKLMNPQRSTUVWX", k=size)),
        "hex": lambda: "".join(rng.choices("0123456789abcdef", k=size)),
        "uuid": lambda: str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        "ver": lambda: f"{rng.randint(0, 19)}.{rng.randint(0, 30)}.{rng.randint(0, 60)}",
        "year": lambda: str(rng.randint(1990, 2026)),
        "epoch": lambda: str(rng.randint(1_400_000_000, 1_790_000_000)),
        "amount": lambda: f"{rng.randint(1, 999)},{rng.randint(100, 999)}.{rng.randint(10, 99)}",
        "time": lambda: f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}",
        "date": lambda: (
            f"{rng.randint(2019, 2027)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
        ),
    }
    if name == "iso":
        return (
            f"{kinds['date']()}T{kinds['time']()}:{rng.randint(0, 59):02}.{rng.randint(0, 999):03}Z"
        )
    return kinds[name]()


def fill(template, rng):
    text = template.replace("\\n", "\n").replace("\\t", "\t")
    text = FIELD.sub(lambda m: field(rng, m[1], int(m[2] or 0)), text)
    return text.replace("{{", "{").replace("}}", "}")


def templates():
    """(language, template) of each."""
    english, chinese = TEMPLATES.read_text("utf-8").split("\n\n")
    for lang, block in (("en", english), ("zh", chinese)):
        for line in block.splitlines():
            if not line.startswith("# "):
                yield lang, line


def records():
    """All records, the same each time."""
    for number, (lang, template) in enumerate(templates()):
        rng = random.Random(f"{SEED}/{template}")
        for filling in range(FILLINGS):
            yield {
                "id": f"hard-{number}-{filling}",
                "text": fill(template, rng),
                "lang": lang,
                "source": "hard_negatives",
                "spans": [],
                "tags": ["hard_negative"],
            }


if __name__ == "__main__":
    for record in records():
        sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")

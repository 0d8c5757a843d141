"""Disguised values in English and Chinese sentences, made from a seed.

    python tests/compliance/adversarial.py > FILE      one record a line, for `evaluate --gold`

Each technique is a function from a value to its disguise; a record plants one in a sentence.
"""

import base64
import json
import random
import sys
from functools import partial

SEED = 20_261_122
PER_TECHNIQUE = 36

LOOKALIKE = str.maketrans("aceopxyi", "асеорхуі")
GREEK = str.maketrans("aoiv", "αοιν")
FULL_WIDTH = str.maketrans(
    "0123456789@.-", "".join(chr(ord(c) - 0x20 + 0xFF00) for c in "0123456789@.-")
)
CIRCLED = str.maketrans("123456789", "①②③④⑤⑥⑦⑧⑨")
RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
ARABIC = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
BOLD = {
    **{ord("a") + i: 0x1D41A + i for i in range(26)},
    **{ord("0") + i: 0x1D7CE + i for i in range(10)},
}
HAN = str.maketrans("0123456789", "〇一二三四五六七八九")
BANKING = str.maketrans("0123456789", "零壹贰叁肆伍陆柒捌玖")
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def luhn_complete(rng, prefix, size):
    digits = prefix + "".join(rng.choices("0123456789", k=size - 1 - len(prefix)))
    total = 0
    for i, d in enumerate(reversed(digits)):
        n = int(d) * (2 if i % 2 == 0 else 1)
        total += n - 9 if n > 9 else n
    return digits + str(-total % 10)


def card(rng):
    d = luhn_complete(rng, rng.choice(["4", "51", "55", "6011", "62"]), 16)
    return " ".join(d[i : i + 4] for i in range(0, 16, 4))


def iban(rng):
    bank = "".join(rng.choices("0123456789", k=18))
    check = 98 - int(bank + "131400") % 97
    value = f"DE{check:02}{bank}"
    return " ".join(value[i : i + 4] for i in range(0, 22, 4))


def ssn(rng):
    return f"{rng.randint(101, 665)}-{rng.randint(11, 98)}-{rng.randint(1001, 9998)}"


def us_phone(rng):
    return f"{rng.choice([212, 312, 415, 617])}-{rng.randint(222, 998)}-{rng.randint(1000, 9999)}"


def cn_mobile(rng):
    return f"1{rng.choice('3589')}{rng.randint(0, 999_999_999):09}"


def cn_id(rng):
    body = rng.choice(["110105", "310104", "440305", "510107"])
    body += f"19{rng.randint(50, 99)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}"
    body += f"{rng.randint(1, 999):03}"
    total = sum(int(d) * pow(2, 17 - i, 11) for i, d in enumerate(body))
    return body + "10X98765432"[total % 11]


def email(rng):
    first = rng.choice(["ada", "grace", "wang.wei", "li_na", "max.power", "zoe", "tariq"])
    host = rng.choice(["example", "mail.example", "initech", "hooli"])
    return f"{first}@{host}.{rng.choice(['org', 'com', 'net', 'de', 'cn'])}"


VALUES = {
    "CREDIT_CARD": card,
    "IBAN": iban,
    "US_SSN": ssn,
    "PHONE": us_phone,
    "CN_PHONE": cn_mobile,
    "CN_RESIDENT_ID": cn_id,
    "EMAIL": email,
}
TYPE = {"CN_PHONE": "PHONE"}
LABEL = {
    "CREDIT_CARD": ("card", "银行卡"),
    "IBAN": ("IBAN", "账号"),
    "US_SSN": ("social security number", "社会安全号码"),
    "PHONE": ("phone", "电话"),
    "CN_PHONE": ("mobile", "手机"),
    "CN_RESIDENT_ID": ("resident id", "身份证"),
    "EMAIL": ("e-mail", "邮箱"),
}
SENTENCES = {
    "en": (
        "Please update my {label}: {value} and confirm.",
        "Hi, the {label} on file is {value}, thanks.",
        "She gave us her {label} {value} yesterday, so that we could go on with the request.",
        "Note to self.\n{label}: {value}\nCall back on Monday.",
    ),
    "zh": (
        "您好，我的{label}是{value}，请更新。",
        "客户的{label}：{value}。请尽快处理。",
        "他昨天把{label}{value}发给了我们。",
        "备忘\n{label}：{value}\n周一回电",
    ),
}

NUMBERS = ("CREDIT_CARD", "US_SSN", "PHONE", "CN_PHONE", "CN_RESIDENT_ID")
GROUPED = ("CREDIT_CARD", "US_SSN", "PHONE", "IBAN")
ALL = (*NUMBERS, "IBAN", "EMAIL")


def bare(value):
    return value.replace(" ", "").replace("-", "")


def interleave(mark, value, _rng):
    return mark.join(value)


def join_groups(mark, value, _rng):
    return mark.join(value.replace("-", " ").split(" "))


def spaced(mark, value, _rng):
    return mark.join(bare(value))


def translated(table, value, _rng):
    return value.translate(table)


def broken(mark, value, rng):
    at = rng.randint(4, len(value) - 4)
    return value[:at].rstrip(" -") + mark + value[at:].lstrip(" -")


def bold_half(value, _rng):
    half = len(value) // 2
    return f"**{value[:half].rstrip(' -')}**{value[half:]}"


def tagged(value, _rng):
    return " ".join(f"<b>{part}</b>" for part in value.replace("-", " ").split(" "))


def inside_tag(value, rng):
    at = rng.randint(3, len(value) - 3)
    return f"{value[:at]}<span>{value[at]}</span>{value[at + 1 :]}"


def commented(value, rng):
    at = rng.randint(3, len(value) - 3)
    return f"{value[:at]}<!-- x -->{value[at:]}"


def words(value, _rng):
    return " ".join(WORDS[int(d)] for d in bare(value))


def leet(value, rng):
    places = [i for i, c in enumerate(value) if c in "015"]
    for i in rng.sample(places, min(3, len(places))):
        value = value[:i] + {"0": "O", "1": "l", "5": "S"}[value[i]] + value[i + 1 :]
    return value


def spoken(at, dot, value, _rng):
    return value.replace("@", at).replace(".", dot)


def spaced_marks(value, _rng):
    return value.replace("@", " @ ").replace(".", " . ")


def wide_marks(value, _rng):
    local, _, host = value.partition("@")
    return f"{local}＠{host.replace('.', '。')}"


def b64(value, _rng):
    return base64.b64encode(value.encode()).decode()


def b64_bare(value, _rng):
    return base64.urlsafe_b64encode(value.encode()).decode().rstrip("=")


def b64_sentence(value, _rng):
    return base64.b64encode(f"here it is: {value}, ok?".encode()).decode()


def hexed(mark, value, _rng):
    return value.encode().hex(mark) if mark else value.encode().hex()


def percent_all(value, _rng):
    return "".join(f"%{ord(c):02X}" for c in value)


def percent_some(value, _rng):
    return "".join(f"%{ord(c):02X}" if not c.isalnum() else c for c in value)


def entities(form, value, rng):
    return "".join(form.format(ord(c)) if rng.random() < 0.6 else c for c in value)


def escapes(form, value, rng):
    return "".join(form.format(ord(c)) if rng.random() < 0.6 else c for c in value)


def quoted(value, _rng):
    return "".join(f"={ord(c):02X}" for c in value)


def nested(value, rng):
    return b64(percent_all(value, rng), rng)


def escaped_marks(value, _rng):
    return "".join(f"\\{c}" if c in "-._@" else c for c in value.replace(" ", "-"))


def backticks(value, _rng):
    return "".join(f"`{part}`" for part in value.replace("-", " ").split(" "))


TECHNIQUES = {
    "zero width": (ALL, partial(interleave, "\u200b")),
    "zero width joiners": (ALL, partial(interleave, "\u200d\u2060")),
    "soft hyphens": (ALL, partial(interleave, "\u00ad")),
    "bidi controls": (ALL, lambda value, _: f"\u2067{value[:5]}\u2069\u200f{value[5:]}\u200e"),
    "combining strokes": (ALL, partial(interleave, "\u0336")),
    "variation selectors": (NUMBERS, partial(interleave, "\ufe0e")),
    "Hangul fillers": (NUMBERS, partial(interleave, "\u3164")),
    "full width": (ALL, partial(translated, FULL_WIDTH)),
    "circled digits": (NUMBERS, partial(translated, CIRCLED)),
    "raised digits": (NUMBERS, partial(translated, RAISED)),
    "Arabic digits": (NUMBERS, partial(translated, ARABIC)),
    "mathematical bold": (ALL, partial(translated, BOLD)),
    "keycaps": (NUMBERS, lambda value, _: "".join(f"{c}\ufe0f\u20e3" for c in bare(value)[:-1])
                + bare(value)[-1]),
    "Cyrillic look-alikes": (("EMAIL",), partial(translated, LOOKALIKE)),
    "Greek look-alikes": (("EMAIL",), partial(translated, GREEK)),
    "odd dashes": (("US_SSN", "PHONE"), lambda value, _: value.replace("-", "\u2013")),
    "spaced digits": (NUMBERS, partial(spaced, " ")),
    "dotted digits": (NUMBERS, partial(spaced, ".")),
    "underscored digits": (NUMBERS, partial(spaced, "_")),
    "commas between digits": (NUMBERS, partial(spaced, ", ")),
    "dots between groups": (GROUPED, partial(join_groups, ".")),
    "underscores between groups": (GROUPED, partial(join_groups, "_")),
    "middle dots between groups": (GROUPED, partial(join_groups, "·")),
    "bars between groups": (("CREDIT_CARD",), partial(join_groups, " | ")),
    "spaced dashes between groups": (("CREDIT_CARD",), partial(join_groups, " - ")),
    "line break": (("CREDIT_CARD", "US_SSN", "CN_PHONE", "CN_RESIDENT_ID"), partial(broken, "\n")),
    "line break and space": (("CREDIT_CARD", "CN_PHONE", "CN_RESIDENT_ID"),
                             partial(broken, " \n  ")),
    "quoted line break": (("CREDIT_CARD", "CN_PHONE", "CN_RESIDENT_ID"), partial(broken, "\n> ")),
    "one digit a line": (("CREDIT_CARD", "CN_PHONE", "CN_RESIDENT_ID"), partial(spaced, "\n")),
    "bold half": (NUMBERS, bold_half),
    "bold tags": (GROUPED[:3], tagged),
    "tag inside": (ALL, inside_tag),
    "comment inside": (ALL, commented),
    "backticks": (("CREDIT_CARD", "PHONE"), backticks),
    "escaped marks": (ALL, escaped_marks),
    "digits as words": (("CREDIT_CARD", "US_SSN", "PHONE", "CN_PHONE"), words),
    "Chinese numerals": (("CN_PHONE", "CREDIT_CARD"), lambda v, _: bare(v).translate(HAN)),
    "Chinese banking numerals": (("CN_PHONE", "CREDIT_CARD"),
                                 lambda v, _: bare(v).translate(BANKING)),
    "letters for digits": (("CREDIT_CARD", "CN_PHONE"), leet),
    "[at] [dot]": (("EMAIL",), partial(spoken, " [at] ", " [dot] ")),
    "at dot": (("EMAIL",), partial(spoken, " at ", " dot ")),
    "AT DOT": (("EMAIL",), partial(spoken, " AT ", " DOT ")),
    "(at) only": (("EMAIL",), partial(spoken, "(at)", ".")),
    "艾特 点": (("EMAIL",), partial(spoken, "艾特", "点")),
    "spaces around @": (("EMAIL",), spaced_marks),
    "wide @ and stop": (("EMAIL",), wide_marks),
    "letters spread out": (("EMAIL",), lambda value, _: " ".join(value)),
    "Base64": (ALL, b64),
    "Base64, URL-safe, bare": (ALL, b64_bare),
    "Base64 of a sentence": (ALL, b64_sentence),
    "hex": (ALL, partial(hexed, "")),
    "hex with spaces": (ALL, partial(hexed, " ")),
    "hex with colons": (ALL, partial(hexed, ":")),
    "percent, all": (ALL, percent_all),
    "percent, marks": (("EMAIL",), percent_some),
    "HTML entities": (ALL, partial(entities, "&#{};")),
    "HTML entities, hex": (ALL, partial(entities, "&#x{:x};")),
    "&nbsp;": (("CREDIT_CARD", "IBAN"), lambda value, _: value.replace(" ", "&nbsp;")),
    "\\u escapes": (ALL, partial(escapes, "\\u{:04x}")),
    "\\x escapes": (ALL, partial(escapes, "\\x{:02x}")),
    "quoted-printable": (ALL, quoted),
    "Base64 of percent": (ALL, nested),
}  # fmt: skip


def records():
    """All records, the same each time."""
    for name, (kinds, disguise) in TECHNIQUES.items():
        rng = random.Random(f"{SEED}/{name}")
        for number in range(PER_TECHNIQUE):
            kind = kinds[number % len(kinds)]
            lang = ("en", "zh")[number // len(kinds) % 2]
            value = disguise(VALUES[kind](rng), rng)
            sentence = rng.choice(SENTENCES[lang])
            label = LABEL[kind][lang == "zh"]
            before = sentence[: sentence.index("{value}")].replace("{label}", label)
            text = before + value + sentence[sentence.index("{value}") + 7 :]
            span = {"start": len(before), "end": len(before) + len(value)}
            yield {
                "id": f"adversarial-{name}-{number}",
                "text": text,
                "lang": lang,
                "source": "adversarial",
                "spans": [span | {"type": TYPE.get(kind, kind)}],
                "tags": ["adversarial", name],
            }


if __name__ == "__main__":
    for record in records():
        sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")

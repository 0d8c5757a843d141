"""False alarms: what the default policy would mask or stop in texts that hold nothing personal."""

import runpy
from collections import defaultdict
from pathlib import Path

from compliance.policy import Action
from compliance.scanner import findings_of
from meshkit.contract import Direction

_SET = runpy.run_path(str(Path(__file__).with_name("hard_negatives.py")))
records, templates = _SET["records"], _SET["templates"]
ALARMS_MAX = 0.03


async def alarms(scanner, found):
    """Texts with a finding that would not pass, by what was found."""
    out = defaultdict(list)
    for record in found:
        text = record["text"]
        windows = scanner.windows(text)
        for finding in findings_of(windows, await scanner.scan(windows, Direction.PROMPT)):
            decision = scanner.policy.decide(finding.type, finding.subtype, Direction.PROMPT)
            if decision.action not in {Action.ALLOW, Action.FLAG}:
                out[text].append((finding.recognizer, text[finding.start : finding.end]))
    return out


async def test_patterns_raise_few_alarms(scanner):
    found = list(records())
    raised = await alarms(scanner, found)

    assert len(raised) <= ALARMS_MAX * len(found), dict(raised)


async def test_names_and_patterns_raise_few_alarms(naming_scanner):
    found = list(records())[::2]
    raised = await alarms(naming_scanner, found)

    assert len(raised) <= ALARMS_MAX * len(found), dict(raised)


def test_there_are_enough_templates_in_both_languages():
    by_language = defaultdict(set)
    for lang, template in templates():
        by_language[lang].add(template)

    assert sum(map(len, by_language.values())) >= 150
    assert min(map(len, by_language.values())) >= 40

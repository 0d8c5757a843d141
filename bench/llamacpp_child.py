"""llama.cpp by itself: answers lines on standard input. Runs in an environment of its own.

    var/llamacpp/.venv/bin/python bench/llamacpp_child.py GGUF THREADS

First line out: `{"version"}`. Then `{"first_s", "tokens_per_s"}` for each line in, `{"prompt",
"tokens"}`: greedy, the time to the first token with tokenising, the rate without it. The prompt is
text with the template's marks in it.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from typing import Any


def main() -> None:
    """Load the model, then answer until standard input ends."""
    from llama_cpp import Llama  # noqa: PLC0415 -- not of the environment that checks this file

    model = Llama(sys.argv[1], n_ctx=2_048, n_threads=int(sys.argv[2]), verbose=False)
    tell({"version": version("llama-cpp-python")})
    for line in sys.stdin:
        asked = json.loads(line)
        model.reset()
        began = time.perf_counter()
        prompt = model.tokenize(asked["prompt"].encode(), add_bos=False, special=True)
        tokens = model.generate(prompt, temp=0.0, top_k=1)
        next(tokens)
        first = time.perf_counter()
        for _ in range(asked["tokens"] - 1):
            next(tokens)
        rate = (asked["tokens"] - 1) / (time.perf_counter() - first)
        told = {"first_s": first - began, "tokens_per_s": rate, "prompt_tokens": len(prompt)}
        tell(told)


def tell(what: dict[str, Any]) -> None:
    """Write a line."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

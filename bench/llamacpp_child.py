"""llama.cpp by itself: answers lines on standard input. Runs in an environment of its own.

    var/llamacpp/.venv/bin/python bench/llamacpp_child.py GGUF THREADS

First line out: `{"version"}`. Then `{"first_s", "tokens_per_s", "prompt_tokens"}` for each line in,
`{"prompt", "tokens", "streams"}`: greedy, the time to the first token with tokenising, the rate
without it. Several streams are decoded in one batch. The prompt is text with the template's marks
in it.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

CONTEXT_TOKENS = 512
"""Of one stream among several."""


def main() -> None:
    """Load the model, then answer until standard input ends."""
    from llama_cpp import Llama  # noqa: PLC0415 -- not of the environment that checks this file

    model = Llama(sys.argv[1], n_ctx=2_048, n_threads=int(sys.argv[2]), verbose=False)
    tell({"version": version("llama-cpp-python")})
    batches: dict[int, Batch] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        streams = asked["streams"]
        if streams == 1:
            tell(alone(model, asked["prompt"], asked["tokens"]))
            continue
        if streams not in batches:
            batches[streams] = Batch(model, streams, threads=int(sys.argv[2]))
        tell(batches[streams].answer(asked["prompt"], asked["tokens"]))


def alone(model: Any, asked: str, count: int) -> dict[str, float]:  # noqa: ANN401 -- see `main`
    """Answer one prompt as llama-cpp-python does by itself."""
    model.reset()
    began = time.perf_counter()
    prompt = model.tokenize(asked.encode(), add_bos=False, special=True)
    tokens = model.generate(prompt, temp=0.0, top_k=1)
    next(tokens)
    first = time.perf_counter()
    for _ in range(count - 1):
        next(tokens)
    rate = (count - 1) / (time.perf_counter() - first)
    return {"first_s": first - began, "tokens_per_s": rate, "prompt_tokens": len(prompt)}


class Batch:
    """A context in which so many streams are decoded together, one token each a step."""

    def __init__(self, model: Any, streams: int, *, threads: int) -> None:  # noqa: ANN401
        import llama_cpp  # noqa: PLC0415 -- not of the environment that checks this file
        import numpy as np  # noqa: PLC0415

        self._cpp, self._np, self._model = llama_cpp, np, model
        self._streams = range(streams)
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = streams * CONTEXT_TOKENS
        settings.n_seq_max = streams
        settings.n_threads = settings.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(model.model, settings)
        self._batch = llama_cpp.llama_batch_init(CONTEXT_TOKENS, 0, 1)

    def answer(self, asked: str, count: int) -> dict[str, float]:
        """Answer a prompt as often as there are streams."""
        began = time.perf_counter()
        prompt = self._model.tokenize(asked.encode(), add_bos=False, special=True)
        memory = self._cpp.llama_get_memory(self._context)
        self._cpp.llama_memory_clear(memory, False)  # noqa: FBT003 -- a C function
        places = range(len(prompt))
        last = [
            self._step([(token, at, stream) for token, at in zip(prompt, places, strict=True)])[-1]
            for stream in self._streams
        ]
        first = time.perf_counter()
        for at in range(len(prompt), len(prompt) + count - 1):
            last = self._step([(token, at, n) for n, token in enumerate(last)])
        rate = len(self._streams) * (count - 1) / (time.perf_counter() - first)
        return {"first_s": first - began, "tokens_per_s": rate, "prompt_tokens": len(prompt)}

    def _step(self, rows: Sequence[tuple[int, int, int]]) -> list[int]:
        """Decode (token, place, stream) of each row; return the likeliest next one of each.

        Only the last row of a stream is asked what comes next: of all others it is token 0.
        """
        batch, asked = self._batch, []
        ends = {stream: row for row, (_, _, stream) in enumerate(rows)}
        batch.n_tokens = len(rows)
        for row, (token, place, stream) in enumerate(rows):
            batch.token[row], batch.pos[row] = token, place
            batch.n_seq_id[row], batch.seq_id[row][0] = 1, stream
            batch.logits[row] = ends[stream] == row
            asked.append(ends[stream] == row)
        if self._cpp.llama_decode(self._context, batch) != 0:
            msg = "llama.cpp could not decode a batch"
            raise RuntimeError(msg)
        return [self._likeliest(row) if wanted else 0 for row, wanted in enumerate(asked)]

    def _likeliest(self, row: int) -> int:
        logits = self._cpp.llama_get_logits_ith(self._context, row)
        return int(self._np.argmax(self._np.ctypeslib.as_array(logits, (self._model.n_vocab(),))))


def tell(what: dict[str, Any]) -> None:
    """Write a line."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

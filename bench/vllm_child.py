"""vLLM by itself, on random weights and random tokens; may run in an environment of its own.

    python bench/vllm_child.py '{"config": {…}, "slots": [1, 8], "prompt": 256, "answer": 200}'

Started by `bench.gpu_peers`. vLLM compiles the model and captures whole graphs of these numbers of
rows; everything is in this process, without a tokenizer. Standard output: `{"version", "ready_s"}`,
then for each number of slots `{"slots", "prefill_s", "all_s"}`, the shortest of the rounds for an
answer of one token and for one of `answer` more; each behind MARK. Other lines are vLLM's own.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROUNDS = 3
MARK = "sealgate-figure "
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
}
"""In process, as our engine is; greedy answers need no sampler of flashinfer's."""


def main() -> None:
    """Load, compile, and measure each number of slots."""
    asked = json.loads(sys.argv[1])
    os.environ.update(ENVIRONMENT)
    began = time.perf_counter()
    with TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(asked["config"]), encoding="utf-8")
        llm = loaded(folder, asked)
        tell({"version": version("vllm"), "ready_s": time.perf_counter() - began})
        for slots in asked["slots"]:
            taken(llm, asked, slots, 8)
            first = min(taken(llm, asked, slots, 1) for _ in range(ROUNDS))
            whole = min(taken(llm, asked, slots, 1 + asked["answer"]) for _ in range(ROUNDS))
            tell({"slots": slots, "prefill_s": first, "all_s": whole})


def loaded(folder: str, asked: dict[str, Any]) -> Any:  # noqa: ANN401 -- vLLM is not of the environment that checks this file
    """Make a model of random weights, compiled and captured."""
    from vllm import LLM  # noqa: PLC0415 -- see above

    return LLM(
        model=folder,
        load_format="dummy",
        skip_tokenizer_init=True,
        dtype="bfloat16",
        max_model_len=asked["config"]["max_position_embeddings"],
        max_num_seqs=max(asked["slots"]),
        gpu_memory_utilization=0.5,
        enable_prefix_caching=False,
        disable_log_stats=True,
        seed=0,
        compilation_config={"cudagraph_capture_sizes": asked["slots"]},
    )


def taken(llm: Any, asked: dict[str, Any], slots: int, tokens: int) -> float:  # noqa: ANN401 -- see above
    """Seconds for that many answers of that many tokens, all asked for at once."""
    from vllm import SamplingParams  # noqa: PLC0415 -- see above

    source = random.Random(slots)
    vocabulary = range(2, asked["config"]["vocab_size"])
    prompts = [
        {"prompt_token_ids": source.choices(vocabulary, k=asked["prompt"])} for _ in range(slots)
    ]
    greedy = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False)
    began = time.perf_counter()
    llm.generate(prompts, greedy, use_tqdm=False)
    return time.perf_counter() - began


def tell(what: dict[str, Any]) -> None:
    """Write a line."""
    sys.stdout.write(f"\n{MARK}{json.dumps(what)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

"""transformers by itself, in fp32, on a GGUF file's weights: answers lines on standard input.

    python -m bench.transformers_child GGUF THREADS        started by `bench.decode` only

Lines are those of `bench.llamacpp_child`. The matrices are dequantised once, so the weights are the
same numbers; keys and values are kept from token to token, as `generate` does by itself.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from inference.precision.source import config_of, read_gguf_source


def main() -> None:
    """Load the model, then answer until standard input ends."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import transformers  # noqa: PLC0415 -- asks for the variable above as it is imported

    torch.set_num_threads(int(sys.argv[2]))
    source = read_gguf_source(Path(sys.argv[1]))
    config = transformers.LlamaConfig(**config_of(source.architecture, ends=source.ends))
    model: torch.nn.Module = transformers.LlamaForCausalLM(config)
    model.eval()
    left_out, unknown = model.load_state_dict(source.state, strict=False)
    if set(left_out) - {"lm_head.weight"} or unknown:
        msg = "transformers has other tensors than the file"
        raise RuntimeError(msg)
    model.tie_weights()  # type: ignore[operator] # transformers' own, of its models
    encoder = source.encoder()
    tell({"version": transformers.__version__})
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.perf_counter()
        prompt = encoder.encode(asked["prompt"], add_special_tokens=False).ids
        tell(answer(model, prompt, asked["tokens"], began))


@torch.inference_mode()
def answer(model: Any, prompt: list[int], tokens: int, began: float) -> dict[str, Any]:  # noqa: ANN401 -- transformers' classes are untyped
    """Answer greedily; see the module."""
    told = model(torch.tensor([prompt]), use_cache=True, logits_to_keep=1)
    drawn = [int(told.logits[0, -1].argmax())]
    first = time.perf_counter()
    while len(drawn) < tokens:
        told = model(torch.tensor([drawn[-1:]]), past_key_values=told.past_key_values)
        drawn.append(int(told.logits[0, -1].argmax()))
    rate = (tokens - 1) / (time.perf_counter() - first)
    return {"first_s": first - began, "tokens_per_s": rate, "prompt_tokens": len(prompt)}


def tell(what: dict[str, Any]) -> None:
    """Write a line."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

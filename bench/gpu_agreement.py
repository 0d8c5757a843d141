"""What a precision costs a real model on a GPU: perplexity, and agreement with fp32.

    python -m bench.gpu_agreement --gguf SmolLM2-135M-Instruct.Q4_1.gguf --text docs/*.md

The text is cut into stretches of 512 tokens. Agreement: at how many positions the likeliest next
token is that of the fp32 reference, which sees the same stretch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 -- everybody's name for it

from bench.gpu import reference
from inference.engines.cuda.device import from_codes
from inference.engines.cuda.products import to_fp8
from inference.engines.cuda.runner import CudaRunner
from inference.gguf_file import read_gguf
from inference.registry import load_manifest
from inference.tokenizer import load_tokenizer
from inference.weights import load_weights

STRETCH_TOKENS = 512


def main() -> None:
    """Print a line a precision."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--stretches", type=int, default=40, help="of 512 tokens, at most")
    args = parser.parse_args()
    file = read_gguf(args.gguf)
    digest = load_manifest("smollm2-135m-instruct").template_sha256
    tokenizer = load_tokenizer(file, template_sha256=digest)
    text = "\n".join(path.read_text(encoding="utf-8") for path in args.text)
    tokens = tokenizer.encode(text)
    count = min(args.stretches, len(tokens) // STRETCH_TOKENS)
    stretches = [tokens[n * STRETCH_TOKENS :][:STRETCH_TOKENS] for n in range(count)]
    with torch.inference_mode():
        coded = load_weights(file)
        plain = from_codes(coded, device="cuda")
        truth = [
            reference(from_codes(coded, device="cuda", dtype=torch.float32), s) for s in stretches
        ]
        print(f"{'fp32':6} perplexity {_perplexity(truth, stretches):.3f}")
        for name, weights in (("bf16", plain), ("fp8", to_fp8(plain))):
            runner = CudaRunner(weights, slots=1, context_tokens=STRETCH_TOKENS)
            told = [runner.score(stretch).float() for stretch in stretches]
            same = [
                (a.argmax(1) == b.argmax(1)).float().mean()
                for a, b in zip(told, truth, strict=True)
            ]
            print(
                f"{name:6} perplexity {_perplexity(told, stretches):.3f}  "
                f"agreement {float(torch.stack(same).mean()):.2%} "
                f"of {count * STRETCH_TOKENS} positions"
            )


def _perplexity(logits: list[torch.Tensor], stretches: list[list[int]]) -> float:
    losses = [
        F.cross_entropy(rows[:-1], torch.tensor(stretch[1:], device=rows.device))
        for rows, stretch in zip(logits, stretches, strict=True)
    ]
    return float(torch.stack(losses).mean().exp())


if __name__ == "__main__":
    main()

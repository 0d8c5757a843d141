"""From logits to the next token, on the device."""

from __future__ import annotations

import triton
import triton.language as tl

from inference.engines.cuda.kernels.chain import gdc_launch_dependents, gdc_wait

__all__ = ["sample"]

LEAST_SHARE = tl.constexpr(-30.0)
"""In nucleus sampling: e^-30 of the likeliest token's mass is nothing."""


@triton.jit
def sample(
    logits, rows_of, tokens, results, positions, temperatures, top_ps, seeds, vocabulary,
    rounds: tl.constexpr, block: tl.constexpr, chained: tl.constexpr,
):  # fmt: skip
    """Draw each row's next token and move its position on. One program a row.

    Temperature 0: the likeliest. Otherwise the nucleus, whose threshold is found by halving
    (`rounds` times, over 30 nats below the likeliest; equals of its last token are in), then the
    largest of logit + Gumbel noise, Philox by (seed, position): the same alone and in company.
    `results` gets -1 where a logit is no finite number.
    """
    row = tl.program_id(0)
    if chained:
        gdc_launch_dependents()
        gdc_wait()
    slot = tl.load(rows_of + row)
    position = tl.load(positions + slot)
    if position >= 0:
        at = logits + row.to(tl.int64) * vocabulary
        lane = tl.arange(0, block)
        best = -float("inf")
        chosen = 0
        bad = 0
        for start in range(0, vocabulary, block):
            mask = (start + lane) < vocabulary
            x = tl.load(at + start + lane, mask=mask, other=-float("inf")).to(tl.float32)
            odd = mask & ((x != x) | (tl.abs(x) == float("inf")))
            bad += tl.sum(odd.to(tl.int32), 0)
            top = tl.max(x, 0)
            if top > best:
                best = top
                chosen = start + tl.argmax(x, 0).to(tl.int32)
        temperature = tl.load(temperatures + slot)
        if (temperature > 0.0) & (bad == 0):
            top_p = tl.load(top_ps + slot)
            low = LEAST_SHARE
            if top_p < 1.0:
                total = 0.0
                for start in range(0, vocabulary, block):
                    mask = (start + lane) < vocabulary
                    x = tl.load(at + start + lane, mask=mask, other=-float("inf")).to(tl.float32)
                    total += tl.sum(tl.exp((x - best) / temperature), 0)
                high = 0.0
                for _ in range(rounds):
                    middle = (low + high) * 0.5
                    mass = 0.0
                    for start in range(0, vocabulary, block):
                        mask = (start + lane) < vocabulary
                        x = tl.load(at + start + lane, mask=mask, other=-float("inf"))
                        z = (x.to(tl.float32) - best) / temperature
                        mass += tl.sum(tl.where(z >= middle, tl.exp(z), 0.0), 0)
                    if mass >= top_p * total:
                        low = middle
                    else:
                        high = middle
            else:
                low = -float("inf")
            seed = tl.load(seeds + slot) + position.to(tl.int64) * 0x5851F42D4C957F2D
            luck = -float("inf")
            for start in range(0, vocabulary, block):
                mask = (start + lane) < vocabulary
                x = tl.load(at + start + lane, mask=mask, other=-float("inf")).to(tl.float32)
                z = (x - best) / temperature
                noise = -tl.log(-tl.log(tl.maximum(tl.rand(seed, start + lane), 1e-20)))
                score = tl.where(mask & (z >= low), z + noise, -float("inf"))
                top = tl.max(score, 0)
                if top > luck:
                    luck = top
                    chosen = start + tl.argmax(score, 0).to(tl.int32)
        tl.store(tokens + slot, chosen.to(tl.int64))
        if bad > 0:
            chosen = -1
        tl.store(results + slot, chosen)
        tl.store(positions + slot, position + 1)

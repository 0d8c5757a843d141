"""Triton kernels of the decoder: norms, rotary attention over the slots' cache, products, sampling.

Matrices with more than one row go to cuBLAS; these kernels are what stands between them. All sums
are fp32. Each runs under Triton's interpreter too, which is how they are tested without a GPU.

`chained` kernels (one row) use programmatic dependent launch: a kernel's weights are on their way
before the one in front of it has ended. The interpreter knows no such thing.
"""

from __future__ import annotations

import triton
import triton.language as tl

try:
    from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait
except ImportError:  # a build of Triton without the CUDA part

    @triton.jit
    def gdc_wait():
        """Nothing to wait for."""

    @triton.jit
    def gdc_launch_dependents():
        """Nothing to launch."""


__all__ = [
    "add_norm",
    "decode_attention",
    "gemv",
    "norm_fp8",
    "rope_and_keep",
    "sample",
    "silu_mul",
    "silu_mul_fp8",
]

LOG2_E = tl.constexpr(1.44269504)
NEAR_ZERO = tl.constexpr(-1e30)
FP8_MAX = tl.constexpr(448.0)
LEAST_SHARE = tl.constexpr(-30.0)
"""In nucleus sampling: e^-30 of the likeliest token's mass is nothing."""


@triton.jit
def add_norm(x, addend, weight, out, width, epsilon, add: tl.constexpr, block: tl.constexpr):
    """X += addend (if `add`); out = rms_norm(x) * weight. One program a row."""
    row = tl.program_id(0).to(tl.int64) * width
    lane = tl.arange(0, block)
    mask = lane < width
    value = tl.load(x + row + lane, mask=mask, other=0.0).to(tl.float32)
    if add:
        value += tl.load(addend + row + lane, mask=mask, other=0.0).to(tl.float32)
        tl.store(x + row + lane, value.to(x.dtype.element_ty), mask=mask)
        # What the next layer reads is what was stored, so the norm is of that.
        value = value.to(x.dtype.element_ty).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value) / width + epsilon)
    gain = tl.load(weight + lane, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + row + lane, (value * scale * gain).to(out.dtype.element_ty), mask=mask)


@triton.jit
def silu_mul(gate_up, out, hidden, block: tl.constexpr):
    """Out = silu(gate) * up, where a row of gate_up is gate, then up."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.program_id(1) * block + tl.arange(0, block)
    mask = lane < hidden
    at = gate_up + row * 2 * hidden + lane
    gate = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(at + hidden, mask=mask, other=0.0).to(tl.float32)
    told = gate * tl.sigmoid(gate) * up
    tl.store(out + row * hidden + lane, told.to(out.dtype.element_ty), mask=mask)


@triton.jit
def norm_fp8(
    x, addend, weight, codes, scales, width, epsilon,
    add: tl.constexpr, norm: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Code x (+ addend, kept in x), or its norm, in e4m3, a scale a row. One program a row."""
    number = tl.program_id(0)
    row = number.to(tl.int64) * width
    lane = tl.arange(0, block)
    mask = lane < width
    value = tl.load(x + row + lane, mask=mask, other=0.0).to(tl.float32)
    if add:
        value += tl.load(addend + row + lane, mask=mask, other=0.0).to(tl.float32)
        tl.store(x + row + lane, value.to(x.dtype.element_ty), mask=mask)
        value = value.to(x.dtype.element_ty).to(tl.float32)
    if norm:
        gain = tl.load(weight + lane, mask=mask, other=0.0).to(tl.float32)
        value = value * tl.rsqrt(tl.sum(value * value) / width + epsilon) * gain
    scale = tl.maximum(tl.max(tl.abs(value)), 1e-6) / FP8_MAX
    tl.store(scales + number, scale)
    tl.store(codes + row + lane, (value / scale).to(codes.dtype.element_ty), mask=mask)


@triton.jit
def silu_mul_fp8(gate_up, codes, scales, hidden, block: tl.constexpr):
    """codes, scales = e4m3 of silu(gate) * up. One program a row."""
    number = tl.program_id(0)
    lane = tl.arange(0, block)
    mask = lane < hidden
    at = gate_up + number.to(tl.int64) * 2 * hidden + lane
    gate = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(at + hidden, mask=mask, other=0.0).to(tl.float32)
    told = gate * tl.sigmoid(gate) * up
    scale = tl.maximum(tl.max(tl.abs(told)), 1e-6) / FP8_MAX
    tl.store(scales + number, scale)
    at = codes + number.to(tl.int64) * hidden + lane
    tl.store(at, (told / scale).to(codes.dtype.element_ty), mask=mask)


@triton.jit
def gemv(
    x, weight, scales, norm_weight, addend, out, rows, columns, epsilon,
    norm: tl.constexpr, add: tl.constexpr, silu: tl.constexpr, coded: tl.constexpr,
    whole: tl.constexpr, block_rows: tl.constexpr, block: tl.constexpr,
    chained: tl.constexpr,
):  # fmt: skip
    """out[rows] = f(norm(x)) . weight[rows, columns]^T (+ addend), for one row of x.

    silu: weight has 2 x rows; out = silu(first half) * second half. coded: weight is e4m3, with a
    scale a row. whole: a row fits in a block.
    """
    row = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    lane = tl.arange(0, block)
    inside = row < rows
    at = weight + row.to(tl.int64)[:, None] * columns
    second = weight + (rows + row).to(tl.int64)[:, None] * columns
    sums = tl.zeros((block_rows, block), tl.float32)
    sums2 = tl.zeros((block_rows, block), tl.float32)
    squares = tl.zeros((block,), tl.float32)
    if chained:
        gdc_launch_dependents()
    if whole:
        # The whole row in one tile: it is on its way before the kernel in front has ended.
        mask = lane < columns
        both = inside[:, None] & mask[None, :]
        w = tl.load(at + lane[None, :], mask=both, other=0.0)
        w2 = w
        if silu:
            w2 = tl.load(second + lane[None, :], mask=both, other=0.0)
        if chained:
            gdc_wait()
        value = tl.load(x + lane, mask=mask, other=0.0).to(tl.float32)
        if norm:
            squares = value * value
            value = value * tl.load(norm_weight + lane, mask=mask, other=0.0).to(tl.float32)
        sums = w.to(tl.float32) * value[None, :]
        if silu:
            sums2 = w2.to(tl.float32) * value[None, :]
    else:
        if chained:
            gdc_wait()
        for start in range(0, columns, block):
            mask = (start + lane) < columns
            both = inside[:, None] & mask[None, :]
            w = tl.load(at + start + lane[None, :], mask=both, other=0.0)
            value = tl.load(x + start + lane, mask=mask, other=0.0).to(tl.float32)
            if norm:
                squares += value * value
                gain = tl.load(norm_weight + start + lane, mask=mask, other=0.0)
                value = value * gain.to(tl.float32)
            sums += w.to(tl.float32) * value[None, :]
            if silu:
                w2 = tl.load(second + start + lane[None, :], mask=both, other=0.0)
                sums2 += w2.to(tl.float32) * value[None, :]
    told = tl.sum(sums, 1)
    if coded:
        told = told * tl.load(scales + row, mask=inside, other=0.0)
    if norm:
        scale = tl.rsqrt(tl.sum(squares, 0) / columns + epsilon)
        told = told * scale
    if silu:
        up = tl.sum(sums2, 1)
        if coded:
            up = up * tl.load(scales + rows + row, mask=inside, other=0.0)
        if norm:
            up = up * scale
        told = told * tl.sigmoid(told) * up
    if add:
        told += tl.load(addend + row, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row, told.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _turned(base, heads, mask, lane, partner, sign, cos, sin, weight, epsilon,
            dim: tl.constexpr, norm: tl.constexpr):  # fmt: skip
    """Heads of one token, normalised if the model does so, turned by its position: fp32."""
    at = base + heads[:, None] * dim
    own = tl.load(at + lane[None, :], mask=mask[:, None], other=0.0).to(tl.float32)
    other = tl.load(at + partner[None, :], mask=mask[:, None], other=0.0).to(tl.float32)
    if norm:
        scale = tl.rsqrt(tl.sum(own * own, 1) / dim + epsilon)[:, None]
        own = own * scale * tl.load(weight + lane).to(tl.float32)[None, :]
        other = other * scale * tl.load(weight + partner).to(tl.float32)[None, :]
    return own * cos[None, :] + other * (sign * sin)[None, :]


@triton.jit
def rope_and_keep(
    qkv, q_out, k_out, keys, values, slots, positions, cos, sin, q_weight, k_weight, epsilon,
    slot_stride, head_stride,
    heads: tl.constexpr, kv_heads: tl.constexpr, heads_pad: tl.constexpr, kv_pad: tl.constexpr,
    dim: tl.constexpr, norm: tl.constexpr,
):  # fmt: skip
    """Turn queries and keys of a prompt's token, keep its keys and values. One program a token."""
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + token).to(tl.int64)
    position = tl.load(positions + token)
    half: tl.constexpr = dim // 2
    lane = tl.arange(0, dim)
    partner = tl.where(lane < half, lane + half, lane - half)
    sign = tl.where(lane < half, -1.0, 1.0)
    c = tl.load(cos + position * half + lane % half)
    s = tl.load(sin + position * half + lane % half)
    base = qkv + token * (heads + 2 * kv_heads) * dim
    head = tl.arange(0, heads_pad)
    inside = head < heads
    q = _turned(base, head, inside, lane, partner, sign, c, s, q_weight, epsilon, dim, norm)
    at = q_out + token * heads * dim + head[:, None] * dim + lane[None, :]
    tl.store(at, q.to(q_out.dtype.element_ty), mask=inside[:, None])
    kv = tl.arange(0, kv_pad)
    kept = kv < kv_heads
    k = _turned(
        base + heads * dim, kv, kept, lane, partner, sign, c, s, k_weight, epsilon, dim, norm
    )
    at = k_out + token * kv_heads * dim + kv[:, None] * dim + lane[None, :]
    tl.store(at, k.to(k_out.dtype.element_ty), mask=kept[:, None])
    v_at = base + (heads + kv_heads) * dim + kv[:, None] * dim + lane[None, :]
    v = tl.load(v_at, mask=kept[:, None], other=0.0)
    place = slot * slot_stride + kv[:, None] * head_stride + position * dim + lane[None, :]
    tl.store(keys + place, k.to(keys.dtype.element_ty), mask=kept[:, None])
    tl.store(values + place, v.to(values.dtype.element_ty), mask=kept[:, None])


@triton.jit
def decode_attention(
    qkv, keys, values, out, part_out, part_stat, arrived, positions, cos, sin, q_weight, k_weight,
    epsilon, scale, slot_stride, head_stride, chunk,
    heads: tl.constexpr, kv_heads: tl.constexpr, group_pad: tl.constexpr, dim: tl.constexpr,
    block: tl.constexpr, splits: tl.constexpr, norm: tl.constexpr, chained: tl.constexpr,
):  # fmt: skip
    """One new token of each row against its slot's keys and values, itself kept among them.

    A program takes one row, one kv head and one `chunk` of the context; the last of a row and head
    to arrive merges them (as in flash decoding). A row at position -1 has no request: nothing is
    read or kept.
    """
    row = tl.program_id(0)
    kv = tl.program_id(1)
    split = tl.program_id(2)
    group: tl.constexpr = heads // kv_heads
    half: tl.constexpr = dim // 2
    if chained:
        gdc_launch_dependents()
        gdc_wait()
    position = tl.load(positions + row)
    count = position + 1
    in_use = (count + chunk - 1) // chunk
    if split < in_use:
        lane = tl.arange(0, dim)
        partner = tl.where(lane < half, lane + half, lane - half)
        sign = tl.where(lane < half, -1.0, 1.0)
        c = tl.load(cos + position * half + lane % half)
        s = tl.load(sin + position * half + lane % half)
        base = qkv + row.to(tl.int64) * (heads + 2 * kv_heads) * dim
        one = tl.arange(0, 1)
        new_k = _turned(
            base + (heads + kv) * dim, one, one < 1, lane, partner, sign, c, s, k_weight, epsilon,
            dim, norm,
        )  # fmt: skip
        new_k = tl.sum(new_k, 0).to(keys.dtype.element_ty)
        new_v = tl.load(base + (heads + kv_heads + kv) * dim + lane)
        place = row.to(tl.int64) * slot_stride + kv * head_stride
        if split == in_use - 1:
            tl.store(keys + place + position * dim + lane, new_k)
            tl.store(values + place + position * dim + lane, new_v)
        member = tl.arange(0, group_pad)
        inside = member < group
        q = _turned(
            base + kv * group * dim, member, inside, lane, partner, sign, c, s, q_weight, epsilon,
            dim, norm,
        )  # fmt: skip
        q = (q * scale * LOG2_E).to(keys.dtype.element_ty)
        most = tl.full((group_pad,), NEAR_ZERO, tl.float32)
        mass = tl.zeros((group_pad,), tl.float32)
        sums = tl.zeros((group_pad, dim), tl.float32)
        end = tl.minimum((split + 1) * chunk, count)
        for start in range(split * chunk, end, block):
            at = start + tl.arange(0, block)
            seen = at < end
            old = seen & (at < position)
            k = tl.load(
                keys + place + at[None, :] * dim + lane[:, None], mask=old[None, :], other=0.0
            )
            v = tl.load(
                values + place + at[:, None] * dim + lane[None, :], mask=old[:, None], other=0.0
            )
            k = tl.where((at == position)[None, :], new_k[:, None], k)
            v = tl.where((at == position)[:, None], new_v[None, :], v)
            score = tl.where(seen[None, :], tl.dot(q, k), NEAR_ZERO)
            top = tl.maximum(most, tl.max(score, 1))
            share = tl.exp2(score - top[:, None])
            fade = tl.exp2(most - top)
            mass = mass * fade + tl.sum(share, 1)
            sums = tl.dot(share.to(v.dtype), v, sums * fade[:, None])
            most = top
        target = out + row.to(tl.int64) * heads * dim + (kv * group + member)[:, None] * dim
        target += lane[None, :]
        if in_use == 1:
            told = (sums / mass[:, None]).to(out.dtype.element_ty)
            tl.store(target, told, mask=inside[:, None])
        else:
            mine = ((row * kv_heads + kv) * splits + split) * group_pad + member
            tl.store(part_out + mine.to(tl.int64)[:, None] * dim + lane[None, :], sums)
            tl.store(part_stat + mine * 2, most)
            tl.store(part_stat + mine * 2 + 1, mass)
            tl.debug_barrier()
            before = tl.atomic_add(arrived + row * kv_heads + kv, 1, sem="acq_rel")
            if before == in_use - 1:
                most = tl.full((group_pad,), NEAR_ZERO, tl.float32)
                mass = tl.zeros((group_pad,), tl.float32)
                sums = tl.zeros((group_pad, dim), tl.float32)
                for each in range(in_use):
                    theirs = ((row * kv_heads + kv) * splits + each) * group_pad + member
                    top2 = tl.load(part_stat + theirs * 2, cache_modifier=".cg")
                    mass2 = tl.load(part_stat + theirs * 2 + 1, cache_modifier=".cg")
                    at2 = part_out + theirs.to(tl.int64)[:, None] * dim + lane[None, :]
                    sums2 = tl.load(at2, cache_modifier=".cg")
                    top = tl.maximum(most, top2)
                    fade = tl.exp2(most - top)
                    fade2 = tl.exp2(top2 - top)
                    sums = sums * fade[:, None] + sums2 * fade2[:, None]
                    mass = mass * fade + mass2 * fade2
                    most = top
                told = (sums / mass[:, None]).to(out.dtype.element_ty)
                tl.store(target, told, mask=inside[:, None])
                tl.atomic_xchg(arrived + row * kv_heads + kv, 0)


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

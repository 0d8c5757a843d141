"""Positions, keys and values of the slots, and attention of new tokens over them."""

from __future__ import annotations

import triton
import triton.language as tl

from inference.engines.cuda.kernels.chain import gdc_launch_dependents, gdc_wait

__all__ = ["decode_attention", "rope_and_keep"]

LOG2_E = tl.constexpr(1.44269504)
NEAR_ZERO = tl.constexpr(-1e30)


@triton.jit
def _turned(base, row_scale, column_scales, heads, mask, lane, partner, sign, cos, sin, weight,
            epsilon, dim: tl.constexpr, norm: tl.constexpr, scaled: tl.constexpr):  # fmt: skip
    """Heads of one token, normalised if the model does so, turned by its position: fp32."""
    at = base + heads[:, None] * dim
    own = tl.load(at + lane[None, :], mask=mask[:, None], other=0.0).to(tl.float32)
    other = tl.load(at + partner[None, :], mask=mask[:, None], other=0.0).to(tl.float32)
    if scaled:
        gain = column_scales + heads[:, None] * dim
        own *= row_scale * tl.load(gain + lane[None, :], mask=mask[:, None], other=0.0)
        other *= row_scale * tl.load(gain + partner[None, :], mask=mask[:, None], other=0.0)
    if norm:
        scale = tl.rsqrt(tl.sum(own * own, 1) / dim + epsilon)[:, None]
        own = own * scale * tl.load(weight + lane).to(tl.float32)[None, :]
        other = other * scale * tl.load(weight + partner).to(tl.float32)[None, :]
    return own * cos[None, :] + other * (sign * sin)[None, :]


@triton.jit
def rope_and_keep(
    qkv, row_scales, column_scales, q_out, k_out, v_out, keys, values, slots, positions, cos, sin,
    q_weight, k_weight, epsilon, slot_stride, head_stride,
    heads: tl.constexpr, kv_heads: tl.constexpr, heads_pad: tl.constexpr, kv_pad: tl.constexpr,
    dim: tl.constexpr, norm: tl.constexpr, scaled: tl.constexpr,
):  # fmt: skip
    """Turn queries and keys of a prompt's token, keep its keys and values. One program a token.

    scaled: qkv is to be multiplied with a scale a row and one a column.
    """
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
    row_scale = 1.0
    if scaled:
        row_scale = tl.load(row_scales + token)
    head = tl.arange(0, heads_pad)
    inside = head < heads
    q = _turned(
        base, row_scale, column_scales, head, inside, lane, partner, sign, c, s, q_weight, epsilon,
        dim, norm, scaled,
    )  # fmt: skip
    at = q_out + token * heads * dim + head[:, None] * dim + lane[None, :]
    tl.store(at, q.to(q_out.dtype.element_ty), mask=inside[:, None])
    kv = tl.arange(0, kv_pad)
    kept = kv < kv_heads
    k = _turned(
        base + heads * dim, row_scale, column_scales + heads * dim, kv, kept, lane, partner, sign,
        c, s, k_weight, epsilon, dim, norm, scaled,
    )  # fmt: skip
    at = k_out + token * kv_heads * dim + kv[:, None] * dim + lane[None, :]
    tl.store(at, k.to(k_out.dtype.element_ty), mask=kept[:, None])
    within = (heads + kv_heads) * dim + kv[:, None] * dim + lane[None, :]
    v = tl.load(base + within, mask=kept[:, None], other=0.0)
    if scaled:
        gain = tl.load(column_scales + within, mask=kept[:, None], other=0.0)
        v = (v.to(tl.float32) * row_scale * gain).to(v_out.dtype.element_ty)
        at = v_out + token * kv_heads * dim + kv[:, None] * dim + lane[None, :]
        tl.store(at, v, mask=kept[:, None])
    place = slot * slot_stride + kv[:, None] * head_stride + position * dim + lane[None, :]
    tl.store(keys + place, k.to(keys.dtype.element_ty), mask=kept[:, None])
    tl.store(values + place, v.to(values.dtype.element_ty), mask=kept[:, None])


@triton.jit
def decode_attention(
    qkv, row_scales, column_scales, keys, values, out, part_out, part_stat, arrived, positions, cos,
    sin, q_weight, k_weight, epsilon, scale, slot_stride, head_stride, chunk,
    heads: tl.constexpr, kv_heads: tl.constexpr, group_pad: tl.constexpr, dim: tl.constexpr,
    block: tl.constexpr, splits: tl.constexpr, norm: tl.constexpr, scaled: tl.constexpr,
    chained: tl.constexpr,
):  # fmt: skip
    """One new token of each row against its slot's keys and values, itself kept among them.

    A program takes one row, one kv head and one `chunk` of the context; the last of a row and head
    to arrive merges them (as in flash decoding). A row at position -1 has no request: nothing is
    read or kept. scaled: qkv is to be multiplied with a scale a row and one a column.
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
        row_scale = 1.0
        if scaled:
            row_scale = tl.load(row_scales + row)
        one = tl.arange(0, 1)
        at_k = (heads + kv) * dim
        new_k = _turned(
            base + at_k, row_scale, column_scales + at_k, one, one < 1, lane, partner, sign, c, s,
            k_weight, epsilon, dim, norm, scaled,
        )  # fmt: skip
        new_k = tl.sum(new_k, 0).to(keys.dtype.element_ty)
        at_v = (heads + kv_heads + kv) * dim
        new_v = tl.load(base + at_v + lane)
        if scaled:
            gain = tl.load(column_scales + at_v + lane)
            new_v = (new_v.to(tl.float32) * row_scale * gain).to(values.dtype.element_ty)
        place = row.to(tl.int64) * slot_stride + kv * head_stride
        if split == in_use - 1:
            tl.store(keys + place + position * dim + lane, new_k)
            tl.store(values + place + position * dim + lane, new_v)
        member = tl.arange(0, group_pad)
        inside = member < group
        at_q = kv * group * dim
        q = _turned(
            base + at_q, row_scale, column_scales + at_q, member, inside, lane, partner, sign, c, s,
            q_weight, epsilon, dim, norm, scaled,
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

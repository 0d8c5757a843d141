"""Row by row: norms, activations, fp8 codes, and a single row's matrix products."""

from __future__ import annotations

import triton
import triton.language as tl

from inference.engines.cuda.kernels.chain import gdc_launch_dependents, gdc_wait

__all__ = ["add_norm", "gemv", "norm_fp8", "silu_mul", "silu_mul_fp8"]

FP8_MAX = tl.constexpr(448.0)


@triton.jit
def _summed(x, addend, row_scales, column_scales, number, width, lane, mask,
            add: tl.constexpr, scaled: tl.constexpr):  # fmt: skip
    """Return x, or x + addend, which x then is: fp32 of what was stored."""
    row = number.to(tl.int64) * width
    value = tl.load(x + row + lane, mask=mask, other=0.0).to(tl.float32)
    if add:
        other = tl.load(addend + row + lane, mask=mask, other=0.0).to(tl.float32)
        if scaled:
            gain = tl.load(column_scales + lane, mask=mask, other=0.0)
            other = other * tl.load(row_scales + number) * gain
        value = (value + other).to(x.dtype.element_ty)
        tl.store(x + row + lane, value, mask=mask)
        value = value.to(tl.float32)
    return value


@triton.jit
def add_norm(
    x, addend, row_scales, column_scales, weight, out, width, epsilon,
    add: tl.constexpr, scaled: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Add addend to x (if `add`; times its scales if `scaled`); out = rms_norm(x) * weight."""
    number = tl.program_id(0)
    lane = tl.arange(0, block)
    mask = lane < width
    value = _summed(x, addend, row_scales, column_scales, number, width, lane, mask, add, scaled)
    scale = tl.rsqrt(tl.sum(value * value) / width + epsilon)
    gain = tl.load(weight + lane, mask=mask, other=0.0).to(tl.float32)
    at = out + number.to(tl.int64) * width + lane
    tl.store(at, (value * scale * gain).to(out.dtype.element_ty), mask=mask)


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
    x, addend, row_scales, column_scales, weight, codes, scales, width, epsilon,
    add: tl.constexpr, scaled: tl.constexpr, norm: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Code x (+ addend, kept in x), or its norm, in e4m3, a scale a row. One program a row."""
    number = tl.program_id(0)
    lane = tl.arange(0, block)
    mask = lane < width
    value = _summed(x, addend, row_scales, column_scales, number, width, lane, mask, add, scaled)
    if norm:
        gain = tl.load(weight + lane, mask=mask, other=0.0).to(tl.float32)
        value = value * tl.rsqrt(tl.sum(value * value) / width + epsilon) * gain
    scale = tl.maximum(tl.max(tl.abs(value)), 1e-6) / FP8_MAX
    tl.store(scales + number, scale)
    at = codes + number.to(tl.int64) * width + lane
    tl.store(at, (value / scale).to(codes.dtype.element_ty), mask=mask)


@triton.jit
def silu_mul_fp8(
    gate_up, row_scales, column_scales, codes, scales, hidden,
    scaled: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """codes, scales = e4m3 of silu(gate) * up, both times their scales. One program a row."""
    number = tl.program_id(0)
    lane = tl.arange(0, block)
    mask = lane < hidden
    at = gate_up + number.to(tl.int64) * 2 * hidden + lane
    gate = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(at + hidden, mask=mask, other=0.0).to(tl.float32)
    if scaled:
        mine = tl.load(row_scales + number)
        gate = gate * mine * tl.load(column_scales + lane, mask=mask, other=0.0)
        up = up * mine * tl.load(column_scales + hidden + lane, mask=mask, other=0.0)
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

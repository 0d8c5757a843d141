"""Triton kernels of the decoder: what stands between the matrix products of cuBLAS.

rows        norms, activations, fp8 codes, and products of a single row
attention   rotary positions, the slots' keys and values, decoding over them
sampling    the next token

All sums are fp32. Each runs under Triton's interpreter too, which is how they are tested without a
GPU. `chained` kernels (one row) use programmatic dependent launch: a kernel's weights are on their
way before the one in front of it has ended. The interpreter knows no such thing.
"""

from inference.engines.cuda.kernels.attention import decode_attention, rope_and_keep
from inference.engines.cuda.kernels.rows import add_norm, gemv, norm_fp8, silu_mul, silu_mul_fp8
from inference.engines.cuda.kernels.sampling import sample

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

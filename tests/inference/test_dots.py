"""Instructions by themselves, at the extremes of what they take, against numpy."""

import numpy as np
import pytest
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features

from inference.engines.jit.compiled import Compiled, cpu_dots
from inference.engines.jit.dots import AVX2, VNNI, Row
from inference.engines.jit.emit import I64, PTR, Code, vector_of
from inference.engines.jit.products import FACTORS_BYTES
from inference.engines.jit.rows import quantised

pytestmark = pytest.mark.skipif(cpu_dots() is None, reason="this CPU has not what steps need")

ROWS, HALVES, TURNS, FOUR = 3, 2, 4, 4


def ran(write, *arrays: np.ndarray) -> None:
    """Compile what `write(code, *pointers)` writes, and run it on arrays in place."""
    module = ir.Module("tried")
    c = Code(module, "step", [PTR, I64])
    given, _ = c.arguments
    write(c, *[c.load(c.at(given, 8 * place), PTR) for place in range(len(arrays))])
    c.finish()
    addresses = np.array([array.ctypes.data for array in arrays], np.int64)
    made = Compiled(module)
    made.step()(addresses.ctypes.data, 0)


@pytest.mark.parametrize("dots", [VNNI, AVX2], ids=lambda dots: dots.name)
@pytest.mark.parametrize(("of", "least", "most"), [("few", 0, 15), ("many", -128, 127)])
def test_sums_of_products_of_bytes_are_exact(dots, of, least, most) -> None:
    """All at an end of their range, then at any end of it, then anything."""
    features = get_host_cpu_features()
    if not all(features.get(name, False) for name in dots.needed):
        pytest.skip(f"this CPU has no {dots.name}")
    shape = HALVES, TURNS, dots.lanes, FOUR
    random = np.random.default_rng(0)
    cases = [
        *(([w] * 2, [c] * 2) for w in (least, 0, most) for c in (-127, 127)),
        *(([least, most], [-127, 127]) for _ in range(10)),
        *((range(least, most + 1), range(-127, 128)) for _ in range(10)),
    ]
    weights = np.array([random.choice(some, shape) for some, _ in cases])
    codes = np.array([random.choice(some, (HALVES, ROWS, TURNS, FOUR)) for _, some in cases])
    less = (-128 * codes.sum(axis=(-2, -1))).astype(np.int32)
    found = np.zeros((len(cases), HALVES, ROWS, dots.lanes), np.int32)
    stored = (weights + (128 if of == "many" else 0)).astype(np.uint8)
    codes8 = codes.astype(np.int8)

    def write(c: Code, *pointers: ir.Value) -> None:
        size = vector_of(8, dots.lanes * FOUR)
        with c.loop(0, len(cases)) as case:
            one, row, start, end = (
                c.at(pointer, c.mul(case, array[0].nbytes))
                for pointer, array in zip(pointers, (stored, codes8, less, found), strict=True)
            )
            places = [range(half * ROWS, (half + 1) * ROWS) for half in range(HALVES)]
            halves = [
                [c.load(c.at(one, (half * TURNS + n) * size.count), size) for n in range(TURNS)]
                for half in range(HALVES)
            ]
            rows = [
                [Row(c.at(row, TURNS * FOUR * at), c.at(start, 4 * at)) for at in mine]
                for mine in places
            ]
            for mine, sums in zip(places, getattr(dots, of)(c, halves, rows), strict=True):
                for at, total in zip(mine, sums, strict=True):
                    c.store(total, c.at(end, 4 * dots.lanes * at))

    ran(write, stored, codes8, less, found)

    assert (found == np.einsum("chtof,chrtf->chro", weights, codes)).all()


def test_fp16_is_rounded_to_even_and_bounded_and_nan_stays_nan() -> None:
    values = [0, -0.0, 1, 1 + 2**-11, 1 + 3 * 2**-11, 65_504, 65_519, 65_520, 1e30, np.inf]
    values += [-65_520, -1e30, -np.inf, 2**-24, 3 * 2**-25, np.nan]
    given, back = np.array(values, np.float32), np.zeros(16, np.float32)
    kept = np.zeros(16, np.float16)

    def write(c: Code, given: ir.Value, kept: ir.Value, back: ir.Value) -> None:
        c.store_half(c.load(given), kept)
        c.store(c.load_half(kept), back)

    ran(write, given, kept, back)
    expected = np.clip(given, -65_504, 65_504).astype(np.float16)

    assert np.array_equal(kept, expected, equal_nan=True)
    assert np.array_equal(np.signbit(kept), np.signbit(expected))
    assert np.array_equal(back, expected.astype(np.float32), equal_nan=True)


def test_floats_become_the_nearest_integers_up_to_their_bound() -> None:
    most = 2.0**22
    values = [0, -0.0, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5, 126.5, 127.5, -127.49, 1e-40]
    values += [most - 0.5, most - 1, -most, 0.5 - most]
    given, found = np.array(values, np.float32), np.zeros(16, np.int32)

    ran(lambda c, x, y: c.store(c.integers(c.load(x)), y), given, found)

    assert (found == np.rint(given)).all()


def test_powers_of_e_are_exact_to_a_few_bits_and_nan_stays_nan() -> None:
    values = [-np.inf, -1e30, -87.5, -87, -20.1, -1, -1e-8, 0, 0.34, 0.35, 1, 60.6, 88, 88.5]
    given, found = np.array([*values, np.inf, np.nan], np.float32), np.zeros(16, np.float32)

    ran(lambda c, x, y: c.store(c.exp(c.load(x)), y), given, found)
    expected = np.exp(np.clip(given, -87, 88).astype(np.float64))

    assert np.allclose(found, expected, rtol=2e-7, atol=0, equal_nan=True)


@pytest.mark.parametrize("peak", [0.0, 1e-45, 1e-40, 3.6e-37, 3.8e-37, 1e-30, 1.0, 1e36])
def test_a_half_of_any_size_has_the_sums_that_its_codes_have(peak) -> None:
    """However small: 127 over the peak may be too large for a float."""
    random = np.random.default_rng(1)
    values = (random.uniform(-1, 1, 32) * peak).astype(np.float32)
    values[[3, 20]] = peak, -peak
    codes, factors = np.zeros(32, np.int8), np.zeros(FACTORS_BYTES, np.uint8)
    rest = np.zeros(32, np.float32)

    def write(
        c: Code, values: ir.Value, codes: ir.Value, factors: ir.Value, rest: ir.Value
    ) -> None:
        left = quantised(c, (c.load(values), c.load(c.at(values, 64))), codes, factors)
        for half, part in enumerate(left):
            c.store(part, c.at(rest, 64 * half))

    ran(write, values, codes, factors, rest)
    scales, total = factors[:8].view(np.float32), factors[8:12].view(np.float32)
    less, halves = factors[12:].view(np.int32), codes.reshape(2, 16).astype(np.int32)

    assert (less == -128 * halves.sum(axis=1)).all()
    assert total[0] == np.float32((scales * halves.sum(axis=1).astype(np.float32)).sum())
    assert np.abs(rest).max() <= max(peak / 127 * 0.501, 1e-36)
    assert peak < 1e-36 or np.abs(halves).max(axis=1).tolist() == [127, 127]

import asyncio
import time

from bench.micro import BATCH, per_await_us, per_call_us


def burn(microseconds: float) -> None:
    end = time.process_time() + microseconds / 1e6
    while time.process_time() < end:
        pass


def test_a_call_is_charged_what_it_burns_and_numbered_through():
    numbers: list[int] = []

    def call(number: int) -> None:
        numbers.append(number)
        burn(200)

    means = per_call_us(call, seconds=0.01, repeats=3)
    assert len(means) == 3
    assert all(200 <= mean < 500 for mean in means)
    assert numbers == list(range(len(numbers)))


async def test_waiting_costs_nothing_and_a_batch_is_shared_by_its_things():
    async def call(_number: int) -> None:
        burn(400)
        await asyncio.sleep(0.0001)

    (mean,) = await per_await_us(call, seconds=0.01, repeats=1, of=4)
    assert 100 <= mean < 250


def test_at_least_one_batch_is_run():
    numbers: list[int] = []
    per_call_us(numbers.append, seconds=0, repeats=1)
    assert len(numbers) == 2 * BATCH

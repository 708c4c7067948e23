"""What a seed draws, in Python's own integers and lists: a second Philox, and a shuffle of a whole population."""

import hashlib
import struct
from collections.abc import Sequence

MASK = 2**64 - 1


def philox(key: tuple[int, int], counter: list[int]) -> list[int]:
    """Philox4x64-10 of Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3"."""
    for turn in range(10):
        high_0, low_0 = divmod(0xD2E7470EE14C6C93 * counter[0], 2**64)
        high_1, low_1 = divmod(0xCA5A826395121157 * counter[2], 2**64)
        key_0 = (key[0] + turn * 0x9E3779B97F4A7C15) & MASK
        key_1 = (key[1] + turn * 0xBB67AE8584CAA73B) & MASK
        counter = [high_1 ^ counter[1] ^ key_0, low_1, high_0 ^ counter[3] ^ key_1, low_0]
    return counter


def slow_uniforms(seed: int, stream: str, position: int, count: int) -> list[float]:
    key = struct.unpack("<QQ", hashlib.sha256(f"{seed}/{stream}".encode()).digest()[:16])
    numbers: list[int] = []
    while len(numbers) < count:
        numbers += philox(key, [1 + len(numbers) // 4, 0, 0, position])
    return [(number >> 11) / 2**53 for number in numbers[:count]]


def slow_distinct(uniform: Sequence[float], population: int) -> list[int]:
    """The first of 0 to `population - 1` after the swaps of Fisher and Yates, as in Knuth's algorithm P."""
    array = list(range(population))
    for j, number in enumerate(uniform):
        other = j + int(number * (population - j))
        array[j], array[other] = array[other], array[j]
    return array[: len(uniform)]

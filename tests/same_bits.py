"""Equality of states, as checkpoints hold them."""

import torch


def assert_same_bits(got: object, expected: object) -> None:
    """The same keys in the same order, and tensors of the same type with the same values."""
    if isinstance(expected, dict):
        assert list(got) == list(expected)
        for key, value in expected.items():
            assert_same_bits(got[key], value)
    elif isinstance(expected, list | tuple):
        for left, right in zip(got, expected, strict=True):
            assert_same_bits(left, right)
    elif isinstance(expected, torch.Tensor):
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)
    else:
        assert got == expected

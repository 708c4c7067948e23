"""Samplers draw indices, never pixels. Item k is a pure function of (seed, stream, k) and the class table."""

from fewshot_runner.data.samplers.base import Sampler
from fewshot_runner.data.samplers.batches import BatchSampler
from fewshot_runner.data.samplers.episodes import EpisodeSampler
from fewshot_runner.data.samplers.pairs import PairSampler
from fewshot_runner.data.samplers.pk import PKSampler

__all__ = ["BatchSampler", "EpisodeSampler", "PKSampler", "PairSampler", "Sampler"]

"""Random numbers as hashes: the published generator, distributions, and streams that know nothing of one another."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from aevb.data.streams import GOLDEN, hashes, mixed, normals, uniforms

SEEDS = hashes(np.random.default_rng(0).normal(size=(2000, 3)), 0, "row")


def test_numbers_are_those_of_splitmix64() -> None:
    """The first outputs of the reference implementation for the seed 0."""
    found = mixed(torch.arange(1, 4) * GOLDEN)
    assert [hex(n % 2**64) for n in found.tolist()] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4", "0x6c45d188009454f"]


def test_normals_are_standard_normal() -> None:
    e = normals(SEEDS, 100, 5, "a").double()
    assert e.shape == (100, 2000, 5)
    for power, moment in enumerate((0, 1, 0, 3), 1):
        assert abs(float((e**power).mean()) - moment) < 5 * float((e**power).std()) / 1e3
    assert stats.kstest(e.flatten()[:200_000].numpy(), "norm").pvalue > 1e-3


def test_uniforms_are_uniform_and_inside() -> None:
    u = uniforms(SEEDS, 100, 3, "a")
    assert float(u.min()) > 0
    assert float(u.max()) < 1
    assert stats.kstest(u.flatten()[:200_000].numpy(), "uniform").pvalue > 1e-3


def test_samples_columns_streams_and_purposes_are_uncorrelated() -> None:
    e, other = (normals(SEEDS, 40, 4, purpose).double() for purpose in ("a", "b"))
    pairs = [(e, other), (e[1:], e[:-1]), (e[:, 1:], e[:, :-1]), *((e[..., i], e[..., (i + 1) % 4]) for i in range(4))]
    for a, b in pairs:
        for f in (lambda t: t, torch.square):
            assert abs(np.corrcoef(f(a).flatten(), f(b).flatten())[0, 1]) < 5 / a.numel() ** 0.5


def test_a_stream_is_a_function_of_its_seed_and_has_a_beginning() -> None:
    whole = normals(SEEDS, 20, 3, "a", 1)
    assert torch.equal(normals(SEEDS[5:6], 8, 3, "a", 1), whole[:8, 5:6])
    assert torch.equal(uniforms(SEEDS[5:6], 8, 3, "a"), uniforms(SEEDS, 20, 3, "a")[:8, 5:6])
    assert not torch.equal(normals(SEEDS, 20, 3, "a", 2), whole)


def test_hashes_know_content_place_and_seed() -> None:
    rows = np.array([[1.0, 2.0], [2.0, 1.0], [1.0, np.nan], [np.nan, 1.0], [1.0, 1.0], [-0.0, 1.0], [0.0, 1.0]])
    found = hashes(rows, 0, "row")
    assert len(set(found)) == 6
    assert found[5] == found[6]
    assert hashes(rows[[3, 0]], 0, "row") == [found[3], found[0]]
    assert not set(found) & {*hashes(rows, 1, "row"), *hashes(rows, 0, "other")}
    assert len(set(hashes(np.arange(100_000.0)[:, None], 0))) == 100_000
    assert all(0 <= seed < 2**63 for seed in found)

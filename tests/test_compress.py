"""Compression: rows come back bit for bit, their bytes are the bound's, and no damaged or foreign file gives any."""

from __future__ import annotations

import copy
import json
import math
import os
import struct
import subprocess
import sys
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_cli import NETS, call, good, mistake
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

import aevb
from aevb.data.dataset import Split
from aevb.data.values import Values
from aevb.errors import DataError, RecipeError
from aevb.parts import Support
from aevb.probability.families import Family
from aevb.probability.offers import support_of
from aevb.runs.store import Run
from aevb.use import bits
from aevb.use.bits import Grid, Stack, blocks, fuel, joined, split
from aevb.use.container import MAGIC, fingerprint, pack, unpack
from aevb.use.symbols import Alphabet

OVERHEAD = 8 * 300  # bits: the header, the words that the coder begins with, and its last, half-filled word


def vae(likelihood: Family, latent: int = 3, hidden: list[int] | None = None, seed: int = 0, **more: Any) -> aevb.VAE:
    torch.manual_seed(seed)
    q = more.pop("posterior", None) or aevb.Normal(latent)
    prior = more.pop("prior", None) or aevb.StandardNormal(latent)
    hidden = [16] if hidden is None else hidden
    encoder = aevb.Conditional(aevb.MLP(likelihood.shape.numel(), q.size, hidden), q)
    decoder = aevb.Conditional(aevb.MLP(latent, likelihood.size, hidden), likelihood)
    return aevb.VAE(prior, encoder, decoder).eval()


def draws(model: aevb.VAE, n: int, seed: int = 0) -> Tensor:
    """Rows of the model itself, in the type of its parameters."""
    torch.manual_seed(seed)
    with torch.no_grad():
        return model.decode(model.sample_latent(n)).sample().to(next(model.parameters()))


LIKELIHOODS: dict[str, Family] = {
    "bernoulli": aevb.Bernoulli(12),
    "images": aevb.Bernoulli((1, 4, 4)),
    "categorical": aevb.Categorical(12, 5),
    "two classes": aevb.Categorical(12, 2, 0.25),
    "levels of a third": aevb.Categorical(12, 4, 1 / 3),
    "beta-binomial": aevb.BetaBinomial((1, 3, 4)),
    "discretized-logistic": aevb.DiscretizedLogistic(12),
    "17 levels": aevb.DiscretizedLogistic(12, 17),
    "poisson": aevb.Poisson(12),
    "negative-binomial": aevb.NegativeBinomial(12),
    "zero-inflated": aevb.ZeroInflatedNegativeBinomial(12),
}
each_likelihood = pytest.mark.parametrize("name", LIKELIHOODS)


@each_likelihood
def test_rows_come_back_bit_for_bit(name: str) -> None:
    model = vae(LIKELIHOODS[name])
    x = draws(model, 37)
    found = aevb.decompress(model, aevb.compress(model, x))
    assert found.dtype == x.dtype == torch.float32
    assert torch.equal(found, x)


@each_likelihood
def test_any_rows_of_the_support_come_back_however_unlikely(name: str) -> None:
    model = vae(LIKELIHOODS[name])
    px = model.decode(torch.zeros(1, 3))
    alphabet = Alphabet.of(px, support_of(px), torch.zeros(1))
    most = 10**6 if alphabet.open else alphabet.size - 1
    k = np.random.default_rng(0).integers(0, most, (9, *px.event_shape), endpoint=True)
    k[0], k[1] = 0, most
    x = alphabet.numbers(k, torch.float32)
    assert torch.equal(aevb.decompress(model, aevb.compress(model, x)), x)


def test_the_bytes_are_those_of_the_bound() -> None:
    """Σ -L(x) / log 2 bits, with the spread of one draw of z for each row; a linear model of 2,000 rows."""
    for likelihood in (aevb.Bernoulli(30), aevb.DiscretizedLogistic(10, 32), aevb.Poisson(20)):
        model = vae(likelihood, 2, [])
        with torch.no_grad():
            model.encoder.net[-1].weight *= 0.02
            x = draws(model, 2000)
            cost = -model.trace(x, 200).log_w.double() / math.log(2)
        expected, spread = float(cost.mean(0).sum()), float(cost.var(0).sum() ** 0.5)
        length = 8 * len(aevb.compress(model, x))
        assert abs(length - expected) < 0.003 * expected + 4 * spread + OVERHEAD, type(likelihood).__name__
        assert length > expected - 4 * spread
        assert spread < 0.02 * expected


def test_a_model_of_float64_and_a_narrow_posterior_lose_nothing() -> None:
    model = vae(aevb.Bernoulli(8), 2).double()
    x = draws(model, 20)
    assert x.dtype == torch.float64
    with torch.no_grad():
        for scale in (1e-7, 1e4):
            narrow = copy.deepcopy(model)
            narrow.encoder.net[-1].bias[:] = torch.tensor([300.0, -7.0, 2 * math.log(scale), 2 * math.log(scale)])
            found = aevb.decompress(narrow, aevb.compress(narrow, x))
            assert found.dtype == torch.float64
            assert torch.equal(found, x)


def test_counts_beyond_the_table_are_written_out() -> None:
    model = vae(aevb.Poisson(3))
    x = torch.poisson(torch.full((50, 3), 1e5), generator=torch.Generator().manual_seed(0))
    x[7, 1], x[8, 2] = 2.0**40, 0.0
    with torch.no_grad():
        model.decoder.net[-1].bias[:] = math.log(1e5)
        model.decoder.net[-1].weight.zero_()
    packed = aevb.compress(model, x)
    assert torch.equal(aevb.decompress(model, packed), x)
    assert unpack(packed)[0].moving
    entropy = 0.5 * math.log2(2 * math.pi * math.e * 1e5)  # of a Poisson, in bits
    with torch.no_grad():
        of_z = float(model.posterior(x).log_prob(model.posterior(x).mean).sum())  # log q(z|x) of μ = 10⁴
    assert 8 * len(packed) < 150 * entropy + OVERHEAD + of_z


def test_networks_that_give_no_numbers_lose_none() -> None:
    for part in ("encoder", "decoder"):
        model = vae(aevb.Bernoulli(6))
        x = draws(model, 10)
        with torch.no_grad():
            getattr(model, part).net[-1].bias[1:] = torch.nan
        assert torch.equal(aevb.decompress(model, aevb.compress(model, x)), x)


def test_one_row_comes_back_and_none_is_an_error() -> None:
    model = vae(aevb.Bernoulli(5))
    x = draws(model, 1)
    assert torch.equal(aevb.decompress(model, aevb.compress(model, x)), x)
    with pytest.raises(DataError, match="There are no data points"):
        aevb.compress(model, x[:0])


def test_both_ways_tell_how_far_they_are() -> None:
    model, told = vae(aevb.Bernoulli(5)), []
    x = draws(model, 21)
    with aevb.walking(progress=lambda done, total: told.append((done, total))):
        packed = aevb.compress(model, x)
        assert told[-1] == (21, 21)
        told.clear()
        aevb.decompress(model, packed)
    assert told[-1] == (21, 21)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_dynamic_pixels_are_those_that_are_frozen() -> None:
    model = vae(aevb.Bernoulli(6))
    grey = torch.randint(0, 256, (20, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rows = Split(grey, values=Values("dynamic"))
    assert torch.equal(aevb.decompress(model, aevb.compress(model, rows)), rows.frozen()[:])


def test_the_model_and_the_process_stay_as_they_were() -> None:
    model = vae(aevb.Bernoulli(6)).train()
    threads, before = torch.get_num_threads(), copy.deepcopy(model.state_dict())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    aevb.decompress(model, _packed(model))
    assert torch.equal(torch.rand(3), expected)
    assert model.training
    assert torch.get_num_threads() == threads
    assert all(torch.equal(t, before[name]) and t.dtype == torch.float32 for name, t in model.state_dict().items())


def _packed(model: aevb.VAE, n: int = 9) -> bytes:
    """Some rows of zeros and ones."""
    size = model.decoder.family.shape.numel()
    x = (torch.arange(n * size) % 3 == 0).float().view(n, size)
    return aevb.compress(model, x)


def test_the_number_of_threads_changes_no_byte() -> None:
    model = vae(aevb.DiscretizedLogistic(40, 16), hidden=[300])
    x = draws(model, 60)
    packed, threads = aevb.compress(model, x), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert aevb.compress(model, x) == packed
        assert torch.equal(aevb.decompress(model, packed), x)
    finally:
        torch.set_num_threads(threads)


# Damage, other models, other versions


def test_every_flipped_byte_is_an_error() -> None:
    model = vae(aevb.Bernoulli(4), 1, [])
    packed = _packed(model, 2)
    for i in range(len(packed)):
        with pytest.raises(DataError):
            aevb.decompress(model, packed[:i] + bytes([packed[i] ^ 0x10]) + packed[i + 1 :])


def test_every_cut_is_an_error() -> None:
    model = vae(aevb.Bernoulli(4), 1, [])
    packed = _packed(model, 2)
    for i in range(len(packed)):
        with pytest.raises(DataError):
            aevb.decompress(model, packed[:i])
    with pytest.raises(DataError, match="damaged"):
        aevb.decompress(model, packed + b"\0")
    with pytest.raises(DataError, match="not a file of aevb compress"):
        aevb.decompress(model, b"PK\3\4" + packed)


def test_a_newer_version_is_named() -> None:
    model = vae(aevb.Bernoulli(4))
    packed = _packed(model)
    newer = packed[: len(MAGIC)] + struct.pack("<H", 2) + packed[len(MAGIC) + 2 :]
    with pytest.raises(DataError, match="the format 2; this aevb reads the format 1"):
        aevb.decompress(model, newer)


def test_another_model_is_an_error() -> None:
    model = vae(aevb.DiscretizedLogistic(4, 16))
    packed = aevb.compress(model, draws(model, 5))
    with pytest.raises(DataError, match="made by another model"):
        aevb.decompress(vae(aevb.DiscretizedLogistic(4, 16), seed=1), packed)
    nearly = copy.deepcopy(model)
    with torch.no_grad():
        nearly.decoder.net[-1].bias[0] += 1e-6
    with pytest.raises(DataError, match="made by another model"):
        aevb.decompress(nearly, packed)
    with pytest.raises(DataError, match=r"holds 16 levels .* covers 17 levels"):
        aevb.decompress(vae(aevb.DiscretizedLogistic(4, 17)), packed)


def test_networks_that_compute_other_numbers_give_an_error_and_no_rows() -> None:
    """As on another processor: the same weights, but tanh for relu."""
    model = vae(aevb.Bernoulli(20))
    packed = aevb.compress(model, draws(model, 40))
    other = copy.deepcopy(model)
    turned = [i for i, layer in enumerate(other.decoder.net) if not list(layer.parameters())]
    assert turned
    for i in turned:
        other.decoder.net[i] = nn.Softplus()
    with pytest.raises(DataError, match="decoded to other rows"):
        aevb.decompress(other, packed)


def test_a_header_that_aevb_never_wrote_is_an_error() -> None:
    model = vae(aevb.Bernoulli(4))
    header, words = unpack(_packed(model))
    table = asdict(header)
    del table["blocks"]
    text = json.dumps(table).encode()
    body = struct.pack("<I", len(text)) + text + words.tobytes()
    with pytest.raises(DataError, match="aevb did not write this file"):
        unpack(struct.pack("<8sHI", MAGIC, 1, zlib.crc32(body)) + body)


def test_a_file_is_what_its_parts_say() -> None:
    model = vae(aevb.Bernoulli(4))
    header, words = unpack(_packed(model))
    assert unpack(pack(header, words))[0] == header
    assert np.array_equal(unpack(pack(header, words))[1], words)
    assert (header.n, header.shape, header.dtype, header.values) == (9, [4], "float32", "0 and 1")
    assert header.model == fingerprint(model.state_dict())
    assert list(blocks(header.blocks, 9))[-1].stop == 9


# What can be coded


class Plain(nn.Module):
    """A module that declares nothing."""

    def __init__(self, net: nn.Module, kind: str) -> None:
        super().__init__()
        self.net, self.kind = net, kind

    def forward(self, c: Tensor) -> Distribution:
        out = self.net(c)
        if self.kind == "normal":
            return Independent(Normal(out[..., :2], out[..., 2:].exp()), 1)
        return Independent(torch.distributions.Bernoulli(logits=out), 1)


def test_modules_that_declare_nothing_are_read_by_their_distributions() -> None:
    torch.manual_seed(0)
    model = aevb.VAE(aevb.StandardNormal(2), Plain(nn.Linear(6, 4), "normal"), Plain(nn.Linear(2, 6), "bernoulli"))
    x = draws(model, 30)
    assert torch.equal(aevb.decompress(model, aevb.compress(model, x)), x)


def chain() -> aevb.VAE:
    torch.manual_seed(0)
    link = lambda a, b: aevb.Conditional(aevb.MLP(a, 2 * b, []), aevb.Normal(b))  # noqa: E731
    encoder = aevb.Chain(link(4, 3), link(3, 2))
    prior = aevb.Chain.prior(link(2, 3), aevb.StandardNormal(2))
    return aevb.VAE(prior, encoder, aevb.Conditional(aevb.MLP(3, 4, []), aevb.Bernoulli(4)))


REFUSED = {
    "posterior laplace gives no normal density of each latent": lambda: vae(
        aevb.Bernoulli(4), posterior=aevb.Laplace(3)
    ),
    "posterior full-normal gives no normal density": lambda: vae(aevb.Bernoulli(4), posterior=aevb.FullNormal(3)),
    "prior mixture gives no normal density": lambda: vae(aevb.Bernoulli(4), prior=aevb.Mixture(aevb.Normal(3), 2)),
    "likelihood normal gives no probabilities of single binary numbers": lambda: vae(aevb.Normal(4)),
    "likelihood logistic-mixture gives no probabilities": lambda: vae(aevb.LogisticMixture((3, 1, 2), 2)),
    "chain gives no single layer": chain,
}


SUBPROCESS = """
import sys, torch, aevb
from pathlib import Path
place = Path(sys.argv[1])
sys.path.insert(0, sys.argv[2])
from test_compress import vae
model = vae(aevb.DiscretizedLogistic(40, 16), hidden=[300])
model.load_state_dict(torch.load(place / "model.pt"))
assert torch.equal(aevb.decompress(model, (place / "x.aevb").read_bytes()), torch.load(place / "x.pt"))
"""


@pytest.mark.slow
def test_the_instructions_of_the_processor_change_no_row(tmp_path: Path) -> None:
    """PyTorch without its vector instructions decodes what it coded with them."""
    model = vae(aevb.DiscretizedLogistic(40, 16), hidden=[300])
    x = draws(model, 500)
    (tmp_path / "x.aevb").write_bytes(aevb.compress(model, x))
    torch.save(x, tmp_path / "x.pt")
    torch.save(model.state_dict(), tmp_path / "model.pt")
    words = [sys.executable, "-c", SUBPROCESS, tmp_path, Path(__file__).parent]
    plain = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}
    subprocess.run([str(word) for word in words], env=os.environ | plain, check=True)


@pytest.mark.parametrize("words", REFUSED)
def test_parts_that_cannot_code_are_refused_in_one_sentence(words: str) -> None:
    model = REFUSED[words]()
    x = torch.zeros(5, *model.decoder.family.shape)
    with pytest.raises(RecipeError, match=words.replace("(", r"\(")) as found:
        aevb.compress(model, x)
    assert "bits-back coding requires" in str(found.value)


def test_rows_that_would_not_come_back_exactly_are_refused() -> None:
    model = vae(aevb.Bernoulli(4, relaxed=True))
    x = torch.eye(4)
    assert torch.equal(aevb.decompress(model, aevb.compress(model, x)), x)
    x[2, 3] = 0.3
    with pytest.raises(DataError, match=r"Row 2 holds 0\.300000012, which would not come back"):
        aevb.compress(model, x)
    levels = vae(aevb.DiscretizedLogistic(4, 11))
    with pytest.raises(DataError, match="Row 0 holds"):
        aevb.compress(levels, torch.full((2, 4), 0.30001))


def test_conditions_are_refused() -> None:
    torch.manual_seed(0)
    q, p = aevb.Normal(2), aevb.Bernoulli(4)
    model = aevb.VAE(
        aevb.StandardNormal(2),
        aevb.Conditional(aevb.MLP(7, q.size, []), q),
        aevb.Conditional(aevb.MLP(5, p.size, []), p),
    )
    with pytest.raises(DataError, match="conditions y, which a compressed file does not hold"):
        aevb.compress(model, aevb.Pairs(torch.ones(3, 4), torch.eye(3)))


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = vae(aevb.Bernoulli(4))
    monkeypatch.setitem(sys.modules, "constriction", None)
    bits.library.cache_clear()
    with pytest.raises(RecipeError, match="pip install constriction"):
        _packed(model)


# The pieces


def test_a_stack_gives_latents_back_and_refuses_to_run_dry() -> None:
    grid, q = Grid(-6, 1024), (np.array([3.5, -800.0, 0.0]), np.array([2.0, 40.0, 900.0]))
    stack = Stack(grid, Alphabet(2), fuel(40))
    before, k = stack.words, stack.take(q)
    assert k is not None
    assert np.all(np.abs(k - q[0]) < 5 * q[1])
    stack.put_latents(k, q)
    assert np.array_equal(stack.words, before)
    empty = Stack(grid, Alphabet(2))
    assert empty.take(q) is None
    assert len(empty.words) == 0


def test_words_that_come_later_lie_as_if_they_had_been_there_first() -> None:
    stack = Stack(Grid(-6, 1024), Alphabet(2))
    for _ in range(3):
        stack.refuel()
    assert np.array_equal(stack.words, fuel(stack.fuel))
    assert np.array_equal(fuel(8), fuel(24)[-8:])


def test_blocks_are_of_powers_of_two_and_end_with_the_rows() -> None:
    found = [(block.start, block.stop) for block in blocks([2, 0, 1, 1], 13)]
    assert found == [(0, 1), (1, 2), (2, 6), (6, 13)]


def test_large_counts_are_split_and_joined() -> None:
    k = np.array([0, 1, 2**16, 2**40 + 3, 2**62 + 5])
    lengths, digits = split(k)
    assert lengths.tolist() == [1, 1, 3, 6, 8]
    assert digits[:5].tolist() == [0, 1, 0, 0, 1]
    assert np.array_equal(joined(lengths, digits), k)


@torch.no_grad()
@each_likelihood
def test_a_table_holds_the_probabilities_of_its_values(name: str) -> None:
    model = vae(LIKELIHOODS[name]).double()
    px = model.decode(torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    alphabet = Alphabet.of(px, support_of(px), torch.tensor([[40.0]]))
    table, first = alphabet.table(px)
    assert table.shape == (2 * px.event_shape.numel(), alphabet.columns)
    np.testing.assert_allclose(table.sum(1), 1, atol=1e-3)
    k = torch.full(px.event_shape, 1)
    expected = px.base_dist.log_prob(alphabet.values(k)).flatten()  # type: ignore[attr-defined]
    np.testing.assert_allclose(np.log(table[np.arange(len(table)), 1 - first]), expected, atol=2e-4)


def test_the_table_of_counts_moves_where_it_cannot_hold_them_all() -> None:
    assert Alphabet.of_counts(torch.tensor([[0.0, 63.0]]), 2) == Alphabet(64, open=True)
    assert Alphabet.of_counts(torch.tensor([[0.0, 64.0]]), 2) == Alphabet(128, open=True)
    assert Alphabet.of_counts(torch.tensor([[0.0, 1e6]]), 2) == Alphabet(4096, open=True, moving=True)
    assert Alphabet.of_counts(torch.tensor([[0.0, 1e6]]), 2**21) == Alphabet(64, open=True, moving=True)
    few = torch.cat([torch.zeros(20000), torch.tensor([1e6])]).view(-1, 1)
    assert Alphabet.of_counts(few, 1) == Alphabet(64, open=True)
    px = Independent(torch.distributions.Poisson(torch.tensor([[1e5, 3.0]], dtype=torch.float64)), 1)
    table, first = Alphabet(4096, open=True, moving=True).table(px)
    assert first.tolist() == [10**5 - 2048, 0]
    assert table[:, -1].max() < 1e-3


# The command line


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/tiny, of the digits as 17 levels, and runs/bits, of binary columns."""
    folder = tmp_path_factory.mktemp("compress")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("AEVB_RUNS", raising=False)
        short = ["--samples", 400, "--latent", 2, "--no-figures", *NETS]
        np.save("bits.npy", np.random.default_rng(0).random((60, 5)) < 0.4)
        good("train", "bits.npy", "--out", "runs/bits", *short)
        good("train", "digits", "--out", "runs/tiny", *short)
    return folder


@pytest.fixture
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delenv("AEVB_RUNS", raising=False)


@pytest.mark.usefixtures("_there")
def test_the_verbs_give_rows_back_in_their_units_and_their_type(tmp_path: Path) -> None:
    said = good("compress", "tiny", "--out", tmp_path / "test.aevb")
    test = Run.open("tiny").dataset().test
    size = (tmp_path / "test.aevb").stat().st_size
    assert f"{len(test)} rows, {size:,} bytes, {8 * size / test.stored.numel():.4g} bits per number" in said
    good("decompress", "tiny", tmp_path / "test.aevb", "--out", tmp_path / "x.npy")
    found = np.load(tmp_path / "x.npy")
    assert found.dtype == np.uint8
    assert np.array_equal(found, test.stored.numpy())
    good("compress", "bits", "bits.npy")
    good("decompress", "bits", "runs/bits/compressed-bits.aevb")
    found = np.load("runs/bits/compressed-bits.npy")
    assert found.dtype == bool
    assert np.array_equal(found, np.load("bits.npy"))
    packed = (tmp_path / "test.aevb").read_bytes()
    assert torch.equal(aevb.decompress(Run.open("tiny"), packed), test[:])
    assert aevb.compress(Run.open("tiny"), test) == packed


@pytest.mark.usefixtures("_there")
def test_it_is_said_where_grey_levels_are_lost(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "grey.npy", rng.integers(0, 256, (30, 4, 4), dtype=np.uint8))
    np.save(tmp_path / "black.npy", 255 * rng.integers(0, 2, (30, 4, 4), dtype=np.uint8))
    short = ["--samples", 100, "--latent", 2, "--no-figures", "--set", "data.values=dynamic"]
    good("train", tmp_path / "grey.npy", "--recipe", "bernoulli", "--out", tmp_path / "r", *short, *NETS)
    assert "as 0 and 1" in call("compress", tmp_path / "r", "--out", tmp_path / "a.aevb").err
    assert "as 0 and 1" not in call("compress", "bits").err
    good("compress", tmp_path / "r", tmp_path / "black.npy", "--out", tmp_path / "b.aevb")
    good("decompress", tmp_path / "r", tmp_path / "b.aevb", "--out", tmp_path / "b.npy")
    assert np.array_equal(np.load(tmp_path / "b.npy").reshape(30, 4, 4), np.load(tmp_path / "black.npy"))


@pytest.mark.usefixtures("_there")
def test_the_verbs_say_what_is_wrong(tmp_path: Path) -> None:
    good("compress", "tiny", "--out", tmp_path / "t.aevb")
    assert "made by another model" in mistake("decompress", "bits", tmp_path / "t.aevb", "--out", tmp_path / "x.npy")
    (tmp_path / "t.aevb").write_bytes((tmp_path / "t.aevb").read_bytes()[:-3])
    assert "damaged" in mistake("decompress", "tiny", tmp_path / "t.aevb", "--out", tmp_path / "x.npy")
    assert not (tmp_path / "x.npy").exists()
    assert "end its name in .aevb" in mistake("compress", "tiny", "--out", tmp_path / "t.zip")
    assert "Name the file to decompress" in mistake("decompress", "tiny")


def test_the_support_of_levels_is_known_where_no_part_declares_it() -> None:
    assert support_of(aevb.DiscretizedLogistic(3)(torch.zeros(1, 6))) is Support.LEVELS

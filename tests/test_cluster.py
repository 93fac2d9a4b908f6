"""Clusters whose number and members are known: by a mixture prior, and by a mixture fitted to the codes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import DTYPE
from test_cli import good, mistake, strict
from test_clusters import CENTRES, WEIGHTS, O, clustered, drawn
from torch.distributions import Independent, Normal

import aevb
from aevb.data.tables import read_frame
from aevb.errors import DataError, RecipeError
from aevb.evaluation.latent import agreement
from aevb.figures.cards import table_cards
from aevb.notation import short
from aevb.use.cards import HOLE, Card, Trait, cards, label, traits_of
from aevb.use.cluster import Clusters, held_out, smallest

X, LABELS = drawn(200)


def plain() -> aevb.VAE:
    """The same encoder and decoder under N(0, I)."""
    return O.vae()


# A mixture prior


def test_the_components_of_a_mixture_prior_are_its_clusters() -> None:
    found = aevb.cluster(clustered(), X)
    agrees = agreement(LABELS, found.assigned)
    assert agrees.accuracy > 0.97
    assert found.sizes.tolist() == sorted(found.sizes.tolist(), reverse=True)
    assert int(found.sizes.sum()) == len(X)
    torch.testing.assert_close(found.p.sum(1), torch.ones(len(X), dtype=DTYPE))
    assert found.scores == {}


def test_shares_are_the_mean_of_bayes_rule_over_the_posterior() -> None:
    """A row between two components: 4,000 draws against a million by hand."""
    x = ((CENTRES[:2].mean(0, keepdim=True)) @ O.W.T + O.b) + 0.02
    model = clustered()
    q = model.posterior(x)
    z = q.sample((1_000_000,)).squeeze(1)
    densities = torch.stack([Independent(Normal(c, torch.ones(2, dtype=DTYPE)), 1).log_prob(z) for c in CENTRES], 1)
    expected = (densities + WEIGHTS.log()).softmax(1).mean(0)
    found = aevb.cluster(model, x, samples=4000).p[0]
    torch.testing.assert_close(found.sort().values, expected.sort().values, rtol=0, atol=0.02)
    assert 0.05 < float(found.max()) < 0.95


def test_the_order_of_the_components_does_not_matter() -> None:
    one, other = clustered(), clustered()
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        other.prior.logits.copy_(one.prior.logits[order])
        other.prior.phi.copy_(one.prior.phi[order])
    a, b = aevb.cluster(one, X), aevb.cluster(other, X)
    torch.testing.assert_close(a.p, b.p)
    torch.testing.assert_close(a.centres, b.centres)


def test_a_row_is_clustered_alike_whatever_its_neighbours() -> None:
    model = clustered()
    whole = aevb.cluster(model, X)
    order = whole.sizes.argsort(descending=True)
    some = aevb.cluster(model, X[:100])
    torch.testing.assert_close(some.p.sort(1).values, whole.p[:100][:, order].sort(1).values)


# A mixture that is fitted


def test_well_separated_clusters_are_found_with_their_number() -> None:
    found = aevb.cluster(plain(), X)
    assert found.p.shape == (len(X), 3)
    assert agreement(LABELS, found.assigned).accuracy > 0.97
    assert max(found.scores, key=found.scores.__getitem__) >= 3
    assert found.scores[3] > found.scores[2] > found.scores[1]
    own = aevb.cluster(clustered(), X)
    assert agreement(own.assigned, found.assigned).accuracy > 0.98


@pytest.mark.parametrize("seed", range(2))
def test_one_normal_is_one_cluster(seed: int) -> None:
    found = aevb.cluster(plain(), O.data(200, seed), seed=seed)
    assert found.p.shape == (200, 1)
    torch.testing.assert_close(found.p, torch.ones(200, 1, dtype=DTYPE))


def test_the_rows_that_a_mixture_is_fitted_to_may_be_others() -> None:
    train, _ = drawn(300)
    found = aevb.cluster(plain(), X[:9], train=train)
    assert found.p.shape == (9, 3)
    whole = aevb.cluster(plain(), X, train=train)
    shares = whole.p[:9][:, whole.sizes.argsort()]
    torch.testing.assert_close(found.p.sort(1).values, shares.sort(1).values)


def test_a_number_that_is_given_is_kept() -> None:
    assert aevb.cluster(clustered(), X, 2).p.shape == (len(X), 2)
    assert aevb.cluster(plain(), X, [2, 4]).p.shape == (len(X), 4)
    with pytest.raises(RecipeError, match="number of clusters must be at least 1; got 0"):
        aevb.cluster(plain(), X, 0)
    with pytest.raises(DataError, match="3 rows with codes of 2 numbers are too few for 1 or 2 or 3 clusters"):
        aevb.cluster(plain(), X[:3])
    assert aevb.cluster(plain(), X[:4], 1).p.shape == (4, 1)


def test_the_smallest_number_within_one_error_of_the_best_is_chosen() -> None:
    noise = torch.tensor([1.0, -1.0]).repeat(50)  # an error of 0.1005
    assert smallest({1: noise, 2: noise + 0.5, 3: noise + 0.55, 4: noise + 0.52}) == 2
    assert smallest({1: noise, 2: noise + 0.1}) == 1
    assert smallest({1: noise, 2: noise + 0.101}) == 2


def test_each_of_few_codes_is_held_out_once() -> None:
    z = np.random.default_rng(0).normal(size=(50, 2))
    found = held_out(z, [1, 2], 0)
    assert {c: len(log_p) for c, log_p in found.items()} == {1: 50, 2: 50}
    assert len(held_out(np.random.default_rng(0).normal(size=(3000, 1)), [1, 2], 0)[1]) == 600
    assert list(held_out(z, range(1, 9), 0)) == [1, 2, 3, 4]  # three in a row that are no better


def test_rows_of_few_values_have_as_many_clusters_as_values() -> None:
    """Their codes have no variance within a cluster."""
    x = X[[0, 1, 2]].repeat(40, 1)
    found = aevb.cluster(plain(), x)
    assert agreement(torch.arange(120) % 3, found.assigned).accuracy == 1


# Cards


def test_a_card_says_what_tells_a_cluster_apart() -> None:
    which = torch.tensor([0, 0, 0, 1, 1])
    p = torch.nn.functional.one_hot(which, 2).double()
    found = Clusters(p, torch.tensor([1.0, 3.0, 2.0, 5.0, 9.0]), torch.zeros(2, 1), {}, {})
    rows = np.array([[1, 10, 0, 7], [2, 10, 0, 7], [3, np.nan, 1, 7], [7, 10, 1, 7], [9, 40, 1, 7.0]])
    first, second = cards(found, rows, ["a", "b", "job", "same"], [(), (), ("nurse", "cook"), ()], typical=2)
    assert (first.cluster, first.n, first.share, first.typical) == (0, 3, 0.6, (1, 2))
    assert (second.cluster, second.n, second.share, second.typical) == (1, 2, 0.4, (4, 3))
    by_name = {trait.name: trait for trait in first.traits if trait.value != HOLE}
    a = by_name["a"]
    assert (a.value, a.rest) == (2, 8)
    assert a.difference == pytest.approx((2 - 8) / np.std([1, 2, 3, 7, 9]))
    assert (by_name["b"].value, by_name["b"].rest) == (10, 25)  # the hole is left out
    job = by_name["job"]
    assert (job.value, job.share, job.rest) == ("nurse", pytest.approx(2 / 3), 0)
    assert by_name["same"].difference == 0
    assert [abs(t.difference) for t in first.traits] == sorted((abs(t.difference) for t in first.traits), reverse=True)
    assert label(a) == "a 2 (rest 8)"
    assert label(job) == "job = nurse 67% (rest 0%)"


def test_a_cluster_of_all_rows_differs_from_nothing() -> None:
    everything = np.ones(3, bool)
    rows = np.array([[1.0, np.nan], [2.0, np.nan], [3.0, np.nan]])
    (only,) = traits_of(rows, everything, ["a", "empty"])
    assert (only.value, only.difference) == (2, 0)
    assert label(only) == "a 2"
    same, levels = np.full((4, 2), [7.3, 0.0]), [(), ("x",)]
    assert [trait.difference for trait in traits_of(same, np.array([True, True, True, False]), "ab", levels)] == [0, 0]
    assert [trait.difference for trait in traits_of(same, np.ones(4, bool), "ab", levels)] == [0, 0]
    assert short(-1234.5) == "−1,234"


@pytest.mark.parametrize("letters", [3, 18])
def test_long_words_leave_room_for_the_bars_of_a_card(letters: int) -> None:
    traits = tuple(Trait("x" * letters, "y" * letters, 0.25, 0.5 / (i + 1), 1.0) for i in range(6))
    figure = table_cards([Card(c, 100, 0.33, (1,), traits) for c in range(3)])
    wide = [axes.get_position().width * figure.bbox.width for axes in figure.axes]
    assert len(wide) == 3
    assert min(wide) > 80
    left = [axes.get_position().x0 for axes in figure.axes]
    assert len(set(left)) == (1 if letters == 18 else 3)


# The verb


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of a table of three clusters, in units of its own, and one of digits by a mixture prior."""
    folder = tmp_path_factory.mktemp("clusters")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("AEVB_RUNS", raising=False)
        rng = np.random.default_rng(0)
        of = rng.permutation(np.repeat([0, 1, 2], [300, 200, 100]))
        table = np.array([[0, 500, 3], [9, 500, 3], [0, 900, 3]])[of] + rng.normal(size=(600, 3)) * [0.5, 15, 1]
        np.save("table.npy", table)
        np.save("of.npy", of)
        nets = ["--set", "encoder.hidden=[32]", "--set", "decoder.hidden=[32]", "--no-figures"]
        good("train", "table.npy", "--out", "runs/table", "--latent", 2, "--samples", 20_000, *nets)
        mixed = ["--recipe", "mixture-prior", "--latent", 2, "--samples", 2_000]
        good("train", "digits", "--out", "runs/digits", *mixed, *nets)
    return folder


@pytest.fixture
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delenv("AEVB_RUNS", raising=False)


@pytest.mark.usefixtures("_there")
def test_the_verb_finds_the_clusters_of_a_table(place: Path) -> None:
    good("cluster", "runs/table", "table.npy", "--number", 3, "--out", "clusters.parquet")
    said = good("cluster", "runs/table", "table.npy", "--number", 3, "--out", "clusters.csv")
    written = read_frame("clusters.csv").table.to_arrow().to_pydict()
    assert read_frame("clusters.parquet").table.to_arrow().to_pydict() == written
    Path("clusters.parquet").unlink()
    assert "3 clusters" in said
    with Path("clusters.csv").open() as f:
        lines = list(csv.DictReader(f))
    assert list(lines[0]) == ["row", "cluster", "p"]
    assert [line["row"] for line in lines] == [str(i) for i in range(600)]
    found = np.array([int(line["cluster"]) for line in lines])
    assert agreement(np.load("of.npy"), found).accuracy > 0.98
    assert np.bincount(found)[:3].tolist() == sorted(np.bincount(found).tolist(), reverse=True)
    numbers = strict(good("cluster", "runs/table", "table.npy", "--number", 3, "--json"))
    first, second, third = numbers["cards"]
    assert abs(first["n"] - 300) < 10
    assert second["traits"][0]["name"] == "column 0"  # 9 against 0
    assert second["traits"][0]["value"] == pytest.approx(9, abs=0.2)
    assert third["traits"][0]["name"] == "column 1"  # 900 against 500
    assert third["traits"][0]["value"] == pytest.approx(900, abs=10)
    assert np.load("of.npy")[third["typical"]].tolist() == [2] * 8
    beside, among = place.glob("clusters.*"), (place / "runs/table/figures").glob("clusters.*")
    assert {path.name for path in beside} == {"clusters.csv", "clusters.png", "clusters.svg"}
    assert {path.name for path in among} == {"clusters.png", "clusters.svg"}  # where no file was asked for


@pytest.mark.usefixtures("_there")
def test_the_verb_takes_the_clusters_of_a_mixture_prior() -> None:
    said = good("cluster", "runs/digits", "--out", "shares.npy")
    shares = np.load("shares.npy")
    assert shares.shape[1] == 10
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
    assert "labels: accuracy" in said
    assert "held-out" not in said
    two = good("cluster", "runs/digits", "--number", 2, "--out", "two.npy")
    assert np.load("two.npy").shape[1] == 2
    assert "2 clusters" in two
    assert "end its name in .csv or .parquet or .npy" in mistake("cluster", "runs/digits", "--out", "x.png")


def test_cards_show_levels_by_their_words_and_holes_by_their_share() -> None:

    nan = float("nan")
    rows = np.array([[0, 1.0], [0, nan], [0, nan], [1, 2.0], [1, 3.0], [1, nan]])
    traits = traits_of(rows, np.array([True] * 3 + [False] * 3), ["job", "pay"], [("farmer", "clerk", "(new)"), ()])
    assert [(t.name, t.value) for t in traits][:2] == [("pay", 1.0), ("job", "farmer")]
    holes = next(t for t in traits if t.value == HOLE)
    assert (holes.share, holes.rest) == pytest.approx((2 / 3, 1 / 3))
    assert label(holes) == "pay = (missing) 67% (rest 33%)"
    assert label(traits[1]) == "job = farmer 100% (rest 0%)"

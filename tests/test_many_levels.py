"""Columns of very many levels: the density is that of all probabilities at once, in little memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import aevb
from aevb import Categories, DataError, ManyCategories, RecipeError, ShapeError
from aevb.data import likelihoods
from aevb.data.columns import Column, Schema
from aevb.data.kinds import look
from aevb.data.tables import frame_of
from aevb.probability import many_levels
from aevb.probability.inverse import average, cdf, has_order, icdf
from aevb.runs import columns
from aevb.runs.columns import features_of, parts_of
from aevb.runs.ranges import check_range


def family(levels: int = 700, columns: int = 2) -> ManyCategories:
    torch.manual_seed(0)
    made = ManyCategories(columns, levels, rank=4)
    for part in (made.a, made.b):
        torch.nn.init.normal_(part)
    return made


def dense(made: ManyCategories, phi: Tensor) -> Any:
    """The same probabilities from all logits at once."""
    h = phi.unflatten(-1, (made.shape[0], made.rank))
    among = torch.einsum("...nr,ngr->...ng", h, made.u) + made.a
    inside = torch.einsum("...nr,ngmr->...ngm", h, made.e) + made.b
    inside = torch.where(made.beyond, -torch.inf, inside)
    logits = among.log_softmax(-1).unsqueeze(-1) + inside.log_softmax(-1)
    return Categories(made.shape[0], made.levels)(logits.flatten(-2)[..., : made.levels].flatten(-2))


@pytest.mark.parametrize("piece", [2**21, 3000])
def test_everything_is_that_of_all_probabilities_at_once(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_levels, "PIECE", piece)  # one piece, or many
    made = family()
    phi, x = torch.randn(5, 4, 8), torch.randint(700, (5, 4, 2)).float()
    p, q = made(phi), dense(made, phi)
    torch.testing.assert_close(p.log_prob(x), q.log_prob(x))
    torch.testing.assert_close(p.mean, q.mean)
    torch.testing.assert_close(p.variance, q.variance, rtol=1e-3, atol=1e-2)
    ours, theirs = p.base_dist, q.base_dist
    assert torch.equal(ours.mode, theirs.mode)
    torch.testing.assert_close(cdf(ours, x), cdf(theirs, x), rtol=1e-5, atol=1e-6)
    u = torch.rand(5, 4, 2, dtype=torch.float64)
    assert float((icdf(ours, u) == icdf(theirs, u)).double().mean()) > 0.97
    w = torch.rand(5, 4).double().softmax(0)
    assert torch.equal(average(ours, w), average(theirs, w))
    assert not has_order(ours)
    torch.testing.assert_close(
        torch.cat([part for _, part in ours.probs()], -1).sum(-1), torch.ones(5, 4, 2).double(), atol=1e-5, rtol=0
    )


def test_gradients_are_those_of_all_probabilities_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_levels, "PIECE", 3000)
    made, x = family(), torch.randint(700, (20, 2)).float()
    phi = torch.randn(20, 8, requires_grad=True)
    wanted = [phi, made.u, made.a, made.e, made.b]
    ours = torch.autograd.grad(made(phi).log_prob(x).sum(), wanted)
    theirs = torch.autograd.grad(dense(made, phi).log_prob(x).sum(), wanted)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_draws_have_the_probabilities_of_the_levels() -> None:
    made = family(6, 1)
    p = made(torch.randn(4))
    torch.manual_seed(0)
    drawn = torch.bincount(p.sample((20_000,)).long().flatten(), minlength=6) / 20_000
    exact = torch.cat([part for _, part in p.base_dist.probs()], -1).flatten()
    torch.testing.assert_close(drawn.double(), exact, atol=0.012, rtol=0)


def test_biases_begin_at_the_shares_of_the_levels() -> None:
    made = ManyCategories(1, 7)
    x = torch.tensor([0, 0, 0, 2, 5, 5]).float().unsqueeze(1)
    p = made(made.start(x))
    exact = torch.tensor([3.5, 0.5, 1.5, 0.5, 0.5, 2.5, 0.5]) / 9.5
    torch.manual_seed(0)
    torch.testing.assert_close(torch.cat([part for _, part in p.base_dist.probs()], -1)[0], exact.double())
    assert float(p.log_prob(torch.tensor([6.0])).detach().exp()) == pytest.approx(0.5 / 9.5, abs=1e-6)


def test_memory_of_a_minibatch_does_not_grow_with_rows_times_levels() -> None:
    """The largest tensor of a step on 500 rows and 60,000 levels is far smaller than all their logits."""
    made, largest = ManyCategories(1, 60_000), 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            out = call(*args, **(kwargs or {}))
            largest = max([largest, *(t.numel() for t in [out] if isinstance(t, Tensor))])
            return out

    phi, x = torch.randn(500, 16, requires_grad=True), torch.randint(60_000, (500, 1)).float()
    with Watch():
        made(phi).log_prob(x).sum().backward()
    assert largest <= 2**21 < 500 * 60_000 / 10
    with torch.no_grad(), Watch():
        made(phi[:20]).sample((50,))
        average(made(phi[:20].view(4, 5, 16)).base_dist, torch.full((4, 5), 0.25))
    assert largest <= 2**21


def test_a_schema_asks_for_it_from_some_hundred_levels_on() -> None:
    few, many = (Column(f"c{n}", "categorical", likelihood="categorical", levels=tuple(range(n))) for n in (400, 600))
    parts = parts_of(Schema((few, many)))
    assert [part["type"] for part in parts] == ["categories", "many-categories"]
    table = {"type": "columns", "parts": parts}
    assert features_of(table, 2).size == 2 * 16  # vectors for both, no indicator
    with pytest.raises(ShapeError, match="one number of classes"):
        ManyCategories(2, [5, 6])


def test_a_column_of_many_levels_is_learned_filled_and_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which half of the levels a row has depends on a number beside it. Here more than 5 levels are many."""
    monkeypatch.setattr(columns, "MANY", 5)
    noise = np.random.default_rng(0)
    up = noise.random(600) < 0.5
    code = noise.integers(0, 4, 600) + 4 * up
    numbers = np.where(up, 3.0, -3.0)[:, None] + 0.5 * noise.normal(size=(600, 3))
    table = pd.DataFrame(numbers, columns=["x", "y", "z"]).assign(code=[f"v{c}" for c in code])
    model = aevb.VAESynthesizer(2, samples=30_000, random_state=0).fit(table)
    assert model.recipe_.settings["likelihood"]["parts"][-1]["type"] == "many-categories"
    for number, half in ((3.0, {"v4", "v5", "v6", "v7"}), (-3.0, {"v0", "v1", "v2", "v3"})):
        drawn = model.sample(300, given={"x": number})["code"]
        assert drawn.isin(half).mean() > 0.85
        assert drawn.value_counts(normalize=True)[list(half)].min() > 0.08
    holed = table[:50].assign(code=None)
    filled = aevb.impute(model.model_, model.fitted_.split(model.fitted_.stored(frame_of(holed))[0]), 100).values[:, 3]
    sure = torch.tensor((holed["x"].abs() > 1.0).tolist())
    assert bool(((filled >= 4) == torch.from_numpy(up[:50]))[sure].all())


def test_a_million_levels_are_admitted_and_more_than_can_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_range("likelihood.parts[0] (many-categories)", "classes", [1_000_001])
    with pytest.raises(RecipeError, match="classes: expected a number at least 0 and at most 1e\\+07; got 10000002"):
        check_range("likelihood.parts[0] (many-categories)", "classes", [10_000_002])
    monkeypatch.setattr(likelihoods, "LEVELS", 20)
    frame = frame_of(pd.DataFrame({"user": [f"u{i % 21}" for i in range(100)], "x": np.arange(100) / 7}))
    with pytest.raises(DataError, match=r"'user' cannot be categorical: it has 21 levels, and 20 are possible\. Leave"):
        look(frame)
    assert not look(frame, {"user": "id"}).columns[0].modelled  # the cure

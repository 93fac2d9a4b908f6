"""What a model is good for, from Python: results without gradients, refusals in one sentence, reprs of one line."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, MultivariateNormal, Normal

import aevb
from aevb.data.dataset import Split, Values
from aevb.errors import AevbError, DataError, ShapeError

D = 4


def model(conditions: int = 0) -> aevb.VAE:
    torch.manual_seed(0)
    q, p = aevb.Normal(2), aevb.Normal(D)
    encoder = aevb.Conditional(aevb.MLP(D + conditions, q.size, [8]), q)
    return aevb.VAE(aevb.StandardNormal(2), encoder, aevb.Conditional(aevb.MLP(2 + conditions, p.size, [8]), p))


X = torch.randn(30, D, generator=torch.Generator().manual_seed(0))


def test_functions_give_the_means_of_the_model_without_gradients() -> None:
    m = model()
    z = m.encode(X)
    assert z.requires_grad
    centre = z[0] * torch.tensor([1.0, 0.0])
    results = {
        "encode": (aevb.encode(m, X), z),
        "decode": (aevb.decode(m, z.detach().numpy()), m.decode(z).mean),
        "reconstruct": (aevb.reconstruct(m, X.numpy()), m.decode(z).mean),
        "interpolate": (aevb.interpolate(m, X[:3].numpy(), X[3:6], 3)[:, 1], m.decode((z[:3] + z[3:6]) / 2).mean),
        "traverse": (
            aevb.traverse(m, X[:1], [1], span=0.5, steps=3).x[0, 1],
            m.decode(centre).mean,
        ),
    }
    for name, (found, expected) in results.items():
        assert not found.requires_grad, name
        torch.testing.assert_close(found, expected.detach(), msg=name)


def test_a_score_is_of_the_row_the_model_and_the_seed_alone() -> None:
    m = model()
    found = aevb.score(m, X, 50)
    torch.testing.assert_close(found.log_px, aevb.log_marginal(m, X, 50).log_px, rtol=0, atol=0)
    alone = torch.cat([aevb.score(m, X[i : i + 1].numpy(), 50).log_px for i in (7, 3)])
    torch.testing.assert_close(alone, found.log_px[[7, 3]], rtol=0, atol=1e-5)
    assert not torch.equal(aevb.score(m, X, 50, seed=1).log_px, found.log_px)
    assert aevb.score(m, 10 + X, 50).log_px.max() < found.log_px.min()  # the higher, the more normal


def test_a_score_is_a_density_of_the_data_as_given() -> None:
    m, stored = model(), 3 + 5 * X.double()
    split = Split(stored, None, Values("standardized").fitted(stored))
    moved = aevb.score(m, split, 50).log_px - aevb.score(m, split[:], 50).log_px
    torch.testing.assert_close(moved, torch.full((30,), -float(stored.std(0, correction=0).log().sum())).double())


REFUSED: dict[str, tuple[Callable[[aevb.VAE], Any], type[AevbError], str]] = {
    "no step": (lambda m: aevb.interpolate(m, X[:1], X[1:2], 0), ShapeError, "at least 2 steps, its ends; got 0"),
    "other ends": (lambda m: aevb.interpolate(m, X[:1], X[1:3]), ShapeError, r"got \(1, 4\) and \(2, 4\)"),
    "two points": (lambda m: aevb.traverse(m, X[:2], [0]), ShapeError, r"one data point stays.*got 2.*x\[:1\]"),
    "latent 99": (lambda m: aevb.traverse(m, X[:1], [0, 99]), ShapeError, r"from 0 to 1; got \[99\]"),
    "latent -1": (lambda m: aevb.traverse(m, X[:1], [-1]), ShapeError, r"from 0 to 1; got \[-1\]"),
    "no latent": (lambda m: aevb.traverse(m, X[:1], []), ShapeError, "from 0 to 1; got none"),
    "no value": (lambda m: aevb.traverse(m, X[:1], [0], steps=0), ShapeError, "steps must be at least 1"),
    "a vector": (lambda m: aevb.encode(m, X[0]), DataError, r"got the shape \(4,\).*x\.unsqueeze\(0\)"),
    "a wide code": (lambda m: aevb.decode(m, torch.zeros(3, 5)), ShapeError, r"need the shape \(N, 2\); got \(3, 5\)"),
    "one code": (lambda m: aevb.decode(m, torch.zeros(2)), ShapeError, r"need the shape \(N, 2\); got \(2,\)"),
    "a code of NaN": (lambda m: aevb.decode(m, np.full((3, 2), np.nan)), DataError, "NaN or infinite"),
    "no sample": (lambda m: aevb.generate(m, 0), ShapeError, "n must be a whole number of at least 1; got 0"),
    "half a sample": (lambda m: aevb.generate(m, 1.5), ShapeError, "at least 1; got 1.5"),
    "a y too many": (lambda m: aevb.generate(m, 3, y=torch.eye(3)), ShapeError, "unconditional: give only z"),
    "too few y": (
        lambda m: aevb.generate(m, 3, y=torch.eye(2)),
        ShapeError,
        r"3 conditions y .*got the shape \(2, 2\)",
    ),
    "no data": (lambda m: aevb.encode(m, None), DataError, "one array, a row for each"),
    "a path": (lambda m: aevb.encode(m, "x.npy"), DataError, r"take aevb\.load_data\(path\)"),
    "a list": (lambda m: aevb.encode(m, list(X)), DataError, r"numpy\.array\(x\); a list of tensors, .*stack\(x\)"),
    "beyond float32": (lambda m: aevb.score(m, 1e40 * X.double()), DataError, r"above 3\.4e\+38 .*change its unit"),
    "an infinite row": (lambda m: aevb.score(m, X.numpy() / 0.0), DataError, "infinite values in"),
}


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize(("use", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_in_one_sentence(
    use: Callable[[aevb.VAE], Any], error: type[AevbError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        use(model())
    assert "\n" not in str(caught.value)


def test_objectives_print_as_they_are_made() -> None:
    made = [
        "ELBO()",
        "ELBO(beta=4)",
        "ELBO(estimator='A', samples=2)",
        "ELBO(beta=Linear(start=0, end=1, steps=10))",
        "ImportanceWeighted(samples=50, gradient='dreg')",
        "Regularized(bound=ELBO(beta=0), terms=[MMD(weight=10)])",
        "WakeSleep()",
        "DIP(weight=3)",
        "TotalCorrelation(weight=5)",
        "Commitment()",
    ]
    for text in made:
        objective = eval(text, {name: getattr(aevb, name) for name in aevb.__all__ if name[0].isupper()})
        assert repr(objective) == text
        assert repr(copy.deepcopy(objective)) == text


def test_results_print_on_one_line() -> None:
    m = model()
    results = [
        aevb.log_marginal(m, X, 30),
        aevb.surgery(m, X),
        aevb.fit_prior(m, X, (1,)),
        aevb.gradient_noise(m, aevb.ELBO(), X, 3),
        aevb.fidelity(X, X),
        aevb.bidirectional(m, 3, 2, aevb.Annealing(3, 1)),
        aevb.elbo(m, X),
        aevb.traverse(m, X[:1], [0]),
        aevb.evaluate(m, X),
    ]
    for result in results:
        assert repr(result).startswith(f"{type(result).__name__}(")
        assert "\n" not in repr(result)
        assert len(repr(result)) < 360
    assert f"log_px=<mean {float(results[0].log_px.mean()):.4g} of (30,)>" in repr(results[0])  # type: ignore[union-attr]


def test_an_evaluation_prints_as_a_table_of_its_numbers() -> None:
    found = aevb.evaluate(model(), X, importance_samples=1)
    lines = {line.split("  ")[0]: line for line in str(found).split("\n")}
    assert f"{float(found.elbo):.2f} ± {found.elbo.se:.2f}  nats" in lines["ELBO"]
    assert lines["log p(x)"].endswith("nats, 1 importance sample")
    assert f"<td>{found.elbo}</td>" in found._repr_html_()


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_learner_that_is_saved_and_restored_goes_on_where_it_stood(ema: float | None, tmp_path: Path) -> None:
    settings = aevb.Training(samples=200, batch=10, ema=ema, learning_rate=aevb.Cosine(1, 0, 20))

    def learner() -> aevb.Learner:
        return aevb.Learner(model(), aevb.ELBO(), settings, len(X))

    whole = learner()
    expected = [float(step.info["loss"]) for step in aevb.continue_training(whole, X)]
    first = learner()
    steps = aevb.continue_training(first, X)
    losses = [float(next(steps).info["loss"]) for _ in range(7)]
    torch.save(first.state_dict(), tmp_path / "learner.pt")
    second = learner()
    second.load_state_dict(torch.load(tmp_path / "learner.pt"))
    assert second.number == 7
    losses += [float(step.info["loss"]) for step in aevb.continue_training(second, X)]
    assert losses == expected
    for a, b in zip(second.best_known.parameters(), whole.best_known.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_learner_refuses_the_state_of_another_one() -> None:
    state = aevb.Learner(model(), aevb.ELBO(), aevb.Training(batch=10), 30).state_dict()
    for other in (
        aevb.Learner(model(), aevb.ELBO(), aevb.Training(batch=5), 30),
        aevb.Learner(model(), aevb.ELBO(), aevb.Training(batch=10), 20),
    ):
        with pytest.raises(aevb.RunError, match=r"'rows': 30, 'batch': 10.*Make a Learner like it"):
            other.load_state_dict(state)


class Mixture(nn.Module):
    """A prior by torch's own mixture."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        self.mean, self.spelling = nn.Parameter(torch.tensor([[-1.0, 0.5], [0.3, -0.2], [1.0, 1.0]])), spelling

    def forward(self) -> Distribution:
        weights = Categorical(torch.ones(3))
        if self.spelling == "independent":
            return MixtureSameFamily(weights, Independent(Normal(self.mean, 1.0), 1))
        if self.spelling == "full":
            return MixtureSameFamily(weights, MultivariateNormal(self.mean, torch.eye(2).expand(3, 2, 2)))
        return Independent(MixtureSameFamily(Categorical(torch.ones(2, 3)), Normal(self.mean.T, 1.0)), 1)


def annealed(m: aevb.VAE, x: torch.Tensor) -> aevb.Marginal:
    return aevb.log_marginal_ais(m, x, 20, aevb.Annealing(30, 3))


@pytest.mark.parametrize("spelling", ["independent", "full", "of numbers"])
def test_torchs_own_mixture_is_a_prior(spelling: str) -> None:
    m = aevb.VAE(Mixture(spelling), model().encoder, model().decoder)
    losses = [float(s.info["loss"]) for s in aevb.train(m, aevb.ELBO(), X, aevb.Training(samples=1000))]
    assert losses[-1] < losses[0]
    found = [e(m, X[:5]).log_px for e in (aevb.log_marginal, annealed)]
    torch.testing.assert_close(*found, rtol=0, atol=0.3)
    aevb.figures.manifold(m, n=3)
    aevb.figures.latent(m, X)

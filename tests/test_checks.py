"""Data are held against the model in all their rows, by training and by evaluation, and each remedy that is named
cures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from torch.utils.data import Dataset as MapStyle

import aevb
from aevb.data.batch import batches, check_finite, rows_at_once
from aevb.data.dataset import Dataset, Split, Values
from aevb.errors import DataError, ShapeError
from aevb.evaluation.bound import elbo
from aevb.evaluation.latent import component_shares
from aevb.evidence.support import NoLikelihood
from aevb.models.checks import BLOCK, check_data
from aevb.models.priors import UniformOverCodes
from aevb.use.encode import encode, posterior_draws
from aevb.use.reconstruct import decode, reconstruct

N, D = 600, 6


def model(p: aevb.Family, conditions: int = 0) -> aevb.VAE:
    torch.manual_seed(0)
    q = aevb.Normal(2)
    encoder = aevb.Conditional(aevb.MLP(D + conditions, q.size, [8]), q)
    return aevb.VAE(aevb.StandardNormal(2), encoder, aevb.Conditional(aevb.MLP(2 + conditions, p.size, [8]), p))


class Rows:
    """A user's own data."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.x[index]


CONTAINERS: dict[str, Callable[[Tensor], Any]] = {
    "tensor": lambda x: x,
    "split": lambda x: Split(x, None, Values("raw")),
    "pairs": lambda x: aevb.Pairs(x, torch.ones(len(x), 3)),
    "own": Rows,
}
OUTSIDE = {  # a likelihood, a value that it covers, and one that it does not
    "a 2 of a Bernoulli": (aevb.Bernoulli(D), 1.0, 2.0),
    "grey levels": (aevb.Bernoulli(D), 0.0, 0.25),
    "a negative count": (aevb.Poisson(D), 3.0, -1.0),
    "half a count": (aevb.NegativeBinomial(D), 3.0, 0.5),
    "a zero of a Gamma": (aevb.Gamma(D), 0.5, 0.0),
    "a one of a Beta": (aevb.Beta(D), 0.5, 1.0),
    "bytes": (aevb.ContinuousBernoulli(D), 0.5, 255.0),
    "a level between levels": (aevb.Categorical(D, 4), 2.0, 0.5),
}


def bad_row(inside: float, outside: float, row: int = 228) -> Tensor:
    x = torch.full((N, D), inside)
    x[row, 4] = outside
    return x


def train(m: nn.Module, data: Any, objective: Any = None) -> None:
    for _ in aevb.train(m, objective or aevb.ELBO(), data, aevb.Training(batch=50, samples=100)):
        pass


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize(("p", "inside", "outside"), OUTSIDE.values(), ids=OUTSIDE)
def test_a_value_outside_of_the_support_is_refused_with_its_row(
    container: Callable[[Tensor], Any], p: aevb.Family, inside: float, outside: float
) -> None:
    """Of one row among 600, beyond the first minibatch, before the first step; and data without it train."""
    pairs = container is CONTAINERS["pairs"]
    m = model(p, 3 if pairs else 0)
    before = [w.clone() for w in m.parameters()]
    with pytest.raises(DataError, match=rf"the data hold {outside:g} in row 228\b"):
        train(m, container(bad_row(inside, outside)))
    assert all(torch.equal(a, b) for a, b in zip(before, m.parameters(), strict=True))
    train(m, container(torch.full((N, D), inside)))


def test_the_rows_of_later_blocks_have_their_own_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 10 rows: the number is that in the data, not in the block."""
    monkeypatch.setattr("aevb.models.checks.BLOCK", 10 * D)
    assert BLOCK > 10 * D
    for row in (0, 9, 10, 599):
        with pytest.raises(DataError, match=rf"hold 2 in row {row}\b"):
            check_data(model(aevb.Bernoulli(D)), bad_row(1.0, 2.0, row))
        with pytest.raises(DataError, match=rf"hold 1 NaN or infinite values in row {row}\b"):
            check_data(model(aevb.Normal(D)), bad_row(1.0, float("nan"), row))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused_in_x_and_in_y(value: float) -> None:
    m = model(aevb.Normal(D), 3)
    y = torch.zeros(N, 3)
    y[200, 1] = value
    for pairs in (aevb.Pairs(torch.zeros(N, D), y), aevb.Pairs(bad_row(0.0, value, 200), torch.zeros(N, 3))):
        for use in (train, lambda m, d: aevb.log_marginal(m, d, 2), encode, elbo):
            with pytest.raises(
                DataError, match=r"hold 1 NaN or infinite values in row 200\. Remove these rows, or fill"
            ):
                use(m, pairs)


@pytest.mark.parametrize("p", [aevb.Normal(D), aevb.Bernoulli(D)], ids=["normal", "bernoulli"])
def test_validation_data_are_checked_before_the_first_step(p: aevb.Family) -> None:
    x = torch.zeros(N, D)
    learner = aevb.Learner(model(p), aevb.ELBO(), aevb.Training(), N)
    value = float("nan") if isinstance(p, aevb.Normal) else 2.0
    with pytest.raises(DataError, match=r"in row 599\b"):
        aevb.train_events(learner, x, bad_row(0.0, value, 599))
    assert learner.number == 0


class Items(MapStyle[Any]):
    """A data set of PyTorch, whose items come one by one."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> Any:
        return self.items[row]


class Plain:
    """A data set that is of no class of PyTorch."""

    def __init__(self, items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> Any:
        if not isinstance(row, int):
            raise TypeError(f"list indices must be integers, not {type(row).__name__}")
        return self.items[row]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(torch.zeros(20, D))


USES: dict[str, Callable[[Any, Any], Any]] = {
    "evaluate": lambda m, d: aevb.evaluate(m, d, importance_samples=2),
    "log_marginal": lambda m, d: aevb.log_marginal(m, d, 2),
    "elbo": elbo,
    "encode": encode,
    "posterior_draws": lambda m, d: posterior_draws(m, d, 1),
    "reconstruct": reconstruct,
    "component_shares": component_shares,
    "disentanglement": lambda m, d: aevb.disentanglement(m, d, torch.arange(20.0)[:, None]),
    "fit_prior": lambda m, d: aevb.fit_prior(m, d, (1,)),
    "surgery": lambda m, d: aevb.surgery(m, d, draws=10),
    "log_marginal_ais": lambda m, d: aevb.log_marginal_ais(m, d, 1, aevb.Annealing(2, 1)),
    "log_marginal_hmc": lambda m, d: aevb.log_marginal_hmc(m, d, 10, aevb.ChainSettings(1, 1, 1)),
    "train": train,
}
X = torch.zeros(20, D)
UNFIT: dict[str, tuple[Any, str]] = {
    "complex": (X.to(torch.complex64), r"Real numbers are needed; got torch\.complex64"),
    "a vector": (X[:, 0], r"got the shape \(20,\).*x\.unsqueeze\(1\)"),
    "a vector of NumPy": (X[:, 0].numpy(), r"got the shape \(20,\).*x\.unsqueeze\(1\)"),
    "words": (np.array([["a"] * D] * 20), r"An array of numbers is needed; got one of the type <U1"),
    "no matrix": (np.array(1.0), r"got an array of the shape \(\)"),
    "a list": (X.tolist(), r"got list .*numpy\.array\(x\)"),
    "a stream": (Stream(), r"the stream Stream does not have"),
    "a loader of a stream": (DataLoader(Stream()), r"the stream Stream does not have"),
    "a loader with weights": (
        DataLoader(TensorDataset(X), sampler=WeightedRandomSampler([1.0] * 20, 20)),
        r"the loader's WeightedRandomSampler would have no effect\. Give its data set, as in loader\.dataset",
    ),
    "items of three parts": (Items([(X[0], X[0], 1)] * 20), r"x, or x with a condition y; got 3 parts"),
    "items that are no numbers": (Items([{"pixels": X[0]}] * 20), r"got dict\. Give the data set a transform"),
    "masked": (
        np.ma.masked_equal(X.numpy() + np.eye(20, D), 1.0),
        r"NaN or infinite values in (\d rows \(0, 1|row 0\b)",
    ),
    "sparse": (X.to_sparse(), r"got the layout torch\.sparse_coo\. Convert, as in x\.to_dense\(\)"),
    "empty": (X[:0], r"length 0\. Choose a split that has rows"),
    "NaN": (bad_row(0.0, float("nan"))[220:240], r"1 NaN or infinite values in row 8\b"),
    "infinity": (bad_row(0.0, float("inf"))[220:240], r"1 NaN or infinite values in row 8\b"),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize(("data", "message"), UNFIT.values(), ids=UNFIT)
def test_evaluation_refuses_what_training_refuses(use: Callable[[Any, Any], Any], data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        use(model(aevb.Normal(D)), data)


LIKELIHOODS = ("evaluate", "log_marginal", "elbo", "surgery", "log_marginal_ais", "log_marginal_hmc", "train")


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_pixels_from_0_to_255_have_no_likelihood(name: str) -> None:
    """Where it covers 0 to 1: each number that is one of log p(x) is refused."""
    x = torch.randint(0, 256, (30, D), generator=torch.Generator().manual_seed(0)).float()
    with pytest.raises(DataError, match=r"continuous-bernoulli covers .* in row 0\. Rescale the data"):
        USES[name](model(aevb.ContinuousBernoulli(D)), x)
    USES[name](model(aevb.ContinuousBernoulli(D)), x / 255)  # the remedy


def test_the_remedies_cure() -> None:
    m = model(aevb.Normal(D))
    expected = encode(m, X)
    for cured in (
        X.double().to(torch.float32),
        X.long().float(),
        X.byte().float() / 255,
        torch.as_tensor(X.numpy()).float(),
        torch.tensor(X.tolist()).float(),
        TensorDataset(X).tensors[0],
        torch.stack([point for (point,) in TensorDataset(X)]),
        DataLoader(TensorDataset(X)).dataset.tensors[0],  # type: ignore[attr-defined]
        X.to_sparse().to_dense(),
    ):
        assert torch.equal(encode(m, cured), expected)
    torch.testing.assert_close(encode(m.double(), X.double()).float(), expected)


def test_a_model_refuses_by_itself_what_is_no_data() -> None:
    for data, message in (
        ([1.0], r"got list "),
        (X[0], r"got the shape \(6,\)"),
        (bad_row(0.0, math.nan), "in row 228"),
    ):
        with pytest.raises(DataError, match=message):
            model(aevb.Normal(D)).encode(data)


def test_a_check_changes_neither_modes_nor_the_callers_random_numbers() -> None:
    m = model(aevb.Bernoulli(D))
    m.train()
    m.decoder.eval()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    check_data(m, torch.zeros(N, D))
    assert torch.equal(torch.rand(3), expected)
    assert m.encoder.training
    assert not m.decoder.training


def test_all_rows_are_read_once() -> None:
    class Counting(Rows):
        seen: list[int] = []

        def __getitem__(self, index: Tensor) -> Tensor:
            self.seen += index.tolist()
            return self.x[index]

    check_data(model(aevb.Bernoulli(D)), Counting(torch.zeros(N, D)))
    assert set(Counting.seen) == set(range(N))
    assert len(Counting.seen) < N + 8  # the first and the last once more, for their shapes


# Hidden labels


def hidden() -> tuple[Tensor, Tensor]:
    x = torch.zeros(60, D)
    return x, aevb.one_hot(aevb.hide_labels(torch.arange(60) % 3, 4), 3)


def test_hidden_labels_are_refused_by_objectives_that_cannot_learn_from_them() -> None:
    x, y = hidden()
    for objective in (aevb.ELBO(), aevb.ImportanceWeighted(2), aevb.WakeSleep()):
        with pytest.raises(
            DataError, match=r"The label of 48 rows \(.*\) is hidden: .* Only M2 learns from rows without a"
        ):
            train(model(aevb.Normal(D), 3), aevb.Pairs(x, y), objective)


def test_both_remedies_for_hidden_labels_cure_and_m2_learns_from_them() -> None:
    x, y = hidden()
    known = y.any(1)
    train(model(aevb.Normal(D), 3), aevb.Pairs(x[known], y[known]))
    train(model(aevb.Normal(D), 4), aevb.Pairs(x, torch.cat([y, (~known).float().unsqueeze(1)], 1)))
    train(model(aevb.Normal(D), 3), aevb.Pairs(x, y), aevb.M2(aevb.MLP(D, 3), labeled_fraction=0.2))


@pytest.mark.parametrize(
    "y",
    [
        torch.arange(60).unsqueeze(1) % 2,  # one binary attribute
        torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]]).repeat(15, 1),  # several attributes
        torch.linspace(0, 1, 60).unsqueeze(1).repeat(1, 3),  # numbers
        torch.zeros(60, 3),  # nothing is known, and nothing could be learnt of it
    ],
    ids=["binary", "attributes", "numbers", "zeros"],
)
def test_other_conditions_may_be_zero(y: Tensor) -> None:
    train(model(aevb.Normal(D), y.shape[1]), aevb.Pairs(torch.zeros(60, D), y.float()))


# The parts


def test_finite_numbers_pass_however_large() -> None:
    check_finite(torch.tensor([[3e38, -3e38], [1e-45, 0.0]]))
    check_finite(torch.zeros(0, 3))
    for x in (torch.tensor([[1.0], [float("nan")]]), torch.tensor([[1.0], [float("inf")]])):
        with pytest.raises(DataError, match=r"in row 11\b"):
            check_finite(x, first=10)


def test_batches_are_the_data_in_order() -> None:
    x = torch.arange(30.0).view(10, 3)
    found = list(batches(x, 4, "cpu", torch.float32))
    assert torch.equal(torch.cat([b.x for b in found]), x)
    assert [len(b) for b in found] == [4, 4, 2]
    assert torch.equal(torch.cat([b.rows for b in found if b.rows is not None]), torch.arange(10))
    assert {b.of for b in found} == {10}


def test_data_of_a_wrong_shape_are_refused_before_they_are_encoded() -> None:
    with pytest.raises(ShapeError, match=r"is over the shape \(6,\), but one data point has the shape \(6, 1\)"):
        check_data(model(aevb.Normal(D)), torch.zeros(5, D, 1))


WHOLE = torch.randint(0, 9, (20, D), generator=torch.Generator().manual_seed(0)).float()  # exact in every type
FORMS: dict[str, Callable[[Tensor], Any]] = {
    "float64": lambda x: x.double(),
    "float16": lambda x: x.half(),
    "integers": lambda x: x.long(),
    "bytes": lambda x: x.byte(),
    "NumPy": lambda x: x.numpy(),
    "NumPy float64": lambda x: x.double().numpy(),
    "NumPy int16": lambda x: x.numpy().astype(np.int16),
    "NumPy uint8": lambda x: x.numpy().astype(np.uint8),
    "NumPy uint32": lambda x: x.numpy().astype(np.uint32),
    "NumPy big-endian": lambda x: x.numpy().astype(">f4"),
    "NumPy reversed": lambda x: x.numpy()[::-1].copy()[::-1],
    "a tensor data set": TensorDataset,
    "a tensor data set with labels": lambda x: TensorDataset(x, torch.arange(len(x))),
    "a subset": lambda x: Subset(TensorDataset(torch.cat([x.flip(0), x])), range(20, 40)),
    "a subset of a split": lambda x: Subset(Split(torch.cat([x.flip(0), x]), None, Values("raw")), range(20, 40)),
    "items": lambda x: Items([*x]),
    "items of NumPy": lambda x: Items([*x.double().numpy()]),
    "items with labels": lambda x: Items([(row, 3) for row in x]),
    "items of lists": lambda x: Items([(row.tolist(),) for row in x]),
    "items of no class of PyTorch": lambda x: Plain([*x]),
    "a loader": lambda x: DataLoader(TensorDataset(x), batch_size=7, shuffle=True),
    "a loader of some rows": lambda x: DataLoader(
        TensorDataset(torch.cat([x, x + 1])), 3, sampler=SubsetRandomSampler(range(20))
    ),
    "a loader that collates": lambda x: DataLoader(Items([*(x - 1)]), 4, collate_fn=lambda rows: torch.stack(rows) + 1),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_data_of_every_form_are_read_as_the_tensor_is(form: Callable[[Tensor], Any]) -> None:
    m, data = model(aevb.Normal(D)), form(WHOLE)
    assert torch.equal(encode(m, data), encode(m, WHOLE))
    assert torch.equal(m.encode(data), m.encode(WHOLE))
    assert torch.equal(aevb.log_marginal(m, data, 3).log_px, aevb.log_marginal(m, WHOLE, 3).log_px)
    assert aevb.evaluate(m, data, importance_samples=2).elbo == aevb.evaluate(m, WHOLE, importance_samples=2).elbo
    few = aevb.Training(samples=30, batch=10)
    a, b = model(aevb.Normal(D)), model(aevb.Normal(D))
    losses = [[float(s.info["loss"]) for s in aevb.train(m, aevb.ELBO(), d, few)] for m, d in ((a, data), (b, WHOLE))]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 3


@pytest.mark.parametrize("name", [name for name in USES if name not in ("disentanglement", "train")])
def test_each_use_takes_a_loader(name: str) -> None:
    """A loader's length is a number of batches, not of rows."""
    m = model(aevb.Normal(D))
    ours, theirs = (USES[name](m, d) for d in (WHOLE, DataLoader(TensorDataset(WHOLE), batch_size=6)))
    for a, b in zip(*(vars(r).values() if hasattr(r, "__dict__") else [r] for r in (ours, theirs)), strict=True):
        if isinstance(a, Tensor):
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def test_memory_maps_are_read_row_by_row(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", WHOLE.numpy())
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert torch.equal(encode(model(aevb.Normal(D)), x), encode(model(aevb.Normal(D)), WHOLE))


def test_conditions_come_with_items_where_they_are_vectors() -> None:
    m, y = model(aevb.Normal(D), 3), torch.eye(3)[torch.arange(20) % 3]
    expected = encode(m, aevb.Pairs(WHOLE, y))
    forms = (TensorDataset(WHOLE, y), Items([*zip(WHOLE, y.long(), strict=True)]), aevb.Pairs(WHOLE.numpy(), y.numpy()))
    for data in (*forms, DataLoader(forms[0])):
        assert torch.equal(encode(m, data), expected)
    plain = model(aevb.Normal(D))
    assert torch.equal(encode(plain, TensorDataset(WHOLE, y.argmax(1))), encode(plain, WHOLE))  # a label is none


def test_a_model_reads_data_in_its_own_type_and_keeps_derivatives() -> None:
    m = model(aevb.Normal(D)).double()
    assert m.encode(WHOLE.numpy()).dtype == torch.float64
    x = WHOLE.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(m.encode(x).sum(), x)
    assert gradient.abs().min() > 0
    z = torch.ones(4, 2, requires_grad=True)
    assert torch.autograd.grad(m.decode(z).mean.sum(), z)[0].abs().min() > 0
    assert m.decode(np.ones((4, 2))).mean.shape == (4, D)


def test_a_split_is_chosen_of_a_data_set_where_one_is_meant() -> None:
    splits = [Split(WHOLE[a:b], None, Values("raw")) for a, b in ((0, 10), (10, 14), (14, 20))]
    data, m = Dataset("own", *splits), model(aevb.Normal(D))
    assert aevb.evaluate(m, data, importance_samples=2).n == 6
    assert len([*aevb.train(m, aevb.ELBO(), data, aevb.Training(samples=30, batch=10))]) == 3
    with pytest.raises(DataError, match=r"got Dataset .*Take one of its splits, such as data\.test\."):
        encode(m, data)


MISFITS: dict[str, tuple[int, Any, str]] = {
    "wide": (
        0,
        torch.zeros(20, D + 1),
        r"The encoder takes 6 numbers per row, but got x of 7 numbers\.|over the shape",
    ),
    "narrow": (
        0,
        torch.zeros(20, D - 1),
        r"The encoder takes 6 numbers per row, but got x of 5 numbers\.|over the shape",
    ),
    "no y": (3, X, r"takes 9 numbers per row, but got x of 6 numbers\. Is the model conditional\? .*aevb\.Pairs"),
    "a y too many": (
        0,
        aevb.Pairs(X, torch.zeros(20, 3)),
        r"y of 3 numbers\. The model is unconditional: give only x",
    ),
    "a wide y": (
        3,
        aevb.Pairs(X, torch.zeros(20, 4)),
        r"takes 9 numbers per row, but got x of 6 numbers and y of 4 num",
    ),
}


@pytest.mark.parametrize("name", [name for name in USES if name != "disentanglement"])
@pytest.mark.parametrize(("conditions", "data", "message"), MISFITS.values(), ids=MISFITS)
def test_data_that_do_not_fit_a_model_are_named_by_their_sizes(
    name: str, conditions: int, data: Any, message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        USES[name](model(aevb.Normal(D), conditions), data)


def test_codes_of_another_size_are_named_by_it() -> None:
    with pytest.raises(ShapeError, match=r"A code z of this model has the shape \(2,\); got z of the shape \(4, 3\)"):
        model(aevb.Normal(D)).decode(torch.zeros(4, 3))
    with pytest.raises(
        ShapeError, match=r"decoder takes 5 numbers per row, but got z of 2 numbers\. Is the model cond"
    ):
        aevb.generate(model(aevb.Normal(D), 3), 4)


def test_large_data_points_pass_through_a_network_few_at_a_time() -> None:
    size, n = 30_000, 200
    torch.manual_seed(0)
    q, p = aevb.Normal(2), aevb.Normal(size)
    nets = nn.Linear(size, q.size), nn.Linear(2, p.size)
    vae = aevb.VAE(aevb.StandardNormal(2), aevb.Conditional(nets[0], q), aevb.Conditional(nets[1], p))
    seen: list[int] = []
    for net in nets:
        net.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[:-1].numel()))
    x = torch.randn(n, size)
    z = encode(vae, x)
    uses = (
        lambda: posterior_draws(vae, x, 1),
        lambda: reconstruct(vae, x),
        lambda: elbo(vae, x),
        lambda: decode(vae, z),
        lambda: aevb.generate(vae, n),
        lambda: aevb.surgery(vae, x, draws=50),
    )
    for use in uses:
        use()
    assert max(seen) * size <= 2**21
    torch.testing.assert_close(z, torch.cat([encode(vae, x[i : i + 1]) for i in range(n)]))
    torch.testing.assert_close(decode(vae, z), torch.cat([decode(vae, z[i : i + 1]) for i in range(n)]))
    assert rows_at_once((784,)) == 500


def test_a_bound_without_a_finite_kl_names_the_objective_that_has_one() -> None:
    q, p, x = aevb.Delta(2), aevb.Normal(D), torch.randn(N, D)
    encoder = aevb.Conditional(aevb.MLP(D, q.size, [8]), q)
    vae = aevb.VAE(aevb.StandardNormal(2), encoder, aevb.Conditional(aevb.MLP(2, p.size, [8]), p))
    with pytest.raises(aevb.RecipeError, match="beta = 0") as raised:
        list(aevb.train(vae, aevb.ELBO(), x, aevb.Training(samples=200)))
    assert "step size" not in str(raised.value)
    steps = list(aevb.train(vae, aevb.ELBO(beta=0), x, aevb.Training(samples=200)))
    assert all(bool(torch.as_tensor(step.info["reconstruction"]).isfinite()) for step in steps)


def test_wake_sleep_of_a_codebook_has_one_loss_in_training_and_in_evaluation() -> None:
    torch.manual_seed(0)
    x, q, p = torch.rand(50, 16), aevb.VQ((4, 2), codes=8), aevb.Normal(16)
    encoder = aevb.Conditional(aevb.MLP(16, q.size, [32]), q)
    vae = aevb.VAE(UniformOverCodes(encoder), encoder, aevb.Conditional(aevb.MLP((4, 2), p.size, [32]), p))
    losses = []
    for mode in (False, True):
        torch.manual_seed(1)
        losses.append(aevb.WakeSleep(samples=2, wake=1.0)(vae.train(mode), x, 0)[0].detach())
    assert bool(losses[0].isfinite())
    torch.testing.assert_close(*losses)


def test_importance_sampling_from_a_uniform_names_the_estimator_that_is_right() -> None:
    """p(z) = N(0, 1), p(x|z) = N(z, 1), so p(x) = N(0, 2); q(z|x) = U(x/2 - 0.7, x/2 + 0.7) misses tails of p(z|x)."""
    torch.manual_seed(0)
    q, p = aevb.Uniform(1), aevb.Normal(1, scale=1.0)
    encoder, decoder = aevb.Conditional(nn.Linear(1, 2), q), aevb.Conditional(nn.Linear(1, 1), p)
    with torch.no_grad():
        encoder.net.weight.copy_(torch.tensor([[0.5], [0.0]]))
        encoder.net.bias.copy_(torch.tensor([0.0, math.log(0.7)]))
        decoder.net.weight.fill_(1.0)
        decoder.net.bias.zero_()
    vae, x = aevb.VAE(aevb.StandardNormal(1), encoder, decoder), torch.randn(100, 1) * math.sqrt(2)
    with pytest.raises(NoLikelihood, match="annealed importance sampling from the prior"):
        aevb.log_marginal(vae, x)
    assert math.isnan(aevb.evaluate(vae, x).log_likelihood)
    found = aevb.log_marginal_ais(vae, x, 8, aevb.Annealing(100, 5))
    exact = torch.distributions.Normal(0, math.sqrt(2)).log_prob(x[:, 0]).double()
    error = found.log_px - exact
    assert abs(float(error.mean())) < 4 * float(error.std()) / 10

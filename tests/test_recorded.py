"""A recorded step: on buffers that stay in place it trains as the ordinary one. No GPU is needed, and none was used."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import aevb
from aevb.models.priors import KNOWN
from aevb.models.shares import Group, sharing
from aevb.models.trace import sampled
from aevb.training import learner as learners
from aevb.training.checkpoint import moving_tensors, state_tensors
from aevb.training.compiled import RULES, begin
from aevb.training.draws import Unstackable
from aevb.training.events import Course
from aevb.training.recorded import WARM, Reads, Recorded, Repeated
from aevb.training.stacked import train_stacked

SETTINGS: Mapping[str, Any] = {"batch": 20, "samples": 400, "weight_prior": True, "ema": 0.9}


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are recorded without a GPU too, where they are done again."""
    monkeypatch.setattr(learners, "check_graph", lambda device, fusible, wrapped: None)


def tiny(posterior: aevb.Family | None = None, layer: nn.Module | None = None) -> tuple[aevb.VAE, Tensor]:
    torch.manual_seed(0)
    q, p = posterior or aevb.Normal(2), aevb.Bernoulli(12)
    net = nn.Sequential(nn.Linear(12, 16), layer or nn.Tanh(), nn.Linear(16, q.size))
    decoder = aevb.Conditional(aevb.MLP(2, p.size, hidden=[16]), p)
    return aevb.VAE(aevb.StandardNormal(2), aevb.Conditional(net, q), decoder), (torch.rand(60, 12) < 0.3).float()


def warmed(model: aevb.VAE) -> Any:
    return aevb.ELBO(beta=aevb.Linear(0.1, 1.0, 15))


def with_adversary(model: aevb.VAE) -> Any:
    return aevb.Regularized(aevb.ELBO(), [aevb.DensityRatio(model, 1.0, (8,))])


def trained(make: Callable[[aevb.VAE], Any] = warmed, **settings: Any) -> tuple[list[float], aevb.Learner]:
    model, x = tiny()
    schedule = aevb.Linear(1.0, 0.1, 20)
    learner = aevb.Learner(model, make(model), aevb.Training(learning_rate=schedule, **SETTINGS, **settings), len(x))
    return [float(s.info["loss"]) for s in aevb.continue_training(learner, x)], learner


class Tape(TorchDispatchMode):
    """What a CUDA graph is, on a CPU: each operation, on the tensors that it had, is done again in the same order."""

    def __init__(self, learner: aevb.Learner, recorded: Recorded) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.learner, self.recorded = learner, recorded
        self.done: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.done.append(tree_map_only(Tensor, torch.detach, (func, args, kwargs or {}, found)))
        return found

    def warm(self, work: Callable[[], Any]) -> Any:
        return work()

    def record(self, work: Callable[[], Any]) -> Callable[[], Any]:
        """Recording leaves all as it was, and draws no random numbers."""
        before, at = state_tensors(self.learner), int(self.recorded.at)
        with torch.random.fork_rng(devices=[]), self:
            found = work()
        for name, tensor in moving_tensors(self.learner).items():
            tensor.detach().copy_(before[name])
        self.recorded.at.fill_(at)

        @torch.no_grad()
        def repeat() -> Any:
            for func, args, kwargs, kept in self.done:
                for old, new in zip(tree_leaves(kept), tree_leaves(func(*args, **kwargs)), strict=True):
                    if isinstance(new, Tensor) and new.data_ptr() != old.data_ptr():
                        old.copy_(new)
            return found

        return repeat


@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize("make", [warmed, with_adversary])
@pytest.mark.parametrize("optimizer", [aevb.Adam(1e-2), aevb.Adagrad(0.1)], ids=["adam", "adagrad"])
def test_a_recorded_training_is_the_ordinary_one(
    make: Callable[[aevb.VAE], Any], optimizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit that of the fused step without buffers; that of PyTorch's own optimizer up to rounding."""
    eager, theirs = trained(make, optimizer=optimizer)
    recorded, ours = trained(make, optimizer=optimizer, graph=True)
    monkeypatch.setattr(torch, "compile", lambda function: function)
    fused, same = trained(make, optimizer=optimizer, compile=True)
    assert recorded == fused
    assert recorded == pytest.approx(eager, rel=1e-4, abs=1e-4)
    found, like = state_tensors(ours), state_tensors(theirs)
    assert found.keys() == like.keys()
    for name, tensor in state_tensors(same).items():
        assert torch.equal(found[name], tensor), name
        assert torch.allclose(found[name], like[name], rtol=2e-3, atol=2e-4), name


@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize("make", [warmed, with_adversary])
def test_what_is_recorded_depends_on_its_buffers_alone(
    make: Callable[[aevb.VAE], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operations that are repeated as they were recorded, Python's numbers with them, give the same training."""
    again, theirs = trained(make, optimizer=aevb.Adam(1e-2), graph=True)
    tapes: list[Tape] = []
    wrapped = aevb.Learner._wrapped

    def taped(learner: aevb.Learner, fused: Any) -> Any:
        recorded = wrapped(learner, fused)
        recorded.recorder = Tape(learner, recorded)
        tapes.append(recorded.recorder)
        return recorded

    monkeypatch.setattr(aevb.Learner, "_wrapped", taped)
    repeated, ours = trained(make, optimizer=aevb.Adam(1e-2), graph=True)
    assert len(tapes) == 1
    assert tapes[0].done
    assert repeated == again
    for name, tensor in state_tensors(theirs).items():
        assert torch.equal(state_tensors(ours)[name], tensor), name


@pytest.mark.usefixtures("anywhere")
def test_results_are_copies_and_recording_comes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Noted(Repeated):
        def warm(self, work: Callable[[], Any]) -> Any:
            calls.append("warm")
            return work()

        def record(self, work: Callable[[], Any]) -> Callable[[], Any]:
            calls.append("record")
            kept = work()  # whose memory each repetition rewrites, as a graph does
            return lambda: (kept.numbers.copy_(work().numbers), kept)[1]

    monkeypatch.setattr(learners, "recorder_for", lambda device, apart=False: Noted())
    model, x = tiny()
    training = aevb.Training(aevb.Adam(1e-2), **SETTINGS, graph=True)
    found = [step.info["loss"] for step in aevb.train(model, aevb.ELBO(), x, training)]
    assert calls == ["warm"] * WARM + ["record"]
    assert len({float(loss) for loss in found}) == len(found) == 20


def test_memory_of_an_optimizer_is_where_its_weights_are() -> None:
    """PyTorch makes Adagrad's count of steps on the CPU, where a graph would read it once for all."""
    p = nn.Parameter(torch.empty(3, device="meta"))
    for optimizer in (torch.optim.Adagrad([p]), torch.optim.Adam([p])):
        begin(optimizer, RULES[type(optimizer)], p)
        assert {v.device.type for v in optimizer.state[p].values()} == {"meta"}


@pytest.mark.usefixtures("anywhere")
def test_a_learner_that_is_put_back_goes_on_from_there() -> None:
    """Losses and counts of steps are those of ordinary steps, although the optimizer's memory was replaced."""
    found = []
    for graph in (False, True):
        model, x = tiny()
        learner = aevb.Learner(model, aevb.ELBO(), aevb.Training(batch=20, samples=400, graph=graph), len(x))
        walk = aevb.continue_training(learner, x)
        for _ in range(6):
            next(walk)
        saved = copy.deepcopy(learner.state_dict())
        for _ in range(6):
            next(walk)
        learner.load_state_dict(saved)
        losses = [float(next(walk).info["loss"]) for _ in range(8)]
        found.append((losses, int(next(iter(learner.optimizer.state.values()))["step"])))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-4)
    assert found[1][1] == found[0][1] == 14


@pytest.mark.usefixtures("anywhere")
def test_trainings_of_one_learner_in_turn_read_their_own_rows() -> None:
    found = []
    for graph in (False, True):
        model, x = tiny()
        learner = aevb.Learner(model, aevb.ELBO(), aevb.Training(batch=20, samples=400, graph=graph), len(x))
        walks = [aevb.continue_training(learner, rows) for rows in (x, 1 - x)]
        found.append([float(next(walks[i % 2]).info["loss"]) for i in range(8)])
    assert found[1] == pytest.approx(found[0], rel=1e-4)


@pytest.mark.usefixtures("anywhere")
def test_a_module_learns_from_the_rows_of_each_step() -> None:
    """One of a user may keep what it learns elsewhere than in buffers, which a graph cannot repeat."""

    class Sees(nn.Tanh):
        seen: list[Tensor]

        def learn(self, t: Any) -> None:
            self.seen.append(t.x.clone())

    found = []
    for graph in (False, True):
        layer = Sees()
        layer.seen = []
        model, x = tiny(layer=layer)
        for _ in aevb.train(model, aevb.ELBO(), x, aevb.Training(batch=20, samples=200, graph=graph)):
            pass
        found.append(torch.stack(layer.seen))
    assert found[0].shape == (10, 20, 12)
    assert torch.equal(*found)


@pytest.mark.usefixtures("anywhere")
def test_several_processes_take_ordinary_steps() -> None:
    alone, _ = trained()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with sharing(Group(0, 1)):
            assert trained(graph=True)[0] == pytest.approx(alone, rel=1e-6)
    finally:
        dist.destroy_process_group()


@pytest.mark.usefixtures("anywhere")
def test_a_minibatch_of_another_shape_is_computed_as_it_is() -> None:
    """One row is not spread over the buffer of twenty."""
    found = []
    for graph in (False, True):
        model, x = tiny()
        learner = aevb.Learner(model, aevb.ELBO(beta=0), aevb.Training(aevb.Adagrad(0.1), graph=graph), len(x))
        torch.manual_seed(0)
        found.append([float(learner.update(x[rows])["loss"]) for rows in (slice(20), slice(1), slice(20, 40))])
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def refused(objective: Any = None, training: Mapping[str, Any] | None = None, **parts: Any) -> str:
    model, x = tiny(**parts)
    with pytest.raises(aevb.AevbError) as caught:
        list(aevb.train(model, objective or aevb.ELBO(), x, aevb.Training(graph=True, samples=200, **(training or {}))))
    assert isinstance(caught.value, aevb.RecipeError)
    return str(caught.value)


def test_without_a_gpu_a_graph_is_refused() -> None:
    assert "is for NVIDIA GPUs (CUDA), and the weights are on the device 'cpu'. Leave training.graph out." in refused()


@pytest.mark.parametrize(
    "case",
    [
        {"training": {"clip": 1.0}},
        {"training": {"optimizer": aevb.SGD(1e-3)}},
        {"layer": nn.BatchNorm1d(16)},
    ],
    ids=["clip", "sgd", "batch statistics"],
)
def test_what_is_no_function_of_tensors_says_so(case: dict[str, Any]) -> None:
    assert "is for the optimizers adam and adagrad, without training.clip" in refused(**case)


def test_a_loss_of_ones_own_says_so() -> None:
    model, x = tiny()
    own = learners.Loss(model, aevb.ELBO())
    with pytest.raises(aevb.RecipeError, match=r"of the objective itself, not of a wrapper\. Leave training.graph out"):
        aevb.Learner(model, aevb.ELBO(), aevb.Training(samples=60, graph=True), len(x), lambda *given: own(*given))


def test_an_objective_that_declares_it_cannot_be_traced_is_refused() -> None:
    assert "which training.graph requires" in refused(aevb.MonteCarloEM())


class Reading(nn.Module):
    """A layer that does one thing or another, as its numbers say."""

    def forward(self, x: Tensor) -> Tensor:
        return x.tanh() if float(x.detach().sum()) > 0 else x


@pytest.mark.usefixtures("anywhere")
def test_a_part_that_reads_its_numbers_is_refused() -> None:
    assert "depends on its numbers (_local_scalar_dense)" in refused(layer=Reading())


@pytest.mark.usefixtures("anywhere")
def test_draws_by_rejection_are_refused() -> None:
    model, x = tiny(aevb.VonMisesFisher(2))
    prior = KNOWN["uniform-sphere"]
    model.prior = aevb.Known(prior.make, prior.parameters, 2)
    with pytest.raises(aevb.RecipeError, match=r"depends on its numbers \(nonzero\)"):
        list(aevb.train(model, aevb.ELBO(), x, aevb.Training(graph=True, samples=200)))


@pytest.mark.parametrize(
    ("work", "found"),
    [
        (lambda x: x[torch.tensor([2, 0])], []),
        (lambda x: x[x > 0], ["aten::index"]),
        (lambda x: x.where(x > 0, 0.0).sum(), []),
        (lambda x: x.masked_select(x > 0), ["aten::masked_select"]),
        (lambda x: bool(x.sum() > 0), ["aten::_local_scalar_dense"]),
        (lambda x: x.unique(), ["aten::_unique2"]),
        (lambda x: torch.normal(x, x.abs()), ["aten::normal"]),
        (lambda x: sampled(torch.distributions.Normal(x, x.abs(), validate_args=False)), []),
    ],
    ids=["places", "mask", "where", "masked_select", "bool", "unique", "normal", "sampled"],
)
def test_what_a_graph_cannot_repeat_is_noticed(work: Callable[[Tensor], Any], found: list[str]) -> None:
    with Reads() as reads:
        work(torch.tensor([1.0, -1.0, 2.0]))
    assert [name for name in reads.found if name != "aten::nonzero"] == found


@pytest.mark.usefixtures("anywhere")
def test_models_whose_steps_are_recorded_are_no_stack() -> None:
    model, x = tiny()
    learner = aevb.Learner(model, aevb.ELBO(), aevb.Training(graph=True), len(x))
    course = Course.of(learner, x, None, aevb.Monitor(), aevb.TrainingState())
    with pytest.raises(Unstackable, match="each step is recorded"):
        train_stacked([course, course], float("inf"))


def test_a_recipe_asks_for_it_and_leaves_no_folder_without_a_gpu(tmp_path: Path) -> None:
    recipe = aevb.Recipe.load("aevb").replace(latent=2, training__samples=200, training__graph=True)
    assert recipe.training().graph
    with pytest.raises(aevb.RecipeError, match="is for NVIDIA GPUs"):
        aevb.fit(recipe, torch.rand(60, 12), tmp_path / "run")
    assert not (tmp_path / "run").exists()

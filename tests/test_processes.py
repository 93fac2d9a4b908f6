"""Several processes train the model that one would: the same losses, whatever the objective; one of them writes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from aevb.errors import RunError
from aevb.models.shares import Group, alone, coupled, dealt_out, group, shared, sharing
from aevb.training.processes import _round as agreed_round
from aevb.training.processes import largest, placed, together
from aevb.training.train import steps

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed")
ROOT = Path(__file__).parents[1]
AWKWARD = 63  # rows in a minibatch: neither 2 nor 4 processes divide them


def learner_of(name: str, count: int, **changes: Any) -> Any:
    """The learner of a recipe on digits, before `count` steps, and its rows."""
    from aevb.data.sources import load_data
    from aevb.runs.fit import Job
    from aevb.runs.recipe import Recipe
    from aevb.runs.sources import given, named

    recipe = Recipe.load(name).replace(training__samples=AWKWARD * count, training__batch=AWKWARD, **changes)
    asked, data = given(recipe, load_data("digits"))
    chosen, _ = named(asked.of(data), data)
    job = Job.of(chosen, data, "cpu")
    return job.learner, job.rows


def losses(name: str, count: int, **changes: Any) -> list[float]:
    """The losses of the first steps, then the norm of all that moves and the number of steps."""
    from aevb.training.checkpoint import moving_tensors

    learner, rows = learner_of(name, count, **changes)
    found = [float(step.info["loss"]) for step in steps(learner, rows)]
    moved = [v.double().flatten() for v in moving_tensors(learner).values() if v.is_floating_point()]
    return [*found, float(torch.cat(moved).norm())]


def at_work(rank: int, size: int, place: str, tasks: list[tuple[str, int, dict[str, Any]]]) -> None:
    """One process of a group, without torchrun; what it found goes to the test."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{place}/meet{size}", rank=rank, world_size=size)
    try:
        with sharing(Group(rank, size)):
            found = [losses(name, count, **changes) for name, count, changes in tasks]
        (Path(place) / f"{size}-{rank}.json").write_text(json.dumps(found))
        dist.barrier()
    finally:
        dist.destroy_process_group()


def found_by(size: int, place: Path, tasks: list[tuple[str, int, dict[str, Any]]]) -> list[list[list[float]]]:
    """What each of `size` processes finds, in their order."""
    context = torch.multiprocessing.spawn(at_work, (size, str(place), tasks), size, join=False)
    limit = time.monotonic() + 500
    while not context.join(timeout=5):  # raises what a process has raised
        assert time.monotonic() < limit
    return [json.loads((place / f"{size}-{rank}.json").read_text()) for rank in range(size)]


SOME = [  # (recipe, steps, changes): noise, several samples, terms over the batch, an adversary, buffers that learn
    ("aevb", 4, {}),
    ("iwae", 3, {}),
    ("beta-tcvae", 3, {}),
    ("factor-vae", 3, {}),
    ("vq-vae", 3, {"training__ema": 0.9}),
    ("sigma-vae", 3, {}),
    ("vamp-prior", 3, {}),
    ("lvae", 3, {}),
]


def test_two_processes_find_the_numbers_of_one(tmp_path: Path) -> None:
    """Whatever the objective, with batches that do not divide; and both processes hold the same numbers."""
    first, second = found_by(2, tmp_path, SOME)
    assert first == second
    for (name, count, changes), theirs in zip(SOME, first, strict=True):
        assert theirs == pytest.approx(losses(name, count, **changes), rel=2e-5), name


def trained_apart(seed: int, x: Tensor) -> float:
    """The norm of weights that begin as the seed says, after three steps."""
    import aevb

    torch.manual_seed(seed)
    networks = [nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, n)) for n in (4, 6)]
    networks[1][0] = nn.Linear(2, 9)
    parts = aevb.Conditional(networks[0], aevb.Normal(2)), aevb.Conditional(networks[1], aevb.Bernoulli(6))
    model = aevb.VAE(aevb.StandardNormal(2), *parts)
    for _ in aevb.train(model, aevb.ELBO(), x, aevb.Training(batch=20, samples=60)):
        pass
    return float(torch.cat([p.detach().flatten() for p in model.parameters()]).norm())


def apart(rank: int, size: int, place: str) -> None:
    """One of two processes that begin with other weights, then with other data."""
    import aevb

    torch.set_num_threads(1)
    x = torch.rand(60, 6, generator=torch.Generator().manual_seed(0)).round()
    dist.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=size)
    found: list[Any] = []
    try:
        with sharing(Group(rank, size)):
            found.append(trained_apart(rank, x))
            for other in (x.flip(1) if rank else x, x[: 60 - 10 * rank]):
                with pytest.raises(RunError) as caught:
                    trained_apart(0, other)
                found.append(str(caught.value))
            table = x.double().numpy() + (x.shape[1] - 1) * rank
            with pytest.raises(RunError) as caught:
                aevb.fit("gaussian", table, Path(place) / "run")
            found.append(str(caught.value))
        (Path(place) / f"{rank}.json").write_text(json.dumps(found))
        dist.barrier()
    finally:
        dist.destroy_process_group()


def test_processes_begin_with_the_weights_of_the_first_and_refuse_other_data(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(apart, (2, str(tmp_path)), 2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    x = torch.rand(60, 6, generator=torch.Generator().manual_seed(0)).round()
    assert first[0] == pytest.approx(trained_apart(0, x), rel=2e-5)
    assert first[0] != pytest.approx(trained_apart(1, x), rel=1e-3)
    assert "Process 1 has other train rows than the first one" in first[1]
    assert "Process 1 has 50 train rows, the first one 60" in first[2]
    assert "Process 1 has other train rows than the first one" in first[3]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_a_point_posterior_keeps_the_loss_over_200_steps(size: int, tmp_path: Path) -> None:
    """Nothing is drawn by the posterior of `wae` beside its term, which every process draws alike."""
    tasks: list[tuple[str, int, dict[str, Any]]] = [("wae", 200, {}), ("aevb", 200, {})]
    for (name, count, _), theirs in zip(tasks, found_by(size, tmp_path, tasks)[-1], strict=True):
        assert theirs[-2] == pytest.approx(losses(name, count)[-2], rel=1e-5), name


@pytest.mark.slow
def test_every_recipe_is_trained_alike_by_two_processes(tmp_path: Path) -> None:
    from aevb.runs.recipe import recipe_names

    tasks: list[tuple[str, int, dict[str, Any]]] = []
    for name in recipe_names():
        try:
            learner_of(name, 2)
        except Exception:  # for other data than digits
            continue
        tasks.append((name, 2, {}))
    assert len(tasks) > 30
    for (name, count, _), theirs in zip(tasks, found_by(2, tmp_path, tasks)[1], strict=True):
        assert theirs == pytest.approx(losses(name, count), rel=1e-4), name


def test_rows_are_shared_out_without_a_rest() -> None:
    for rows, size in ((63, 2), (63, 4), (8, 8), (100, 3)):
        spans = [Group(rank, size).span(rows) for rank in range(size)]
        assert [i for span in spans for i in range(rows)[span]] == list(range(rows))
        counts = [span.stop - span.start for span in spans]
        assert max(counts) - min(counts) <= 1
        assert counts == sorted(counts, reverse=True)  # the first has the most, which `gather` relies on


def test_alone_a_function_is_called_as_it_is() -> None:
    net, x = nn.Linear(3, 2), torch.randn(5, 3)
    assert group() is None
    assert torch.equal(shared(net, net, x), net(x))
    assert largest(3.0) == 3.0


def test_what_couples_rows_or_draws_is_computed_whole() -> None:
    """Messages would fail here: there is no other process."""
    x = torch.randn(8, 3)
    for layer in (nn.BatchNorm1d(3), nn.Dropout(0.5)):
        net = nn.Sequential(nn.Linear(3, 3), layer)
        with sharing(Group(0, 2)):
            assert coupled(net)
            assert shared(net, net, x).shape == (8, 3)
        assert not coupled(net.eval())


def test_too_few_rows_are_computed_whole() -> None:
    net, x = nn.Linear(3, 2), torch.randn(3, 3)
    with sharing(Group(0, 2)):
        assert torch.equal(shared(net, net, x), net(x))


def test_a_gpu_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert placed("cuda") == torch.device("cuda", 1)
    assert placed("cuda:0") == torch.device("cuda", 0)
    assert placed("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RunError, match="--nproc-per-node 1"):
        placed("cuda")


def test_without_torchrun_together_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with together() as members:
        assert members is None


def test_a_new_start_does_not_meet_the_words_of_an_old_one() -> None:
    """The store is that of the start before, in which process 1 asked and was killed."""
    store = dist.HashStore()
    store.set("aevb/ask/1", "of a process that was killed")
    words = []
    for _ in range(2):
        with ThreadPoolExecutor(3) as pool:
            found = {*pool.map(lambda rank: agreed_round(store, rank, 3), range(3))}
        assert len(found) == 1
        words += found
    assert words[0] != words[1]


def test_torchrun_is_for_training_alone() -> None:
    env = {**os.environ, "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    found = subprocess.run(
        [sys.executable, "-m", "aevb", "recipes"], env=env, capture_output=True, text=True, check=False
    )
    assert found.returncode == 1
    assert "torchrun is only for `aevb train`" in found.stderr


def test_two_processes_train_evaluate_and_draw_by_the_command_line(tmp_path: Path) -> None:
    """All evaluate, and find the numbers of one process; the first one draws by itself."""
    words = ["train", "digits", "--recipe", "iaf", "--samples", "600", "--set", "evaluation.importance_samples=5"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    together_ = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, start, more in (("one", [], ["--no-figures"]), ("two", together_, [])):
        own = [*start, "-m", "aevb", *words, *more, "--out", str(tmp_path / name)]
        subprocess.run([sys.executable, *own], env=env, capture_output=True, check=True, timeout=90)
    one, two = (json.loads((tmp_path / name / "evaluation-test.json").read_text()) for name in ("one", "two"))
    for name in ("elbo", "log_likelihood", "effective_sample_size"):
        assert two[name] == pytest.approx(one[name], rel=2e-5)
    assert two["latent"]["knn_accuracy"] == one["latent"]["knn_accuracy"]
    assert (tmp_path / "two" / "figures" / "samples.png").is_file()


def in_turns(rank: int, size: int, place: str) -> None:
    """One process of a group, which deals things out."""
    dist.init_process_group("gloo", init_method=f"file://{place}/turns", rank=rank, world_size=size)
    try:
        with sharing(Group(rank, size)):
            found = [dealt_out(range(n), lambda i: (i, rank, group() is None)) for n in (0, 1, 3, 7)]
        (Path(place) / f"turns-{rank}.json").write_text(json.dumps(found))
    finally:
        dist.destroy_process_group()


def test_what_is_dealt_out_comes_back_in_its_order(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(in_turns, (3, str(tmp_path)), 3)
    expected = [[[i, i % 3, True] for i in range(n)] for n in (0, 1, 3, 7)]
    assert [json.loads((tmp_path / f"turns-{rank}.json").read_text()) for rank in range(3)] == [expected] * 3
    assert dealt_out(range(3), lambda i: i**2) == [0, 1, 4]


def test_another_thread_and_the_first_process_by_itself_compute_all_rows() -> None:
    """As the page of `--watch` does during the training; the others take no part in it."""
    with sharing(Group(0, 2)) as members, ThreadPoolExecutor(1) as pool:
        assert group() is members
        assert pool.submit(group).result() is None
        with alone():
            assert group() is None
            assert largest(3.0) == 3.0  # no message
        assert group() is members
    assert group() is None


SCRIPT = """
import os, signal, sys, threading, time
from pathlib import Path
import aevb

out, samples = Path(sys.argv[1]), int(sys.argv[2])

def end_at_a_checkpoint():
    while not (out / "checkpoint" / "state.safetensors").is_file():
        time.sleep(0.001)
    os.kill(os.getpid(), int(sys.argv[3]))

first_start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
if len(sys.argv) > 3 and first_start and os.environ.get("RANK") == "1":
    threading.Thread(target=end_at_a_checkpoint, daemon=True).start()
with aevb.together():
    if (out / "recipe.toml").is_file():
        aevb.resume(out, samples=samples, checkpoint_every=0.0)
    else:
        recipe = aevb.Recipe.load("aevb").replace(training__samples=samples, training__batch=63)
        aevb.fit(recipe, "digits", out, checkpoint_every=0.0)
"""


def torchrun(
    place: Path, out: str, processes: int, *more: str, samples: int = 63 * 20
) -> subprocess.CompletedProcess[str]:
    """A training by so many processes, which may be started again."""
    script = place / "script.py"
    script.write_text(SCRIPT)
    start = ["-m", "torch.distributed.run", "--standalone", "--max-restarts", "3", "--nproc-per-node", str(processes)]
    words = [sys.executable, *start, str(script), str(place / out), str(samples), *more]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as work:
        try:
            said, complained = work.communicate(timeout=500)
        except BaseException:
            os.killpg(work.pid, signal.SIGKILL)  # the workers too
            raise
    return subprocess.CompletedProcess(words, work.returncode, said, complained)


def weights(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "weights.safetensors")


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_worker_that_is_killed_leaves_no_trace(tmp_path: Path) -> None:
    """Started again from the last checkpoint, both end in the same weights bit for bit."""
    for out, more in (("whole", ()), ("killed", (str(int(signal.SIGKILL)),))):
        found = torchrun(tmp_path, out, 2, *more)
        assert found.returncode == 0, found.stderr[-2000:]
        if more:
            assert "Signal 9" in found.stderr or "exitcode: -9" in found.stderr
    ours, theirs = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours | theirs)
    assert [r["step"] for r in records(tmp_path / "whole")] == [r["step"] for r in records(tmp_path / "killed")]


@pytest.mark.slow
def test_workers_that_are_killed_again_and_again_leave_no_trace(tmp_path: Path) -> None:
    """And half of the training by two processes, half by four, takes the same steps to the same loss."""
    from benchmarks import kills

    words = ("--every", "9", "--minutes", "0.5", "--samples", str(63 * 3000), "--checkpoint", "0.5", "--then", "4")
    found = kills.report(kills.arguments(words), tmp_path)
    assert found["kills"] >= 2
    assert found["same"]
    assert found["steps"]
    assert found["apart"] < 1e-4


@pytest.mark.slow
def test_going_on_with_another_number_of_processes_loses_no_row(tmp_path: Path) -> None:
    """Ten steps by two processes and ten more by one are 20 by one; of the run nothing but rounding tells."""
    assert torchrun(tmp_path, "mixed", 2, samples=63 * 10).returncode == 0
    assert torchrun(tmp_path, "mixed", 1).returncode == 0
    assert torchrun(tmp_path, "alone", 1).returncode == 0
    mixed, alone = records(tmp_path / "mixed")[-1], records(tmp_path / "alone")[-1]
    assert mixed["step"] == alone["step"] == 20
    assert mixed["train"]["loss"] == pytest.approx(alone["train"]["loss"], rel=1e-5)


@pytest.mark.slow
def test_sigterm_to_one_ends_all_with_143(tmp_path: Path) -> None:
    """All take the same last step; what they reached is saved."""
    script, out = tmp_path / "script.py", tmp_path / "run"
    script.write_text(SCRIPT)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    env["MASTER_PORT"] = str(free_port())
    words = [sys.executable, str(script), str(out), str(63 * 1000), str(int(signal.SIGTERM))]
    work = [subprocess.Popen(words, env={**env, "RANK": r, "LOCAL_RANK": r}) for r in "01"]
    assert [process.wait(timeout=300) for process in work] == [143, 143]
    meta = json.loads((out / "meta.json").read_text())
    assert meta["status"] == "interrupted"
    assert 1000 > meta["steps"] >= records(out)[-1]["step"] > 0
    assert (out / "weights.safetensors").is_file()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])

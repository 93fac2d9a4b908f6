"""A training by several processes under torchrun, of which one is killed again and again, beside an undisturbed one.

    python benchmarks/kills.py                                  # a worker killed every 30 s, for five minutes
    python benchmarks/kills.py --every 12 --minutes 1 --samples 100000
    python benchmarks/kills.py --processes 4 --then 2

Three trainings of one recipe on digits: undisturbed; with kills, each by SIGKILL, after which torchrun starts all
processes again; and half by so many processes, half by `--then`. It fails where the weights of the second differ from
those of the first in a bit, or where the third has another number of steps or another loss.  Linux only.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESTARTS, BATCH, CLOSE = 1000, 63, 1e-4  # 63 rows are divided by neither 2 nor 4


@dataclass(frozen=True)
class Found:
    """What was seen of one training.

    Attributes:
        folder: of its run; seconds: that it took; killed: how many processes were; starts: of all processes together.
    """

    folder: Path
    seconds: float
    killed: int
    starts: int

    def weights(self) -> dict[str, Any]:
        from safetensors.torch import load_file

        return load_file(self.folder / "weights.safetensors")

    def last(self) -> dict[str, Any]:
        """The last record of the training."""
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        record: dict[str, Any] = json.loads(lines[-1])
        return record


def work(folder: Path, samples: int, checkpoint: float) -> None:
    """What each process does: begin the run or resume it, after it has said who it is."""
    import aevb
    from aevb.training.processes import told

    name = f"{os.environ['RANK']}-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}-{os.getpid()}"
    (folder.parent / f"{folder.name}-workers" / name).touch()
    with aevb.together():
        if told((folder / "recipe.toml").is_file()):
            aevb.resume(folder, samples=samples, checkpoint_every=checkpoint)
        else:
            recipe = aevb.Recipe.load("aevb").replace(training__samples=samples, training__batch=BATCH)
            aevb.fit(recipe, "digits", folder, checkpoint_every=checkpoint)


@contextmanager
def torchrun(folder: Path, processes: int, samples: int, checkpoint: float) -> Iterator[subprocess.Popen[bytes]]:
    """A training by so many processes, as it goes; none of them outlives the block."""
    (folder.parent / f"{folder.name}-workers").mkdir(exist_ok=True)
    start = ["--standalone", "--max-restarts", str(RESTARTS), "--nproc-per-node", str(processes)]
    own = [str(Path(__file__).resolve()), "--work", str(folder), str(samples), str(checkpoint)]
    words = [sys.executable, "-m", "torch.distributed.run", *start, *own]
    log = (folder.parent / f"{folder.name}.log").open("wb")
    with log, subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True) as running:
        try:
            yield running
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGTERM)


def trained(place: Path, name: str, processes: int, samples: int, asked: Any, kills: bool = False) -> Found:
    """A training to its end, perhaps with kills."""
    folder, begun, killed = place / name, time.monotonic(), 0
    with torchrun(folder, processes, samples, asked.checkpoint) as running:
        if kills:
            killed = kill(running, place / f"{name}-workers", asked.every, 60 * asked.minutes)
        if running.wait():
            raise SystemExit((place / f"{name}.log").read_text()[-3000:])
    starts = {file.name.split("-")[1] for file in (place / f"{name}-workers").iterdir()}
    return Found(folder, time.monotonic() - begun, killed, len(starts))


def kill(running: subprocess.Popen[bytes], workers: Path, every: float, seconds: float) -> int:
    """Kill one process, in turns the first and the others, every so many seconds for so long; how many were."""
    end, killed = time.monotonic() + seconds, 0
    for turn in itertools.count():
        with suppress(subprocess.TimeoutExpired):
            running.wait(every)
        if running.poll() is not None or time.monotonic() > end:
            return killed
        killed += kill_one(workers, turn)
    return killed


def kill_one(workers: Path, turn: int) -> bool:
    """Whether a process of the present start was there to be killed, and was."""
    found = [tuple(map(int, file.name.split("-"))) for file in workers.iterdir()]
    latest = max((start for _, start, _ in found), default=0)
    alive = sorted((rank, pid) for rank, start, pid in found if start == latest and is_ours(pid))
    if not alive:
        return False
    os.kill(alive[turn % len(alive)][1], signal.SIGKILL)
    return True


def is_ours(pid: int) -> bool:
    """Whether a process is there, and is one of these workers."""
    try:
        return b"--work" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def equal(a: Found, b: Found) -> bool:
    """Whether two trainings ended in the same weights, bit for bit."""
    ours, theirs = a.weights(), b.weights()
    return ours.keys() == theirs.keys() and all(bool((ours[name] == theirs[name]).all()) for name in ours)


def report(asked: Any, place: Path) -> dict[str, Any]:
    """The three trainings, compared."""
    n, samples = asked.processes, asked.samples
    whole = trained(place, "whole", n, samples, asked)
    print(f"undisturbed, {n} processes: {whole.last()['step']:,} steps in {whole.seconds:.0f} s", flush=True)
    killed = trained(place, "killed", n, samples, asked, kills=True)
    same = equal(whole, killed)
    words = "the same weights, bit for bit" if same else "OTHER weights"
    print(f"{killed.killed} kills, {killed.starts} starts, {killed.seconds:.0f} s: {words}", flush=True)
    trained(place, "mixed", n, samples // 2 // BATCH * BATCH, asked)
    mixed = trained(place, "mixed", asked.then, samples, asked)
    ours, theirs = whole.last(), mixed.last()
    apart = abs(theirs["train"]["loss"] / ours["train"]["loss"] - 1)
    print(f"half by {n}, half by {asked.then} processes: {theirs['step']:,} steps, the last loss {apart:.0e} apart")
    return {"kills": killed.killed, "same": same, "steps": theirs["step"] == ours["step"], "apart": apart}


def arguments(words: Sequence[str] | None = None) -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=float, default=30.0, help="seconds from one kill to the next")
    parser.add_argument("--minutes", type=float, default=5.0, help="for how long")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--then", type=int, default=1, help="processes of the second half of the third training")
    parser.add_argument("--samples", type=int, default=1_500_000)
    parser.add_argument("--checkpoint", type=float, default=5.0, help="seconds from one checkpoint to the next")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main() -> None:
    asked = arguments()
    if asked.work:
        folder, samples, checkpoint = asked.work
        return work(Path(folder), int(samples), float(checkpoint))
    with tempfile.TemporaryDirectory() as place:
        found = report(asked, Path(place))
    if not (found["same"] and found["steps"] and found["apart"] < CLOSE):
        raise SystemExit("The trainings differ.")
    return None


if __name__ == "__main__":
    main()

"""What Figure 2 says in numbers: against the paper, AEVB against wake-sleep, readings of the pixels, the collapse,
speed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from aevb.data.dataset import Split
from aevb.evaluation.bound import elbo
from aevb.evidence.importance import log_marginal
from aevb.reproduce import published
from aevb.reproduce.curves import Followed, Row, dataset
from aevb.training.learner import Learner

SLACK = ("bound", "log p(x)", "slack", "slack se")
DECADES = tuple(m * 10**k for k in (5, 6, 7, 8) for m in (1, 3))
NAMES = {"AEVB": "AEVB", "WS": "wake-sleep"}
Known = Mapping[str, Mapping[str, Followed]]  # panel → algorithm → curve


def compared(panel: str, pair: Mapping[str, Followed]) -> list[dict[str, Any]]:
    """Ours and the paper's at 10⁵, 3·10⁵, 10⁶, ... training samples."""
    at = [
        (algorithm, row) for algorithm, followed in pair.items() for row in followed.rows if row["samples"] in DECADES
    ]
    return [
        _compared(panel, algorithm, split, row) | pair[algorithm].spread(split, row["samples"])
        for algorithm, row in at
        for split in ("train", "test")
    ]


def _compared(panel: str, algorithm: str, split: str, row: Row) -> dict[str, Any]:
    paper = published.at("2", panel, algorithm, split, row["samples"])
    place = {"panel": panel, "algorithm": algorithm, "split": split, "samples": int(row["samples"])}
    ours = round(row[split], 2)
    difference = {} if paper is None else {"paper": round(paper, 2), "ours - paper": round(ours - paper, 2)}
    error = {"se": round(row[f"{split}_se"], 2)} if f"{split}_se" in row else {}
    return {**place, "ours": ours, **difference, **error}


def above_paper(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whether each test curve of AEVB is at least as high as the paper's at every decade from 10⁶ samples on."""
    aevb = [
        r for r in rows if r["algorithm"] == "AEVB" and r["split"] == "test" and r["samples"] >= 10**6 and "paper" in r
    ]
    if not aevb:
        return []
    least = min(aevb, key=lambda r: r["ours - paper"])
    below = [f"{r['panel']} at {short(r['samples'])} ({r['ours - paper']:+.1f})" for r in aevb if r["ours - paper"] < 0]
    return [
        f"AEVB, test bound from 10⁶ samples on: not below the paper's at "
        f"{len(aevb) - len(below)} of {len(aevb)} marks; "
        f"the least difference is {least['ours - paper']:+.1f} nats ({least['panel']}, {short(least['samples'])} "
        f"samples)." + (f" Below at: {'; '.join(below)}." if below else "")
    ]


def spreads(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The standard deviation over seeds, on test data at the last mark that several have, for each algorithm."""
    last = {(r["panel"], r["algorithm"]): r for r in rows if r["split"] == "test" and "seeds" in r}
    words = [f"{panel} {NAMES[a]} {r['sd']:.1f} ({short(r['samples'])})" for (panel, a), r in last.items()]
    return [f"Standard deviation over seeds, test bound: {', '.join(words)} nats."] if words else []


def order(known: Known) -> list[str]:
    """AEVB above wake-sleep in every panel, on test data at the last mark that both have."""
    gaps = {p: gap(pair["AEVB"], pair["WS"]) for p, pair in known.items() if len(pair) == 2}
    if not gaps:
        return []
    words = ", ".join(f"{panel} {difference:+.1f} ({short(at)})" for panel, (difference, at) in gaps.items())
    above = sum(difference > 0 for difference, _ in gaps.values())
    return [f"AEVB less wake-sleep, test bound: {words} nats; above in {above} of {len(gaps)} panels."]


def gap(a: Followed, b: Followed) -> tuple[float, float]:
    """By how much a's test bound is above b's at the last mark that both have, and that mark."""
    ours, theirs = (dict(zip(*f.column("test"), strict=True)) for f in (a, b))
    last = max(ours.keys() & theirs.keys())
    return ours[last] - theirs[last], last


def superfluous(known: Known) -> list[str]:
    """Ten times as many latents as are needed do not hurt: Nz = 200 against Nz = 20."""
    few, many = (known.get(f"MNIST Nz={d}", {}).get("AEVB") for d in (20, 200))
    if few is None or many is None:
        return []
    difference, at = gap(many, few)
    return [
        f"MNIST with 200 latents less MNIST with 20, AEVB, test bound: {difference:+.1f} nats ({short(at)} samples)."
    ]


def slack(learner: Learner, train: Split, test: Split) -> Row:
    """How far the bound is below log p(x), on 1,000 points of each split: the encoder's part in a gap."""
    model = learner.best_known
    row: Row = {}
    for split, points in (("train", train.take(1000)), ("test", test.take(1000))):
        bound, log_px = elbo(model, points).elbo, log_marginal(model, points, 500).log_px
        below = log_px - bound
        values = (bound.mean(), log_px.mean(), below.mean(), below.std() / len(below) ** 0.5)
        row |= {f"{split}_{name}": float(v) for name, v in zip(SLACK, values, strict=True)}
    return row


def slacks(panel: str, followed: Followed) -> list[dict[str, Any]]:
    """What `slack` said where a curve ended, a line for each split."""
    last = followed.rows[-1]
    if f"train_{SLACK[0]}" not in last:
        return []
    place = ({"panel": panel, "split": split} for split in ("train", "test"))
    return [{**p, **{name: round(last[f"{p['split']}_{name}"], 2) for name in SLACK}} for p in place]


def slackness(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """By panel, train and test."""
    pairs = zip(rows[::2], rows[1::2], strict=True)
    words = [
        f"{a['panel']} {a['slack']:.1f} on train, {b['slack']:.1f} ± {b['slack se']:.1f} on test" for a, b in pairs
    ]
    about = "AEVB at the end, log p(x) by 500 importance samples less the bound, of the first 1,000 points"
    return [f"{about}: {'; '.join(words)} nats."] if words else []


def speed(known: Known) -> list[str]:
    """Minutes per million training samples; the paper's 20 to 40 were on one Xeon."""
    words = []
    for data in ("MNIST", "Frey"):
        for a, name in NAMES.items():
            pairs = [pair for panel, pair in known.items() if panel.startswith(data)]
            rates = [minutes_per_million(pair[a]) for pair in pairs if a in pair]
            words += [f"{data}, {name}: {min(rates):.1f} to {max(rates):.1f}"] if rates else []
    return [f"Minutes per million samples on {machines(known)}: {'; '.join(words)}. The paper's: 20 to 40."]


def machines(known: Known) -> str:
    """What trained the curves, each by itself."""
    devices = {followed.settings.get("device", "cpu") for pair in known.values() for followed in pair.values()}
    names = {"cpu": "one processor core", "cuda": "one GPU"}
    return " or ".join(name for device, name in names.items() if device in devices)


def minutes_per_million(followed: Followed) -> float:
    last = followed.rows[-1]
    return last["seconds"] / 60 / (last["samples"] / 1e6) if last["samples"] else math.nan


def binarised(curves: Mapping[str, Followed]) -> list[dict[str, Any]]:
    """Each reading of the pixels at 10⁵, 3·10⁵, ...: the bound, and its gap between train and test beside the
    paper's."""
    at = [(name, row) for name, followed in curves.items() for row in followed.rows if row["samples"] in DECADES]
    return [_pixels(name, row) for name, row in at]


def _pixels(name: str, row: Row) -> dict[str, Any]:
    ours = {
        "train": round(row["train"], 2),
        "test": round(row["test"], 2),
        "train - test": round(row["train"] - row["test"], 2),
    }
    train, test = (published.at("2", "MNIST Nz=20", "AEVB", split, row["samples"]) for split in ("train", "test"))
    paper = (
        {}
        if train is None or test is None
        else {"paper, test": round(test, 2), "paper, train - test": round(train - test, 2)}
    )
    return {"pixels": name, "samples": int(row["samples"]), **ours, **paper}


def binarisation(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The readings side by side at the last mark that all of them have."""
    names = {r["pixels"] for r in rows}
    common = [s for s in DECADES if {r["pixels"] for r in rows if r["samples"] == s} == names]
    if not rows or not common:
        return []
    last = [r for r in rows if r["samples"] == common[-1]]
    words = "; ".join(f"{r['pixels']} {r['test']:.1f} (train - test {r['train - test']:+.1f})" for r in last)
    paper = (
        f"; the paper {last[0]['paper, test']:.1f} ({last[0]['paper, train - test']:+.1f})"
        if "paper, test" in last[0]
        else ""
    )
    return [
        f"MNIST, 20 latents, AEVB, test bound at {short(common[-1])} samples by reading of the pixels: {words}{paper}."
    ]


def ends(curves: Mapping[str, Followed]) -> list[dict[str, Any]]:
    """Wake-sleep on Frey Face where it ended, beside one normal per pixel, which knows no latents."""
    train, test = pixelwise()
    rows: list[dict[str, Any]] = [{"model": "one normal per pixel", "samples": "", "train": train, "test": test}]
    for name, followed in curves.items():
        last = followed.rows[-1]
        rows.append({"model": name, "samples": int(last["samples"]), "train": last["train"], "test": last["test"]})
    return [{**r, "train": round(r["train"], 1), "test": round(r["test"], 1)} for r in rows]


def collapse(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if len(rows) < 2:
        return []
    words = [f"{r['model']} {r['test']:.1f}" + (f" ({short(r['samples'])})" if r["samples"] else "") for r in rows]
    return [f"Frey Face by wake-sleep, test bound at the end: {'; '.join(words)} nats. The paper: 569 for every Nz."]


def pixelwise() -> tuple[float, float]:
    """The mean log-density of train and test faces under one normal per pixel fitted to the train faces, in nats."""
    data = dataset("frey", "grey")
    train, test = (s[:].flatten(1).double() for s in (data.train, data.test))
    p = torch.distributions.Normal(train.mean(0), train.std(0, correction=0))
    return float(p.log_prob(train).sum(-1).mean()), float(p.log_prob(test).sum(-1).mean())


def short(samples: float) -> str:
    """3000000 → 3·10⁶."""
    power = math.floor(math.log10(samples))
    digits = f"{samples / 10**power:.3g}"
    exponent = str(power).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{exponent}" if digits == "1" else f"{digits}·10{exponent}"

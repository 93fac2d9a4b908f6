"""Latent units that carry nothing, or one that carries nearly all."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from aevb.evaluation.estimate import Estimate
from aevb.evaluation.exam import Check, Exam, Finding, Story
from aevb.evaluation.latent import active_units

FREE = 0.25  # nats per latent that cost nothing
MOST_OF_KL = 0.9  # of the KL in one unit
MANY = 4  # units, of which none should have most


def look(exam: Exam) -> Iterator[Finding]:
    known = exam.of_train
    if known.codes or not known.offers.kl:  # codes have a perplexity, and an autoencoder's points no scale
        return
    if len(known.mean) < 2:  # one row has no spread
        return
    spread = known.prior.var(0)
    active, _ = active_units(known.mean, threshold=0.01 * spread.where(spread > 0, 1.0))
    size, kl = known.mean.shape[1], known.kl
    if not active:
        yield _collapsed(exam, size, kl)
    elif 2 * active < size and _one_size(exam.story):
        yield _unused(exam, active, size)
    elif kl.shape[1] >= MANY:
        yield from _dominated(exam, kl)


def _collapsed(exam: Exam, size: int, kl: Tensor) -> Finding:
    total = Estimate.of(kl.sum(1))
    beta = exam.story.part("objective", "beta", 1)
    heavy = isinstance(beta, int | float) and beta > 1
    change = "objective.beta=1" if heavy else f"objective.free_bits={FREE}"
    why = "Give the KL less weight" if heavy else f"Let {FREE} nats of each latent cost nothing"
    return Finding(
        "collapse",
        f"The posterior has collapsed: none of {size} latent units is active, and the KL is {total} nats. So z"
        " carries no information about x.",
        f"{why}: {exam.commands.again(*_of_elbo(exam.story), change)}",
        {"active_units": 0, "latent_size": size, "kl": total},
    )


def _of_elbo(story: Story) -> list[str]:
    """What makes the objective the one that knows free bits."""
    return [] if story.part("objective") == "elbo" else ["objective=elbo"]


def _one_size(story: Story) -> bool:
    """Whether the latent size of the recipe is one number, that of all latents."""
    single = isinstance(story.settings.get("latent"), int) and not story.settings.get("chain")
    return single and "ladder" not in story.settings


def _unused(exam: Exam, active: int, size: int) -> Finding:
    return Finding(
        "unused-units",
        f"Only {active} of {size} latent units are active; the others cost time and carry no information.",
        f"A model of {active} is enough: {exam.commands.again(f'latent={active}')}",
        {"active_units": active, "latent_size": size},
    )


def _dominated(exam: Exam, kl: Tensor) -> Iterator[Finding]:
    """One unit holds most of the KL, by a ratio of means with the error of its linear part."""
    unit = int(kl.mean(0).argmax())
    whole, own = kl.sum(1), kl[:, unit]
    ratio = float(own.mean() / whole.mean().clamp(min=1e-12))
    share = Estimate.of((own - ratio * whole) / whole.mean().clamp(min=1e-12)).moved(ratio)
    if not share - 3 * share.se >= MOST_OF_KL or whole.mean() < 1:
        return
    yield Finding(
        "one-unit",
        f"One of {kl.shape[1]} latent units, number {unit}, holds {share.times(100).text(1)} % of the KL.",
        "Look at what it encodes. Columns that are near copies of one another cause this; one of them is enough:"
        f" {exam.commands.verb('traverse')}",
        {"share": share, "unit": unit},
    )


CHECK = Check("unused latent units", 1, look=look)

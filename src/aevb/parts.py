"""What parts declare of themselves, where parts are found, and the one check of which of them go together.

A part is anything that a recipe can name: a family, a prior, a network, an objective, a term, a schedule, an optimiser.
Its class declares

    word, roles    what a recipe calls it, and in which tables it can stand
    offers         what it can do: an `Offers`
    needs          what it requires of the other parts: a `Needs`
    equation       its line in the equation of a recipe

and nothing else knows of it. A part that declares nothing is admitted: only a declared conflict is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from enum import Enum, IntEnum
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from aevb.errors import AevbError, RecipeError, suggest

PRIOR, POSTERIOR, LIKELIHOOD = "prior", "posterior", "likelihood"
ENCODER, DECODER, CHAIN, LADDER = "encoder", "decoder", "chain", "ladder"
OBJECTIVE, TERM, SCHEDULE, OPTIMIZER = "objective", "terms", "schedule", "optimizer"
CONTEXT, HIERARCHY = "context", "hierarchy"  # of a model; no part can be named for them

MODULES = (  # that declare parts, in the order in which messages list them
    *("probability.families", "probability.reparameterized", "probability.flows", "probability.scales"),
    *("probability.mixtures", "probability.counts", "probability.circular", "probability.sphere", "probability.codes"),
    *("probability.categories", "probability.many_levels", "probability.quantiles", "probability.columns"),
    *("models.priors", "models.networks", "models.residual", "models.rungs"),
    *("objectives.bounds", "objectives.full_bayes", "objectives.importance", "objectives.semi_supervised"),
    *("objectives.monte_carlo_em", "objectives.wake_sleep", "objectives.terms", "objectives.schedules"),
    "training.optimizers",
)
GROUP = "aevb.parts"  # the entry points by which installed packages offer parts of their own
LISTED = 8  # alternatives in a message
LEVELS = 10**7  # of a column at most: their vectors take 5 GB with gradients and the means of Adam

Values = Mapping[str, Any]  # a part's keys, defaults filled in; and of the recipe: y, v, net
Equation = str | Callable[[Values], str]  # a template, or what writes the line


class Support(Enum):
    """Where a distribution has its density or its probabilities."""

    REAL = "the real line"
    POSITIVE = "positive numbers"
    UNIT = "numbers between 0 and 1"
    SIMPLEX = "the simplex"
    SPHERE = "the unit sphere"
    ONE_HOT = "one-hot vectors"
    RELAXED = "relaxed one-hot vectors"
    CODEBOOK = "the vectors of a codebook"
    GRID = "the points of a grid"
    CODES = "the codes of the posterior"
    BINARY = "0 and 1"
    LEVELS = "equally spaced levels"
    COUNTS = "the whole numbers from 0"
    ANGLES = "angles from -π to π"


class Tail(IntEnum):
    """How heavy the tails of a density are, the lightest first."""

    GAUSSIAN = 0
    GUMBEL = 1  # exponential to the right, lighter to the left
    EXPONENTIAL = 2
    POLYNOMIAL = 3  # with mean and variance
    CAUCHY = 4  # without


@dataclass(frozen=True)
class Offers:
    """What a part can do. The defaults are those of a part that declares nothing, of which nothing is refused.

    Attributes:
        support: of a family or prior; None: not known.
        tail: how heavy its tails are.
        tolerates: the heaviest tail of a posterior q for which E_q[-log p(z)] is finite, with this as the prior p.
        reparameterized: its draws have a derivative in its parameters.
        density: it has a density, or a probability, of any z; not all of it is in a single point.
        kl: its KL from a prior on the same support is finite.
        everywhere: its density is positive on all of the support.
        factorized: its latents are independent given x, so that single ones have densities.
        diagonal: it is N(μ, diag σ²).
        known_mean, known_covariance: in closed form, with a derivative.
        components: a learned prior can be of its family, such as a mixture.
        uniform: it has finitely many codes, and knows the uniform distribution over them.
        quantized: its codes come of numbers h, to which an encoder can be committed.
        own_weights: it shares no weights with the prior.
        couples_batch: what it says of one data point depends on the others of the minibatch.
        layered: as the prior of a hierarchy's top layer it has a density.
        unconditional: of a prior, p(z) is the same for every y.
        layers: of latents.
        missing: of a likelihood, x may hold NaN, a missing cell.
        conditions: it can be conditioned on labels.
        labels: of a context, there are labels.
        terms: of an objective, terms can be added to it.
        unlabelled: of an objective, it learns from data without labels too.
        point_weights: of an objective, weights are point estimates without a prior.
        compiled: of an objective, torch.compile can trace it.
        repeatable: of an encoder, a second pass gives the same q(z|x).
        instead: of a ladder, the tables of a recipe that it replaces.
    """

    support: Support | None = None
    tail: Tail = Tail.GAUSSIAN
    tolerates: Tail = Tail.POLYNOMIAL
    reparameterized: bool = True
    density: bool = True
    kl: bool = True
    everywhere: bool = True
    factorized: bool = True
    diagonal: bool = False
    known_mean: bool = True
    known_covariance: bool = True
    components: bool = True
    uniform: bool = False
    quantized: bool = False
    own_weights: bool = True
    couples_batch: bool = False
    layered: bool = True
    unconditional: bool = True
    layers: int = 1
    missing: bool = False
    conditions: bool = True
    labels: bool = False
    terms: bool = False
    unlabelled: bool = False
    point_weights: bool = True
    compiled: bool = True
    repeatable: bool = True
    instead: tuple[str, ...] = ()

    @property
    def real(self) -> bool:
        return self.support in (None, Support.REAL)

    @property
    def free(self) -> bool:
        """Numbers that a chain can move one by one, after a change of variables."""
        return self.support in (None, Support.REAL, Support.POSITIVE, Support.UNIT, Support.SIMPLEX)

    @property
    def tabled(self) -> bool:
        """Single numbers of which each value has a probability."""
        return self.factorized and self.support in (Support.BINARY, Support.LEVELS, Support.COUNTS)

    @property
    def relaxed(self) -> bool:
        return self.support is Support.RELAXED

    @property
    def single(self) -> bool:
        return self.layers == 1

    @property
    def separate(self) -> bool:
        return not self.couples_batch


def _need(role: str, what: str, offer: str = "") -> Any:
    """A requirement of the part in a role: the field of `Offers` that must be true, and what it is called in a
    message."""
    return field(default=False, metadata={"role": role, "what": what, "offer": offer})


@dataclass(frozen=True)
class Needs:
    """What a part requires of the parts beside it; each field names a field of `Offers`, its role and what it is
    called.

    Attributes:
        otherwise: what else cures the lack, by the name of a field.
    """

    reparameterized: bool = _need(POSTERIOR, "derivative of its draws")
    density: bool = _need(POSTERIOR, "density q(z|x)")
    kl: bool = _need(POSTERIOR, "finite KL from the prior")
    everywhere: bool = _need(POSTERIOR, "density outside of an interval that moves with x")
    factorized: bool = _need(POSTERIOR, "density of single latents")
    diagonal: bool = _need(POSTERIOR, "normal density of each latent")
    known_mean: bool = _need(POSTERIOR, "mean in closed form with a derivative")
    known_covariance: bool = _need(POSTERIOR, "covariance in closed form")
    components: bool = _need(POSTERIOR, "family for a learned prior")
    uniform: bool = _need(POSTERIOR, "finite set of codes")
    relaxed: bool = _need(POSTERIOR, "relaxed codes")
    quantized: bool = _need(POSTERIOR, "quantised codes")
    real_latents: bool = _need(POSTERIOR, "latents over the real line", "real")
    own_weights: bool = _need(HIERARCHY, "weights for q(z|x) alone")
    single: bool = _need(HIERARCHY, "single layer of latents")
    conditions: bool = _need(HIERARCHY, "way to be conditioned on labels")
    real_prior: bool = _need(PRIOR, "density over the real line", "real")
    diagonal_prior: bool = _need(PRIOR, "normal density of each latent", "diagonal")
    free: bool = _need(PRIOR, "coordinates that move through ℝᴰ")
    layered: bool = _need(PRIOR, "density in a hierarchy")
    unconditional: bool = _need(PRIOR, "single p(z) for all y")
    draws_density: bool = _need(PRIOR, "density of relaxed codes")
    missing: bool = _need(LIKELIHOOD, "density of rows with missing cells")
    tabled: bool = _need(LIKELIHOOD, "probabilities of single binary numbers, levels or counts")
    separate: bool = _need(LIKELIHOOD, "likelihood of single data points")
    terms: bool = _need(OBJECTIVE, "loss to which terms can be added")
    unlabelled: bool = _need(OBJECTIVE, "use of data without labels")
    point_weights: bool = _need(OBJECTIVE, "point estimates of the weights")
    compiled: bool = _need(OBJECTIVE, "loss that torch.compile can trace")
    labels: bool = _need(CONTEXT, "labels")
    repeatable: bool = _need(ENCODER, "second pass that gives the same q(z|x)")
    otherwise: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """What a recipe can name: its word, the tables in which it can stand, how it is made, and what it declares."""

    word: str
    roles: tuple[str, ...]
    make: Callable[..., Any]
    equation: Equation = ""
    offers: Offers = Offers()
    needs: Needs = Needs()


@dataclass(frozen=True)
class Member:
    """A part in its role beside others: of a model, of a training, or of an estimate; `fixed` if no other can replace
    it."""

    role: str
    name: str
    offers: Offers = Offers()
    needs: Needs = Needs()
    fixed: bool = False

    def __str__(self) -> str:
        role = self.role.removesuffix("s")
        return f"The {role} {self.name}".rstrip() if self.role else self.name


@dataclass(frozen=True)
class Conflict:
    """What `part` lacks, what that is called, and who requires it."""

    part: Member
    what: str
    by: Member
    need: str = ""


Members = Sequence[Member]


# Finding parts


def part_of(thing: Any, word: str = "") -> Part:
    """What a class or a function declares; `word` for one that does not give its own."""
    return Part(
        getattr(thing, "word", word),
        tuple(getattr(thing, "roles", ())),
        thing,
        getattr(thing, "equation", ""),
        getattr(thing, "offers", None) or Offers(),
        getattr(thing, "needs", None) or Needs(),
    )


def word_of(thing: Any) -> str:
    """What to call a part in a message: its word, or the name of its class."""
    return getattr(thing, "word", None) or type(thing).__name__


@cache
def builtin() -> tuple[Part, ...]:
    """All parts of aevb: the classes of `MODULES` that have a word, and what these modules list as `PARTS`."""
    return tuple(part for name in MODULES for part in _declared(import_module(f"aevb.{name}")))


def _declared(module: Any) -> Iterator[Part]:
    for thing in list(vars(module).values()):
        if isinstance(thing, type) and thing.__module__ == module.__name__ and "roles" in vars(thing):
            yield part_of(thing)
    yield from getattr(module, "PARTS", ())


def parts_in(role: str) -> dict[str, Part]:
    """The parts of aevb that can stand in a role, by word."""
    return {part.word: part for part in builtin() if role in part.roles}


def plugin(word: str) -> Part | None:
    """The part that an installed package offers under this word: an entry point of the group `aevb.parts`, of that
    name.

    Raises:
        RecipeError: it cannot be imported.
    """
    for entry in entry_points(group=GROUP, name=word):
        try:
            return part_of(entry.load(), word)
        except Exception as error:
            raise RecipeError(f"The part {word!r} ({entry.value}) of an installed package fails: {error}") from error
    return None


def find(role: str, word: Any, where: str = "") -> Part:
    """The part of this word in this role: of aevb, or of an installed package, which is imported only if it is named.

    Raises:
        RecipeError: there is none.
    """
    known = parts_in(role)
    if isinstance(word, str):
        found = known.get(word) or plugin(word)
        if found is not None and role in (found.roles or (role,)):
            return found
    raise RecipeError(f"{where or role}: there is no {word!r}.{suggest(str(word), known)}")


# The check


def check(members: Members, error: type[AevbError] = RecipeError) -> None:
    """Raise at the first conflict between parts, in the one sentence that there is for it."""
    for conflict in conflicts(members):
        raise error(sentence(conflict, members))


def conflicts(members: Members) -> Iterator[Conflict]:
    """What each part requires and another, present one lacks; then what is wrong between posterior and prior."""
    roles = {member.role: member for member in members}
    for by in members:
        for need in _required(by.needs):
            part = roles.get(need.metadata["role"])
            if part is not None and not _has(part, need.metadata["offer"] or need.name, roles):
                yield Conflict(part, need.metadata["what"], by, need.name)
    if POSTERIOR in roles and PRIOR in roles:
        yield from _between(roles[POSTERIOR], roles[PRIOR])


def _required(needs: Needs) -> Iterator[Field[Any]]:
    return (need for need in fields(Needs) if need.name != "otherwise" and getattr(needs, need.name))


def _has(part: Member, offer: str, roles: Mapping[str, Member]) -> bool:
    if offer == "draws_density":  # of the choices that relaxed codes lean to a prior over codes knows the KL alone
        return not (part.offers.support is Support.CODES and POSTERIOR in roles and roles[POSTERIOR].offers.relaxed)
    return bool(getattr(part.offers, offer))


CODES = (Support.ONE_HOT, Support.RELAXED, Support.CODEBOOK, Support.GRID)


def _between(q: Member, p: Member) -> Iterator[Conflict]:
    """A prior on other numbers than the posterior, or one with tails so light that KL(q ‖ p) = ∞."""
    on, its = q.offers.support, p.offers.support
    if on and its and on is not its and not (its is Support.CODES and on in CODES):
        yield Conflict(p, f"density on {on.value}", q)
    elif q.offers.tail > p.offers.tolerates:
        yield Conflict(p, "finite KL for tails as heavy as these", q)


def sentence(conflict: Conflict, members: Members) -> str:
    """The {role} {name} gives no {what}, which the {role} {name} requires. Choose one of: {what would cure it}."""
    part, by = conflict.part, conflict.by
    required = (
        f"{part} gives no {conflict.what}, which {'the' if by.role else ''}{str(by).removeprefix('The')} requires."
    )
    options = [
        *_listed("one of: {}", _cures(part, members)),
        *_listed(f"the {by.role.removesuffix('s')} {{}}", _cures(by, members)),
        *([conflict.by.needs.otherwise[conflict.need]] if conflict.need in conflict.by.needs.otherwise else []),
    ]
    return f"{required} Choose {'; or '.join(options)}." if options else f"{required} Leave one of them out."


def _cures(part: Member, members: Members) -> list[str]:
    """The words of the parts that could stand in the place of one without any conflict."""
    others = [member for member in members if member is not part]
    possible = {} if part.fixed else parts_in(part.role)
    return [
        word
        for word, found in possible.items()
        if word != part.name
        and found.offers.kl >= part.offers.kl  # a point is for autoencoders, which somebody must want
        and not any(conflicts([*others, Member(part.role, word, found.offers, found.needs)]))
    ]


def _listed(template: str, words: Sequence[str]) -> Iterable[str]:
    more = len(words) - LISTED
    shown = ", ".join(words[:LISTED]) + (f" and {more} more" if more > 0 else "")
    return [template.format(shown)] if words else []

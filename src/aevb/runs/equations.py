"""The equation of a recipe, composed of its parts': what is maximised, and what each symbol in it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aevb.errors import RecipeError
from aevb.notation import plain, text
from aevb.parts import find
from aevb.runs.recipe import Recipe

BEGINS = "# maximised over θ, all that p(z) and g learn, and φ of f, on average over the data x:"

# Composition


def equation(recipe: Recipe) -> list[str]:
    """The lines of a recipe's equation: the objective, then prior, posterior, likelihood, networks, steps and paper.

    Raises:
        RecipeError: a part that there is not.
    """
    s, classes = recipe.settings, recipe.context().classes
    y = ", y" if recipe.conditional else ""
    goal = _goal(recipe, y)
    if "ladder" in s:
        return _laid(goal, _ladder(recipe))
    sizes = [s["latent"], *(table["latent"] for table in s["chain"])]
    top, first = (
        (f" of z_{len(sizes)}, the top layer", f",  {_size(sizes[0])} latents of z_1") if s["chain"] else ("", "")
    )
    lines = [("prior", f"{part('prior', s['prior'])},  D = {_size(sizes[-1])} latents{top}")]
    lines += [("posterior", f"q(z|x{y}) = {part('posterior', s['posterior'], v='z', net=f'f(x{y})')}{first}")]
    lines += [(f"layer {l}", _layer(l, table)) for l, table in enumerate(s["chain"], 2)]
    lines += [("likelihood", f"p(x|z{y}) = {part('likelihood', s.get('likelihood'), v='x', net=f'g(z{y})')}")]
    lines += [
        ("label", f"y, one-hot, of {classes or 'as many'} classes{'' if classes else ' as the data have'}")
    ] * bool(y)
    lines += [*_networks(s), ("steps", _steps(recipe)), ("paper", s["paper"])]
    return _laid(goal, [f"{name:<10}  {text}" for name, text in lines if text])


def _goal(recipe: Recipe, y: str) -> list[str]:
    """The objective, its terms, and the prior over weights."""
    s = recipe.settings
    goal = part("objective", s["objective"], y=y).splitlines()
    goal += [f"- {_weight(table)} {part('terms', table)}" for table in recipe.tables("terms")]
    goal += ["+ 1/N log N(W; 0, I) over all weights W, not biases"] * recipe.training().weight_prior
    of_label = "prior" in s and part("prior", s["prior"]).startswith("p(z|y)")
    return [line.replace("p(z)", "p(z|y)") if of_label else line for line in goal]


def _ladder(recipe: Recipe) -> list[str]:
    """All but the objective of a recipe with a `[ladder]`."""
    s = recipe.settings
    likelihood = part("likelihood", s.get("likelihood"), v="x", net="g(h)")
    lines = [*part("ladder", s["ladder"]).splitlines(), f"likelihood  p(x|z) = {likelihood}"]
    return [*lines, f"steps       {_steps(recipe)}", f"paper       {s['paper']}"]


def _laid(goal: Sequence[str], lines: Sequence[str]) -> list[str]:
    return [*(f"  {line}" for line in goal), *lines]


def part(axis: str, table: Any, **context: str) -> str:
    """The equation of one part, its numbers filled in."""
    name = table.get("type") if isinstance(table, Mapping) else table
    found = find(axis, name)
    try:
        return text(found, (dict(table) if isinstance(table, Mapping) else {}) | context)
    except (KeyError, TypeError, ValueError) as error:
        raise RecipeError(f"{axis} ({name}): a key or a value does not fit; got {table!r}.") from error


def _layer(l: int, table: Mapping[str, Any]) -> str:
    """What is between z_l and the latent below it."""
    net = {"type": "mlp", **{k: v for k, v in table.items() if k != "latent"}}
    return f"q(z_{l}|z_{l - 1}) likewise, p(z_{l - 1}|z_{l}) = Π_d N(z_d; μ_d, σ_d²),  by nets {part('chain', net)}"


def _networks(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    f, g = settings.get("encoder"), settings.get("decoder")
    if f == g:
        return [("f and g", part("encoder", f))]
    return [("f", part("encoder", f)), ("g", part("decoder", g))]


def _steps(recipe: Recipe) -> str:
    training, table = recipe.training(), recipe.settings["training"]
    rate = f" times a factor {plain(table['learning_rate'])}" if "learning_rate" in table else ""
    return f"{part('optimizer', table.get('optimizer', {'type': 'adam'}))}{rate}; ∇ from {training.batch:,} x"


def _weight(table: Mapping[str, Any]) -> str:
    value = table.get("weight", 1.0)
    return f"({plain(value)}) ·" if isinstance(value, Mapping) else plain(value)


def _size(latent: Any) -> str:
    return "×".join(map(str, latent)) if isinstance(latent, Sequence) else str(latent)


# On paper


def headed(recipe: Recipe, toml: str) -> str:
    """A recipe's TOML under its equation, in comments; an equation that heads it already is renewed."""
    body = toml.partition("\n\n")[2] if toml.startswith(BEGINS) else toml
    return "\n".join([BEGINS, *(f"# {line}".rstrip() for line in equation(recipe)), "", body])

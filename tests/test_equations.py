"""The equations of recipes: every part has one, the numbers are the recipe's, and what is printed is still the
recipe.
"""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import pytest

from aevb.errors import RecipeError
from aevb.notation import plain
from aevb.parts import SCHEDULE
from aevb.runs.equations import equation, headed, part
from aevb.runs.index import recipe_text
from aevb.runs.parts import AXES
from aevb.runs.recipe import Recipe, recipe_names

WIDEST, MOST = 130, 10
PARTS = [(axis, name) for axis, parts in AXES.items() if axis != SCHEDULE for name in parts]


def lines(name: str, *assignments: str) -> str:
    return "\n".join(equation(Recipe.load(name).override(assignments)))


@pytest.mark.parametrize(("axis", "name"), PARTS, ids=[f"{axis}-{name}" for axis, name in PARTS])
def test_every_part_has_an_equation(axis: str, name: str) -> None:
    """Each class has its `equation`; all its keys are filled in."""
    found = part(axis, {"type": name}, y="", v="z", net="f(x)")
    assert len(found) > 4
    assert not re.search(r"[{}](?!E_q)", found.replace("{E_q", "").replace("}", ""))
    assert "= =" not in found


def test_every_schedule_has_words() -> None:
    for name, make in AXES[SCHEDULE].items():
        given = {"steps": 4000, "ends": [4000], "values": [2.0, 1.0]}
        numbers = {k: given.get(k, 3.0) for k in inspect.signature(make).parameters}
        assert "4,000" in plain({"type": name, **numbers})
        assert "{" not in plain({"type": name, **numbers})


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_printed_under_its_equation_and_stays_itself(name: str, tmp_path: Path) -> None:
    text = recipe_text(name)
    file = tmp_path / f"{name}.toml"
    file.write_text(text, encoding="utf-8")
    assert Recipe.load(file).settings == Recipe.load(name).settings
    assert recipe_text(str(file)) == text  # the equation is renewed, not printed twice
    found = equation(Recipe.load(name))
    assert 4 <= len(found) <= MOST
    assert max(map(len, found)) <= WIDEST
    assert found[-1] == f"paper       {tomllib.loads(text)['paper']}"


CONTENT: dict[str, list[str]] = {
    "aevb": [
        "ℒ(x) = E_q[log p(x|z)] - KL(q(z|x) ‖ p(z))\n",
        "+ 1/N log N(W; 0, I) over all weights W",
        "p(z) = N(z; 0, I),  D = 20 latents",
        "q(z|x) = Π_d N(z_d; μ_d, σ_d²),  (μ, log σ²) = f(x)\n",
        "p(x|z) = Π_d π_d^x_d (1 - π_d)^(1 - x_d),  π = sigmoid(g(z)); of grey x a cross-entropy, no likelihood",
        "h ← tanh(W h + b), 500 wide",
        "Adagrad, θ ← θ + η ∇/√Σ∇²,  η = 0.02 times a factor from 0 to 1 in 100 steps; ∇ from 100 x",
    ],
    "estimator-a": ["- E_q[log q(z|x) - log p(z)]\n"],
    "autoencoder": ["ℒ(x) = E_q[log p(x|z)]\n", "δ(z - f(x))"],
    "beta-vae": ["- β KL(q(z|x) ‖ p(z)),  β = 4\n"],
    "warm-up": ["β from 0 to 1 in 3,000 steps"],
    "cyclical": ["β from 0 to 1 in the first 0.5 of every 2,500 steps"],
    "capacity": ["- β |E_x KL(q(z|x) ‖ p(z)) - C|,  β = 100, C from 0 to 25 in 8,000 steps"],
    "free-bits": ["- Σ_d max(λ, E_x KL(q(z_d|x) ‖ p(z_d))),  λ = 0.25"],
    "beta-tcvae": ["- 5 TC,  TC = KL(q(z) ‖ Π_d q(z_d))"],
    "dip-vae": ["- 10 [Σ_(i≠j) C_ij² + 10 Σ_i (C_ii - 1)²],  C = Cov_x E_q[z]"],
    "info-vae": ["- 99 MMD²", "exp(-|a - b|²/C), C = 2D"],
    "wae": ["- 10 MMD²", "C/(C + |a - b|²)", "σ = 0.707107, μ = sigmoid(m)"],
    "iwae": ["ℒ(x) = E log 1/K Σ_k w_k\n", "w_k = p(x, z_k) / q(z_k|x),  z_k ~ q(z|x),  K = 50\n"],
    "iwae-2": [
        "p(z) = N(z; 0, I),  D = 50 latents of z_2, the top layer",
        "q(z_2|z_1) likewise, p(z_1|z_2) = Π_d N(z_d; μ_d, σ_d²),  by nets h ← tanh(W h + b), 100, 100 wide",
        "100 latents of z_1",
    ],
    "miwae": ["ℒ(x) = E 1/8 Σ_m log 1/8 Σ_(k in group m) w_k\n", "K = 64\n"],
    "piwae": ["ℒ(x) = E log 1/K Σ_k w_k for θ\n", "ℒ(x) = E 1/8 Σ_m log 1/8 Σ_(k in group m) w_k for φ\n"],
    "ciwae": ["[β 1/K Σ_k log w_k + (1 - β) log 1/K Σ_k w_k]", "β = 0.05"],
    "renyi": ["1/(1 - α) log 1/K Σ_k w_k^(1 - α)", "α = 0.5"],
    "stl": ["E 1/K Σ_k log w_k\n", "K = 1\n", "φ is held constant in log q(z_k|x)"],
    "dreg": ["Σ_k ŵ_k² ∂log w_k/∂z_k ∇_φ z_k"],
    "wake-sleep": ["in θ  log p(x, z),  z ~ q(z|x)\n", "in φ  log q(z'|x')\n", "1 dream for each x"],
    "reweighted-wake-sleep": ["(1 - w) log q(z'|x') + w Σ_k ŵ_k log q(z_k|x),  w = 0.5", "K = 5"],
    "mcem": ["in θ  log p(x, z),  z ~ p(z|x)", "5 updates"],
    "full-bayes": ["- 1/N KL(q(θ) ‖ p(θ))", "all parameters of: decoder", "σ_θ = 0.01"],
    "vimco": ["(ℒ - ℒ_-k - ∂ℒ/∂log w_k) ∇_φ log q(z_k|x)"],
    "m2": [
        "where the label y is known",
        "q(y|x) an mlp, 500 wide",
        "α = 0.1",
        "y, one-hot, of as many classes as the data have",
    ],
    "conditional": [
        "E_q[log p(x|z, y)] - KL(q(z|x, y) ‖ p(z))",
        "π = sigmoid(g(z, y))",
        "of as many classes as the data have",
    ],
    "vamp-prior": ["1/M Σ_m q(z|u_m)", "M = 500"],
    "planar-flow": ["ε after 10 times z ← z + u tanh(w·z + b)"],
    "sigma-vae": ["σ² = mean (x - μ)² over the minibatch", "m = g(z), μ = sigmoid(m)"],
    "gaussian": ["D = 4 latents"],
    "residual": ["h ← h + K' ∗ silu(norm(K ∗ silu(norm(h))))", "as many channels as suit the image's size"],
}


@pytest.mark.parametrize("name", CONTENT)
def test_what_the_equation_of_a_recipe_says(name: str) -> None:
    found = lines(name) + "\n"
    assert [expected for expected in CONTENT[name] if expected not in found] == []


def test_the_equation_follows_the_recipe() -> None:
    assert "β = 8" in lines("beta-vae", "objective.beta=8")
    assert "β" not in lines("beta-vae", "objective.beta=1").split("prior")[0]
    assert "by 5 draws z" in lines("aevb", "objective.samples=5")
    assert "E 1/K Σ_k log w_k" in lines("iwae", "objective.alpha=1.0")
    assert "(α ŵ_k + (1 - α) ŵ_k²)" in lines("dreg", "objective.alpha=0.5")
    assert "ŵ_k = w_k^(1 - α) over its group's sum" in lines("dreg", "objective.alpha=0.5", "objective.groups=5")
    assert "(from 0 to 2 in 9 steps) · TC" in lines(
        "beta-vae", 'terms=[{type="total-correlation", weight={type="linear", start=0.0, end=2.0, steps=9}}]'
    )
    assert "N(x_d; μ_d, σ_d² + 0.1²)" in lines("gaussian", "likelihood.least=0.1")
    assert "D = 4×2×2" in lines("aevb", "latent=[4, 2, 2]")
    assert "y, one-hot, of 10 classes" in lines("iwae", "context.classes=10")
    assert "w_k = p(x, z_k|y) / q(z_k|x, y)" in lines("iwae", "context.classes=10")
    assert "E_q[log p(x|z, y)] - KL(q(z|x, y) ‖ p(z))" in lines("full-bayes", "context.classes=10")
    assert "log p(x, z|y),  z ~ p(z|x, y)" in lines("mcem", "context.classes=10")
    assert "ŵ" not in lines("vimco", "objective.alpha=0.5", "objective.samples=6", "objective.groups=2")


def test_different_networks_have_a_line_each() -> None:
    found = lines("aevb", "encoder.hidden=[7]").splitlines()
    assert [line[:12].rstrip() for line in found[-4:]] == ["f", "g", "steps", "paper"]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("likelihood=gausian", "likelihood: there is no 'gausian'"),
        ("objective={type='importance-weighted', gradient='x'}", r"objective \(importance-weighted\): .* does not fit"),
        ("objective={type='importance-weighted', groups='x'}", r"objective \(importance-weighted\): .* does not fit"),
    ],
)
def test_a_part_that_there_is_not(assignment: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        lines("aevb", assignment)


def test_only_an_equation_at_the_head_is_taken_for_one() -> None:
    recipe, own = Recipe.load("aevb"), '# my own\n\ntitle = "x"'
    assert headed(recipe, own).endswith(own)
    assert headed(recipe, headed(recipe, own)) == headed(recipe, own)


def test_the_page_of_recipes_shows_one_as_it_is_printed() -> None:
    page = (Path(__file__).parent.parent / "docs" / "recipes.md").read_text(encoding="utf-8")
    shown = page.partition("$ aevb recipes beta-vae\n")[2].partition("```")[0]
    assert headed(Recipe.load("beta-vae"), "").rstrip() == shown.rstrip()

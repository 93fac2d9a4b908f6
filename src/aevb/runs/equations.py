"""The equation of a recipe, composed of its parts': what is maximised, and what each symbol in it is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aevb.errors import RecipeError
from aevb.runs.parts import AXES, SCHEDULES, lookup
from aevb.runs.recipe import Recipe

Values = Mapping[str, Any]  # a part's keys, defaults filled in; and of the recipe: y, v, net
Equation = str | Callable[[Values], str]  # a template, or what writes the line
BEGINS = "# maximised over θ, all that p(z) and g learn, and φ of f, on average over the data x:"

# Priors

PRIORS: Mapping[str, Equation] = {
    "standard-normal": "p(z) = N(z; 0, I)",
    "standard-logistic": "p(z) = Π_d Logistic(z_d; 0, 1)",
    "standard-laplace": "p(z) = Π_d Laplace(z_d; 0, 1)",
    "standard-student-t": "p(z) = Π_d StudentT(z_d; 0, 1, ν = 3)",
    "standard-cauchy": "p(z) = Π_d Cauchy(z_d; 0, 1)",
    "standard-gumbel": "p(z) = Π_d Gumbel(z_d; 0, 1)",
    "unit-exponential": "p(z) = Π_d exp(-z_d),  z_d > 0",
    "log-normal": "p(z) = Π_d N(log z_d; 0, 1) / z_d,  z_d > 0",
    "uniform": "p(z) = 1,  0 < z_d < 1",
    "flat-dirichlet": "p(z) = Dirichlet(z; 1, ..., 1),  z_d > 0, Σ_d z_d = 1",
    "uniform-sphere": "p(z) = Γ(D/2) / 2 π^(D/2),  |z| = 1",
    "conditional": lambda v: (
        "p(z|y) = r(z; ψ(y)),  r the posterior's family, "
        + (f"ψ an mlp {plain(v['hidden'])} wide" if v["hidden"] else "ψ learned for each label")
    ),
    "uniform-codes": "p(z) = 1/K for each of the K codes of f",
    "uniform-concrete": "p(z) = Π_g Concrete(z_g; 1/C, τ),  and 1/C for each one-hot z_g after training",
    "flow": "p(z) = N(t(z); 0, I) |det ∂t/∂z|,  t: {flows} autoregressive splines of {bins} bins, learned",
    "mixture": "p(z) = Σ_m π_m r(z; ψ_m),  r the posterior's family, π and ψ learned, m = 1..{components}",
    "vamp": "p(z) = 1/M Σ_m q(z|u_m),  pseudo-inputs u_m learned, M = {components}",
}

# Families: v is z or x, net what the network gives for it


def _normal(v: Values) -> str:
    least = f" + {plain(v['least'])}²" if v["least"] else ""
    mean = "m" if v["link"] else "μ"
    net = f"({mean}, log σ²) = {v['net']}" if v["scale"] is None else f"{mean} = {v['net']}, σ = {plain(v['scale'])}"
    return f"Π_d N({v['v']}_d; μ_d, σ_d²{least}),  {net}{_link(v)}"


def _link(v: Values) -> str:
    return f", μ = {v['link']}(m)" if v["link"] else ""


def _around(v: Values, variance: str, more: str) -> str:
    """Of the normals whose network gives the mean alone."""
    mean = "m" if v["link"] else "μ"
    return f"Π_d N({v['v']}_d; μ_d, {variance}),  {mean} = {v['net']}{_link(v)}, {more}"


def _bernoulli(v: Values) -> str:
    grey = "; of grey x a cross-entropy, no likelihood" if v["relaxed"] else ""
    return f"Π_d π_d^{v['v']}_d (1 - π_d)^(1 - {v['v']}_d),  π = sigmoid({v['net']}){grey}"


def _of(name: str, parameters: str, net: str, more: str = "") -> str:
    """Π_d name(v_d; parameters), (net) = the network's numbers."""
    return f"Π_d {name}({{v}}_d; {parameters}),  {net} = {{net}}{more}"


def _bent(step: str, net: str) -> str:
    """A flow."""
    return "N(ε; μ, diag σ²) / |det ∂z/∂ε|,  z: ε after {flows} times z ← " + f"{step}, {net}"


FAMILIES: Mapping[str, Equation] = {
    "normal": _normal,
    "full-normal": "N({v}; μ, L Lᵀ),  (μ, L) = {net}, L a lower triangle",
    "low-rank-normal": "N({v}; μ, W Wᵀ + diag σ²),  (μ, log σ², V) = {net}, W = diag(σ) V of {rank} columns",
    "bernoulli": _bernoulli,
    "continuous-bernoulli": "Π_d C(π_d) π_d^{v}_d (1 - π_d)^(1 - {v}_d),  π = sigmoid({net}), C so that ∫p = 1 on [0, 1]",
    "categorical": "Π_d softmax(l_d) at {v}_d,  logits l = {net}, one for each value",
    "discretized-logistic": "Π_d F_d({v}_d + h/2) - F_d({v}_d - h/2),  F_d(a) = sigmoid((a - μ_d)/s_d), (μ, log s) = {net},"
    " levels h apart",
    "laplace": _of("Laplace", "μ_d, b_d", "(μ, log b)"),
    "student-t": _of("StudentT", "μ_d, s_d, ν_d", "(μ, log s, κ)", ", ν = 2.01 + softplus(κ)"),
    "delta": "δ({v} - {net}), a point",
    "logistic": _of("Logistic", "μ_d, s_d", "(μ, log s)"),
    "gumbel": _of("Gumbel", "μ_d, β_d", "(μ, log β)"),
    "cauchy": _of("Cauchy", "μ_d, γ_d", "(μ, log γ)"),
    "uniform": _of("U", "c_d - h_d, c_d + h_d", "(c, log h)"),
    "exponential": "Π_d exp(-{v}_d/θ_d) / θ_d,  {v}_d > 0, log θ = {net}",
    "weibull": _of("Weibull", "scale λ_d, shape k_d", "(log λ, κ)", ", k = ½ + softplus(κ)"),
    "log-normal": "Π_d N(log {v}_d; μ_d, σ_d²) / {v}_d,  (μ, log σ) = {net}",
    "gamma": _of("Gamma", "shape α_d, scale θ_d", "(κ, log θ)", ", α = ½ + softplus(κ)"),
    "beta": _of("Beta", "a_d, b_d", "(κ, κ')", ", a = ½ + softplus(κ), b = ½ + softplus(κ')"),
    "dirichlet": "Dirichlet({v}; α),  α = ½ + softplus({net})",
    "planar": _bent("z + u tanh(w·z + b)", "(μ, log σ², u, w, b) = {net}"),
    "sylvester": _bent("z + Q R tanh(R̃ Qᵀ z + b)", "all from {net}"),
    "iaf": _bent("s(z_<d, h) z_d + m(z_<d, h)", "(μ, log σ², h) = {net}"),
    "householder": "N({v}; Q μ, Q diag(σ²) Qᵀ),  Q: {reflections} reflections I - 2 v vᵀ/|v|², (μ, log σ², each v) = {net}",
    "homoscedastic-normal": lambda v: _around(v, "σ_d²" if v["each"] else "σ²", "σ learned"),
    "optimal-normal": lambda v: _around(v, "σ²", "σ² = mean (x - μ)² over the minibatch"),
    "logistic-mixture": "Π_pixels Σ_m π_m Π_c Logistic(x_c ± h/2; μ_mc, s_mc),  π ∝ exp(l), (l, μ, log s) = {net},"
    " {components} m, levels h apart",
    "beta-binomial": _of("BetaBinomial", "a_d, b_d", "(log a, log b)", ", over the levels of x"),
    "poisson": _of("Poisson", "λ_d", "log λ"),
    "negative-binomial": _of("NegBin", "mean μ_d, variance μ_d + μ_d²/r_d", "(log μ, log r)"),
    "zero-inflated-negative-binomial": "Π_d π_d [x_d = 0] + (1 - π_d) NegBin(x_d; mean μ_d, variance μ_d + μ_d²/r_d),"
    "  (log μ, log r, logit π) = {net}",
    "von-mises": "Π_d exp(κ_d cos({v}_d - μ_d)) / 2π I₀(κ_d),  κ (cos μ, sin μ) = {net}",
    "one-hot": "Π_g softmax(l_g) at the one of {v}_g,  logits l = {net}",
    "concrete": lambda v: (
        f"Π_g Concrete({v['v']}_g; l_g, τ),  logits l = {v['net']}, {bound_to('τ', v['temperature'])}; then one-hot"
    ),
    "vq": "Π_l [{v}_l = e_k(l)],  k(l) = argmin_k |h_l - e_k|², h = {net}, a codebook of {codes} e_k = means of their h",
    "fsq": "Π_ld [{v}_ld = tanh h_ld, rounded],  h = {net}, {levels} levels",
    "von-mises-fisher": "C_D(κ) exp(κ μᵀ{v}),  |{v}| = 1, (m, c) = {net}, μ = m/|m|, κ = D softplus(c)",
}

# Networks and optimisers

NETWORKS: Mapping[str, Equation] = {
    "mlp": "h ← {activation}(W h + b), {hidden} wide, then W h + b",
    "gated": "h ← (W h + b) ⊙ sigmoid(V h + c), {hidden} wide, then W h + b",
    "conv": "h ← {activation}(K ∗ h + b), {channels} channels, the size halved each time (g: doubled), then W h + b",
    "residual": "h ← h + K' ∗ silu(norm(K ∗ silu(norm(h)))), {blocks} at each size, {channels} channels, then W h + b",
}
OPTIMIZERS: Mapping[str, Equation] = {
    "adagrad": "Adagrad, θ ← θ + η ∇/√Σ∇²,  η = {lr}",
    "adam": "Adam, θ ← θ + η m/√v,  m and v running means of ∇ and ∇², η = {lr}",
    "sgd": "SGD, θ ← θ + η ∇,  η = {lr}, momentum {momentum}",
}

# Objectives and terms


def _elbo(v: Values) -> str:
    y, beta, free = v["y"], v["beta"], v["beta"] == 0
    bound = f"ℒ(x) = E_q[log p(x|z{y})]" + ("" if free else f" - {'' if beta == 1 else 'β '}{_charged(v)}")
    bindings = [] if free or beta == 1 else [bound_to("β", beta)]
    bindings += [bound_to(k, v[name]) for k, name in (("C", "capacity"), ("λ", "free_bits")) if v[name]]
    exact = "" if free or v["estimator"] == "A" else ", the KL exactly where it has a closed form"
    balance = f"\nγ_g ∝ (E_x|KL_g| / size_g)^b, 1 on average,  {bound_to('b', v['balance'])}" if v["balance"] else ""
    draws = f"E_q by {_count(v['samples'], 'draw')} z ~ q(z|x{y}){exact}"
    return f"{_where(bound, *bindings)}{balance}\n{draws}"


def _charged(v: Values) -> str:
    y = v["y"]
    if v["estimator"] == "A":
        return f"E_q[log q(z|x{y}) - log p(z)]"
    if v["capacity"]:
        return f"|E_x KL(q(z|x{y}) ‖ p(z)) - C|"
    if v["balance"]:
        return f"Σ_g γ_g {'max(λ, E_x KL_g)' if v['free_bits'] else 'KL_g'}"
    return f"Σ_d max(λ, E_x KL(q(z_d|x{y}) ‖ p(z_d)))" if v["free_bits"] else f"KL(q(z|x{y}) ‖ p(z))"


def _importance(v: Values) -> str:
    y, k, inner = v["y"], v["samples"], v["encoder_groups"] or v["groups"]
    lines = [f"ℒ(x) = E {_weighted(v, v['groups'])}" + (" for θ" if inner != v["groups"] else "")]
    if inner != v["groups"]:
        lines.append(f"ℒ(x) = E {_weighted(v, inner)} for φ")
    bindings = [bound_to(s, v[n]) for s, n in (("α", "alpha"), ("β", "elbo")) if v[n]]
    lines.append(_where(f"w_k = p(x, z_k{_bar(y)}) / q(z_k|x{y}),  z_k ~ q(z|x{y}),  K = {k}", *bindings))
    return "\n".join([*lines, *GRADIENTS[v["gradient"]](v)])


def _weighted(v: Values, groups: int) -> str:
    """L of `ImportanceWeighted` with so many groups."""
    k, a = v["samples"], v["alpha"]
    mean = "1/K Σ_k log w_k"
    if a == 1 or v["elbo"] == 1 or groups == k:
        return mean
    outer, power = ("", "") if a == 0 else ("1/(1 - α) ", "^(1 - α)")
    one = f"{outer}log 1/K Σ_k w_k{power}"
    tight = one if groups == 1 else f"1/{groups} Σ_m {outer}log 1/{k // groups} Σ_(k in group m) w_k{power}"
    return f"[β {mean} + (1 - β) {tight}]" if v["elbo"] else tight


def _dreg(v: Values) -> list[str]:
    factor = "ŵ_k²" if v["alpha"] == 0 else "(α ŵ_k + (1 - α) ŵ_k²)"
    share = "its group's" if (v["encoder_groups"] or v["groups"]) > 1 else "the"
    power = "" if v["alpha"] == 0 else "^(1 - α)"
    return [f"∇_φ of the logarithm = Σ_k {factor} ∂log w_k/∂z_k ∇_φ z_k,  ŵ_k = w_k{power} over {share} sum of them"]


GRADIENTS: Mapping[str, Callable[[Values], list[str]]] = {
    "plain": lambda v: [],
    "stl": lambda v: [f"∇_φ = 1/K Σ_k ∂log w_k/∂z_k ∇_φ z_k: φ is held constant in log q(z_k|x{v['y']})"],
    "dreg": _dreg,
    "vimco": lambda v: [
        f"∇_φ = Σ_k (ℒ - ℒ_-k - ∂ℒ/∂log w_k) ∇_φ log q(z_k|x{v['y']}),  ℒ and w of these draws,"
        " ℒ_-k has the mean of the other log w for log w_k"
    ],
}


def _wake_sleep(v: Values) -> str:
    y, k, w = v["y"], v["samples"], v["wake"]
    own = f"Σ_k ŵ_k log p(x, z_k{_bar(y)})" if k > 1 else f"log p(x, z{_bar(y)})"
    dream, awake = f"log q(z'|x'{y})", f"Σ_k ŵ_k log q(z_k|x{y})" if k > 1 else f"log q(z|x{y})"
    both = dream if w == 0 else awake if w == 1 else f"(1 - w) {dream} + w {awake},  {bound_to('w', w)}"
    weights = f",  z_k ~ q(z|x{y}), K = {k}, ŵ_k = w_k / Σ_j w_j, w_k = p(x, z_k{_bar(y)}) / q(z_k|x{y})"
    dreams = f"\n(z', x') ~ p(x, z{_bar(y)}), {_count(v['dreams'], 'dream')} for each x" if w < 1 else ""
    return f"in θ  {own}{weights if k > 1 else f',  z ~ q(z|x{y})'}\nin φ  {both}{dreams}"


def _m2(v: Values) -> str:
    classifier, draws = plain(v["hidden"]), _count(v["samples"], "draw")
    return (
        "ℒ(x, y) = E_q[log p(x|z, y)] - KL(q(z|x, y) ‖ p(z)) + log p(y) where the label y is known, p(y) = 1/C\n"
        f"ℒ(x) = Σ_y q(y|x) (ℒ(x, y) - log q(y|x)) where it is not,  q(y|x) an mlp, {classifier} wide\n"
        f"+ α log q(y|x), on average over the labelled x,  {bound_to('α', v['alpha'])}; E_q by {draws} z ~ q(z|x, y)"
    )


def _monte_carlo_em(v: Values) -> str:
    y, bar = v["y"], _bar(v["y"])
    return (
        f"in θ  log p(x, z{bar}),  z ~ p(z|x{y}) by a Markov chain (HMC) for each x, {v['updates']} updates to a move\n"
        f"as E_p(z|x{y})[∇_θ log p(x, z{bar})] = ∇_θ log p(x{bar}); the encoder stays untrained"
    )


OBJECTIVES: Mapping[str, Equation] = {
    "elbo": _elbo,
    "importance-weighted": _importance,
    "wake-sleep": _wake_sleep,
    "m2": _m2,
    "monte-carlo-em": _monte_carlo_em,
    "full-bayes": "ℒ(x) = E_q(θ){{E_q[log p(x|z{y})] - KL(q(z|x{y}) ‖ p(z))}} - 1/N KL(q(θ) ‖ p(θ))\n"
    "q(θ) = N(θ; μ_θ, diag σ_θ²) over all parameters of: {over},  p(θ) = N(θ; 0, I),  σ_θ = {deviation} at the start",
}
TERMS: Mapping[str, Equation] = {
    "commitment": "Σ_l |h_l - e_k(l)|²,  e held constant",
    "total-correlation": "TC,  TC = KL(q(z) ‖ Π_d q(z_d)), q(z) = 1/N Σ_n q(z|x_n) by the minibatch, {sampling}",
    "density-ratio": "E_q(z)[T(z)],  T an mlp {hidden} wide that learns to tell q(z) = 1/N Σ_n q(z|x_n) from Π_d q(z_d)",
    "dip": lambda v: (
        f"[Σ_(i≠j) C_ij² + {plain(v['diagonal'])} Σ_i (C_ii - 1)²],  C = Cov_x E_q[z]"
        + " + E_x Cov_q[z]" * (v["kind"] == "II")
    ),
    "mmd": lambda v: (
        "MMD²,  E k(z, z') + E k(u, u') - 2 E k(z, u) for z, z' ~ q(z), u, u' ~ p(z), "
        + {"imq": "k(a, b) = C/(C + |a - b|²)", "rbf": "k(a, b) = exp(-|a - b|²/C)"}[v["kernel"]]
        + {"dimension": ", C = 2D", "median": ", C the median of |z - u|²"}.get(v["scale"], f", C = {v['scale']}")
    ),
}

LADDERS: Mapping[str, Equation] = {
    "mlp": "prior       p(z) = N(z_L; 0, I) Π_l N(z_l; μ_l, σ_l²),  (μ_l, log σ_l²) = net of z_(l+1)\n"
    "posterior   q(z|x) = N(z_L; μ̂_L, σ̂_L²) Π_l q(z_l|z_(l+1), x),  q ∝ N(z_l; μ_l, σ_l²) N(z_l; μ̂_l, σ̂_l²)\n"
    "ladder      {latents} latents of z_1, ..., z_L;  (μ̂_l, log σ̂_l²) = W d_l + b, d_l = net of d_(l-1), d_0 = x\n"
    "nets        h ← {activation}(norm(W h + b)), two layers, of widths {hidden};  h = z_1 at the end",
    "conv": "prior       p(z) = Π_l N(z_l; μ_l, σ_l²),  (μ_l, log σ_l², r) = f_l(h),  h ← h + r + V z_l, h ← h + net(h)\n"
    "posterior   q(z|x) = Π_l N(z_l; μ̂_l, σ̂_l²),  (μ̂_l, log σ̂_l²) = f̂_l(h, d_l),  d_l of the same size by blocks from x up\n"
    "ladder      from the coarsest size down to the image: {rungs} layers at 1, 1/2, 1/4, ... of it, {channels} channels\n"
    "nets        h + K ∗ gelu(K ∗ gelu(K ∗ gelu(K ∗ gelu(h)))), {width} channels",
}

EQUATIONS: Mapping[str, Mapping[str, Equation]] = {
    "ladder": LADDERS,
    "prior": PRIORS,
    "posterior": FAMILIES,
    "likelihood": FAMILIES,
    "chain": NETWORKS,
    "encoder": NETWORKS,
    "decoder": NETWORKS,
    "objective": OBJECTIVES,
    "terms": TERMS,
    "optimizer": OPTIMIZERS,
}
SCHEDULED: Mapping[str, str] = {
    "linear": "from {start} to {end} in {steps} steps",
    "cosine": "from {start} to {end} in {steps} steps, along a cosine",
    "cyclical": "from {start} to {end} in the first {ramp} of every {steps} steps",
    "piecewise": "of {values}, the next at step {ends} each",
    "exponential": "falling as {start} · {rate}^(step/{steps})",
}

# Composition


def equation(recipe: Recipe) -> list[str]:
    """The lines of a recipe's equation: the objective, then prior, posterior, likelihood, networks, steps and paper.

    Raises:
        RecipeError: a part that there is not.
    """
    s, classes = recipe.settings, recipe.context().classes
    y = ", y" if classes else ""
    goal = part("objective", s["objective"], y=y).splitlines()
    goal += [f"- {_weight(table)} {part('terms', table)}" for table in recipe.term_tables()]
    goal += ["+ 1/N log N(W; 0, I) over all weights W, not biases"] * recipe.training().weight_prior
    if "ladder" in s:
        return _laid(goal, _ladder(recipe))
    of_label = part("prior", s["prior"]).startswith("p(z|y)")
    goal = [line.replace("p(z)", "p(z|y)") if of_label else line for line in goal]
    sizes = [s["latent"], *(table["latent"] for table in s["chain"])]
    top, first = (f" of z_{len(sizes)}, the top layer", f",  {_size(sizes[0])} latents of z_1") if s["chain"] else ("", "")
    lines = [("prior", f"{part('prior', s['prior'])},  D = {_size(sizes[-1])} latents{top}")]
    lines += [("posterior", f"q(z|x{y}) = {part('posterior', s['posterior'], v='z', net=f'f(x{y})')}{first}")]
    lines += [(f"layer {l}", _layer(l, table)) for l, table in enumerate(s["chain"], 2)]
    lines += [("likelihood", f"p(x|z{y}) = {part('likelihood', s.get('likelihood'), v='x', net=f'g(z{y})')}")]
    lines += [("label", f"y, one-hot, of {classes} classes")] * bool(classes)
    lines += [*_networks(s), ("steps", _steps(recipe)), ("paper", s["paper"])]
    return _laid(goal, [f"{name:<10}  {text}" for name, text in lines if text])


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
    defaults = inspect.signature(lookup(axis, AXES[axis], name)).parameters.items()
    values = {k: p.default for k, p in defaults} | (dict(table) if isinstance(table, Mapping) else {}) | context
    write = EQUATIONS[axis][str(name)]
    try:
        return write(values) if callable(write) else write.format(**written(values))
    except (KeyError, TypeError, ValueError) as error:
        raise RecipeError(f"{axis} ({name}): a key or a value does not fit; got {table!r}.") from error


def written(values: Values) -> dict[str, str]:
    return {k: plain(v) for k, v in values.items()}


def plain(value: Any) -> str:
    """A number as one writes it, 4 or 0.25; a list, 500, 500; a schedule, from 0 to 1 in 3,000 steps; a name."""
    if isinstance(value, Mapping) and value.get("type") in SCHEDULED:
        defaults = inspect.signature(SCHEDULES[value["type"]]).parameters.items()
        return SCHEDULED[value["type"]].format(**written({k: p.default for k, p in defaults} | dict(value)))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(plain, value))
    if isinstance(value, type):
        return value.__name__.lower()  # the default of an activation
    return f"{value:,}" if type(value) is int else f"{value:g}" if type(value) is float else str(value)


def bound_to(symbol: str, value: Any) -> str:
    """β = 4, or β from 0 to 1 in 3,000 steps."""
    return f"{symbol} {plain(value)}" if isinstance(value, Mapping) else f"{symbol} = {plain(value)}"


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


def _bar(y: str) -> str:
    """p(x, z) becomes p(x, z|y)."""
    return y.replace(", ", "|")


def _where(equation: str, *bindings: str) -> str:
    return ",  ".join([equation, ", ".join(bindings)] if bindings else [equation])


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


# On paper


def headed(recipe: Recipe, toml: str) -> str:
    """A recipe's TOML under its equation, in comments; an equation that heads it already is renewed."""
    body = toml.partition("\n\n")[2] if toml.startswith(BEGINS) else toml
    return "\n".join([BEGINS, *(f"# {line}".rstrip() for line in equation(recipe)), "", body])

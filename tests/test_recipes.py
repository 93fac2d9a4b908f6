"""Recipes: data that build models, whose every key can be set, and whose every mistake is told by name."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tabular import mixed_table
from torch import Tensor, nn

import aevb
from aevb.data.arrays import array_dataset
from aevb.data.batch import Batch
from aevb.data.dataset import Dataset
from aevb.data.sources import load_data
from aevb.errors import AevbError, DataError, RecipeError
from aevb.objectives.schedules import Linear
from aevb.parts import POSTERIOR, PRIOR, Member, conflicts, parts_in
from aevb.probability.codes import Coded
from aevb.probability.families import as_shape
from aevb.runs.build import build_model, build_objective, code_shape
from aevb.runs.equations import equation
from aevb.runs.fit import fit
from aevb.runs.parts import AXES, FAMILIES
from aevb.runs.recipe import DEFAULTS, Recipe, parse_value, recipe_names
from aevb.runs.store import Run

NAMES = recipe_names()


def leaves(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of all that is no table."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield ".".join((*path, key)), value


def at(table: Any, path: str) -> Any:
    for key in path.split("."):
        table = table[key]
    return table


def parameters(model: nn.Module) -> list[Tensor]:
    return [p.detach() for p in model.parameters()]


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(parameters(a), parameters(b), strict=True))


def suiting(recipe: Recipe) -> Dataset:
    """Data that a recipe is meant for."""
    if recipe.settings["data"]["values"] == "columns":
        return mixed_table()
    if recipe.settings["data"]["values"] == "standardized":
        return array_dataset(torch.randn(300, 5, generator=torch.Generator().manual_seed(0)).numpy())
    return load_data("digits", values=recipe.settings["data"]["values"] or None)


# Every recipe


def test_the_recipes_are_all_there() -> None:
    assert {"aevb", "aevb-frey", "digits", "bernoulli", "gaussian", "conv", "beta-vae", "autoencoder"} <= set(NAMES)
    assert sorted(NAMES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_trains_and_its_run_gives_equal_outputs(name: str, tmp_path: Path) -> None:
    recipe = Recipe.load(name)
    data = suiting(recipe)
    recipe = recipe.of(data)
    few = min(recipe.validation().importance_samples, 2)  # what is equal does not depend on how well it is validated
    short = {"training__samples": 20 * 100, "training__batch": 100, "validation__importance_samples": few}
    run = fit(recipe.replace(**short), data, tmp_path / name)
    assert run.meta["steps"] == 20
    again = Run.open(tmp_path / name)
    assert again.recipe.settings == run.recipe.settings
    assert again.recipe.name == name
    a, b = run.model(), again.model()
    x = data.test[:50]
    y = recipe.context().each(len(x)) if recipe.context().classes else None
    with torch.no_grad():
        batch = Batch(x, y)
        codes = a.encode(batch)
        assert torch.equal(codes, b.encode(batch))
        assert codes.shape == (len(x), *code_shape(recipe, data.shape))
        assert torch.equal(a.decode(codes, y).mean, b.decode(codes, y).mean)
        assert a.decode(codes, y).mean.shape == x.shape
    assert not equal(a, build_model(recipe, data.shape, data.train.values.levels))  # it was trained


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_what_it_is(name: str) -> None:
    settings = Recipe.load(name).settings
    assert len(settings["title"]) > 20
    assert settings["paper"]
    assert as_shape(settings.get("latent", 2)).numel() >= 2
    assert equation(Recipe.load(name))
    assert settings["training"].get("samples", 100_000) >= 100_000  # or left to the data


@pytest.mark.parametrize("name", NAMES)
def test_set_reaches_every_key(name: str) -> None:
    recipe = Recipe.load(name)
    before = copy.deepcopy(recipe.settings)
    others = {bool: lambda v: not v, int: lambda v: v + 3, float: lambda v: v * 2 + 0.25, str: lambda v: v + "x"}
    for path, value in leaves(recipe.settings):
        if path.endswith("type"):
            continue
        new = [7, 5] if isinstance(value, list) else others[type(value)](value)
        text = repr(new) if not isinstance(new, str) else f'"{new}"'
        changed = recipe.override([f"{path}={str(text).lower() if isinstance(new, bool) else text}"])
        assert at(changed.settings, path) == new
        assert type(at(changed.settings, path)) is type(new)
        different = [p for p, v in leaves(changed.settings) if v != dict(leaves(before)).get(p)]
        assert different == [path]
        assert recipe.replace(**{path.replace(".", "__"): new}).settings == changed.settings
    assert recipe.settings == before  # overriding made new recipes


def test_every_key_that_set_reaches_changes_what_is_built() -> None:
    recipe = Recipe.load("aevb").override(
        [
            "latent=3",
            "encoder.hidden=[8, 9]",
            "decoder.activation=relu",
            "likelihood.relaxed=false",
            "objective.samples=4",
            "training.batch=7",
            "training.optimizer.lr=0.5",
            "training.clip=2",
            "validation.patience=5",
            "evaluation.importance_samples=11",
        ]
    )
    model = build_model(recipe, (1, 4, 4))
    widths = [layer.out_features for layer in model.encoder.net if isinstance(layer, nn.Linear)]
    assert widths == [8, 9, 6]
    assert any(isinstance(layer, nn.ReLU) for layer in model.decoder.net)
    assert model.decoder.family.relaxed is False
    assert build_objective(recipe).samples == 4  # type: ignore[attr-defined]
    assert (recipe.training().batch, recipe.training().clip, recipe.training().optimizer.lr) == (7, 2, 0.5)
    assert (recipe.validation().patience, recipe.evaluation().importance_samples) == (5, 11)


@pytest.mark.parametrize("family", sorted(AXES["likelihood"]))
def test_every_likelihood_can_be_named(family: str) -> None:
    shape = (16,) if family in ("categories", "columns", "many-categories", "quantiles") else (1, 4, 4)
    model = build_model(Recipe.load("bernoulli").override([f"likelihood={family}", "latent=2"]), shape, levels=17)
    assert type(model.decoder.family) is FAMILIES[family]
    assert model.decode(torch.zeros(3, 2)).mean.shape == (3, *shape)


def fitting(family: str) -> Iterator[str]:
    """The priors without labels that go with a posterior."""
    q = Member(POSTERIOR, family, parts_in(POSTERIOR)[family].offers)
    for word, part in parts_in(PRIOR).items():
        if not part.needs.labels and not any(conflicts([q, Member(PRIOR, word, part.offers, part.needs)])):
            yield word


@pytest.mark.parametrize("family", sorted(AXES["posterior"]))
def test_every_posterior_can_be_named(family: str) -> None:
    latent = (2, 3) if issubclass(FAMILIES[family], Coded) else (2,)
    changes = [f"posterior={family}", f"prior={next(fitting(family))}", f"latent={list(latent)}"]
    model = build_model(Recipe.load("bernoulli").override(changes), (1, 4, 4))
    assert type(model.encoder.family) is FAMILIES[family]
    assert model.encode(torch.zeros(3, 1, 4, 4)).shape == (3, *latent)


def test_the_levels_of_the_data_reach_the_likelihood() -> None:
    assert build_model(Recipe.load("digits"), (1, 8, 8), levels=17).decoder.family.levels == 17
    assert (
        build_model(Recipe.load("digits").override(["likelihood.levels=5"]), (1, 8, 8), levels=17).decoder.family.levels
        == 5
    )


# Values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e6", 1_000_000),
        ("1_000", 1000),
        ("1e-3", 0.001),
        ("2.5e1", 25.0),
        ("100", 100),
        ("-1", -1),
        ("4.0", 4.0),
        ("true", True),
        ("True", True),
        ("[1, 2]", [1, 2]),
        ('{type = "x", n = 3}', {"type": "x", "n": 3}),
        ("relu", "relu"),
        ('"relu"', "relu"),
        ("continuous-bernoulli", "continuous-bernoulli"),
        ("/tmp/some path", "/tmp/some path"),
        ("", ""),
    ],
)
def test_values_on_the_command_line(text: str, value: Any) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_a_part_of_another_type_keeps_none_of_the_old_keys() -> None:
    recipe = Recipe.load("aevb")
    assert recipe.override(["training.optimizer.type=sgd"]).settings["training"]["optimizer"] == {"type": "sgd"}
    assert recipe.override(["training.optimizer=sgd"]).settings["training"]["optimizer"] == {"type": "sgd"}
    assert recipe.override(["encoder=conv"]).settings["encoder"] == {"type": "conv"}
    assert recipe.override(["likelihood.type=normal"]).settings["likelihood"] == {"type": "normal"}
    assert recipe.override(["encoder.type=mlp"]).settings == recipe.settings
    kept = recipe.override(["training.optimizer.type=sgd", "training.optimizer.momentum=0.5"])
    assert kept.settings["training"]["optimizer"] == {"type": "sgd", "momentum": 0.5}
    assert Recipe("own", {"posterior": {"type": "delta"}}).settings["posterior"] == {"type": "delta"}
    assert Recipe("own", {"objective": {"samples": 3}}).settings["objective"] == {"type": "elbo", "samples": 3}


def test_none_takes_a_key_away() -> None:
    recipe = Recipe.load("aevb").replace(training__clip=3.0)
    assert "clip" not in recipe.replace(training__clip=None).settings["training"]
    assert recipe.settings["training"]["clip"] == 3.0


def test_whole_floats_are_whole_numbers() -> None:
    """samples = 1e6, in a file, where TOML says that it is a float."""
    training = Recipe("own", {"training": {"samples": 1e6}}).training()
    assert training.samples == 1_000_000
    assert isinstance(training.samples, int)


def test_schedules_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'latent = 3\n[likelihood]\ntype="bernoulli"\n[encoder]\ntype="mlp"\n[decoder]\ntype="mlp"\n'
        '[objective]\nbeta = { type = "linear", start = 0.0, end = 1.0, steps = 10 }\n'
        '[training.learning_rate]\ntype = "exponential"\nstart = 1.0\nrate = 0.5\nsteps = 100\n'
    )
    recipe = Recipe.load(file)
    assert recipe.name == "mine"
    beta = build_objective(recipe).beta  # type: ignore[attr-defined]
    assert beta == Linear(0.0, 1.0, 10)
    assert beta(5) == 0.5
    rate = recipe.training().learning_rate
    assert rate is not None
    assert rate(200) == 0.25
    longer = recipe.override(["objective.beta.steps=20"])
    assert build_objective(longer).beta(5) == 0.25  # type: ignore[attr-defined]
    fixed = recipe.override(["objective.beta=4"])
    assert build_objective(fixed).beta == 4  # type: ignore[attr-defined]


def test_a_recipe_survives_its_own_file(tmp_path: Path) -> None:
    for name in NAMES:
        recipe = Recipe.load(name).override(
            ['training.learning_rate={type="cosine", start=1.0, end=0.0, steps=9}', "data.source=some dir/ü.npy"]
        )
        run = Run.create(tmp_path / name, recipe, {})
        assert Recipe.load(run.path / "recipe.toml").settings == recipe.settings


# Mistakes, each told by name


def test_unknown_recipes() -> None:
    with pytest.raises(
        RecipeError, match=r"There is no recipe 'beta-ave'\. Did you mean 'beta-vae', .*`aevb recipes` lists all"
    ):
        Recipe.load("beta-ave")
    with pytest.raises(RecipeError, match=r"There is no recipe file 'absent\.toml'"):
        Recipe.load("absent.toml")


def test_a_file_that_is_no_toml(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("latent = = 3")
    with pytest.raises(RecipeError, match=r"bad\.toml' is no valid TOML: .*line 1"):
        Recipe.load(tmp_path / "bad.toml")


MISTAKES = {
    "objective.sample=3": r"objective \(elbo\): there is no 'sample'\. Did you mean 'samples'\? Possible: balance, "
    r"beta,",
    "objectiv.samples=3": r"There is no 'objectiv' in a recipe\. Did you mean 'objective'",
    "latnet=3": r"there is no 'latnet'\. Did you mean 'latent'",
    "data.valuse=grey": r"data: there is no 'valuse'\. Did you mean 'values'",
    "data=mnist": r"data: expected a table of keys and values; got 'mnist'",
    "data.seed=x": r"data\.seed: expected a whole number; got 'x'",
    "objective=elob": r"objective: there is no 'elob'\. Did you mean 'elbo'",
    "encoder.type=mpl": r"encoder: there is no 'mpl'\. Did you mean 'mlp'\? Possible: conv, gated, mlp",
    "encoder.type=3": r"encoder: there is no 3\.",
    "posterior.type=[1]": r"posterior: there is no \[1\]\.",
    "encoder.activation=rely": r"encoder \(mlp\)\.activation: there is no 'rely'\. Did you mean 'relu'",
    "encoder.activation=3": r"encoder \(mlp\)\.activation: there is no 3\. Possible: gelu, relu",
    "encoder.hidden=500": r"encoder \(mlp\)\.hidden: expected a list of whole numbers; got 500",
    "encoder.hidden=[5, 0.5]": r"encoder \(mlp\)\.hidden: expected a list of whole numbers",
    "encoder.hidden=[-5]": r"encoder \(mlp\): .*negative",
    "encoder.shape=3": r"encoder \(mlp\): there is no 'shape'",
    "encoder={type='conv', channels=[]}": r"encoder \(conv\):",
    "encoder=5": r"encoder: expected a table with a type",
    "latent=0": r"latent: expected a whole number of at least 1; got 0",
    "latent=-1": r"latent: expected a whole number of at least 1; got -1",
    "latent=2.5": r"latent: expected a whole number of at least 1; got 2\.5",
    "latent=true": r"latent: expected a whole number of at least 1; got True",
    "latent=x": r"latent: expected a whole number of at least 1; got 'x'",
    "latent.x=1": r"latent is 20, not a table; set it whole",
    "training=5": r"training: expected a table of keys and values; got 5",
    "training.batch=abc": r"training\.batch: expected a whole number; got 'abc'",
    "training.batch=1.5": r"training\.batch: expected a whole number; got 1\.5",
    "training.batch=true": r"training\.batch: expected a whole number; got True",
    "training.batch=0": r"training: batch must be at least 1; got 0",
    "training.samples=0": r"training: samples must be at least 1; got 0",
    "training.weight_prior=5": r"training\.weight_prior: expected true or false; got 5",
    "training.optimizer.lr=fast": r"optimizer \(adagrad\)\.lr: expected a number; got 'fast'",
    "training.optimizer.lr=-1": r"training\.optimizer \(adagrad\)\.lr: expected a number above 0 and",
    "training.optimizer.betas=[0.1,0.2]": r"optimizer \(adagrad\): there is no 'betas'\.",
    "training.optimizer=adm": r"optimizer: there is no 'adm'\. Did you mean 'adam'",
    "training.ema=2": r"training\.ema: expected a number at least 0 and at most 1; got 2",
    "training.learning_rate=0.1": r"training\.learning_rate: expected a schedule such as \{type",
    "training.learning_rate={steps=3}": r"learning_rate: a table needs a type\. Possible: cosine, cyclical, "
    r"exponential,",
    'training.learning_rate={type="linaer"}': r"training\.learning_rate: there is no 'linaer'\. Did you mean 'linear'",
    'training.learning_rate={type="linear"}': r"learning_rate \(linear\): start and end and steps must be given",
    'objective.beta={type="linear", start=0, end=1, steps=0}': r"\.beta \(linear\): A schedule needs steps ≥ 1; got 0",
    "objective.beta=-1": r"objective \(elbo\): beta must be at least 0; got -1",
    "objective.beta=much": r"objective \(elbo\)\.beta: expected a number or a schedule such as",
    "objective.estimator=C": r"objective \(elbo\)\.estimator: expected 'A' or 'B'; got 'C'",
    "validation.samples=0": r"validation: samples must be at least 1; got 0",
    "validation.patience=-1": r"validation: patience must be at least 0; got -1",
    "validation.evrey=5": r"validation: there is no 'evrey'\. Did you mean 'every'",
    "evaluation.importance_samples=many": r"evaluation\.importance_samples: expected a whole number; got 'many'",
    "evaluation.importance_samples=0": r"evaluation: importance_samples must be at least 1",
    "prior.type=vampire": r"prior: there is no 'vampire'\. .*standard-normal",
    "latent": r"--set 'latent': write key=value, such as training\.batch=100",
}


@pytest.mark.parametrize("assignment", MISTAKES)
def test_a_mistake_is_told_where_it_is_and_leaves_no_folder(assignment: str, tmp_path: Path) -> None:
    data = load_data("digits", values="grey")
    with pytest.raises(RecipeError, match=MISTAKES[assignment]) as told:
        fit(Recipe.load("aevb").override([assignment]), data, tmp_path / "run")
    assert "\n" not in str(told.value)
    assert not list(tmp_path.iterdir())


def test_keys_of_another_family_are_refused() -> None:
    recipe = Recipe.load("gaussian").override(["likelihood.relaxed=true"])
    with pytest.raises(
        RecipeError, match=r"likelihood \(normal\): there is no 'relaxed'\. .*Possible: least, link, scale"
    ):
        build_model(recipe, (5,))


def test_a_recipe_without_a_network() -> None:
    with pytest.raises(RecipeError, match="the tables likelihood, encoder and decoder must be given"):
        build_model(Recipe("own", {"latent": 3}), (4,))


def test_unknown_tables_of_a_file() -> None:
    with pytest.raises(RecipeError, match=r"recipe 'own': there is no 'trianing'\. Did you mean 'training'"):
        Recipe("own", {"trianing": {}})


@pytest.mark.parametrize(
    ("name", "assignment", "message"),
    [
        ("bernoulli", "data.values=grey", "Grey levels under a Bernoulli are not a likelihood"),
        ("aevb", "data.values=standardized", "Rescale the data"),
    ],
)
def test_data_outside_of_the_likelihood_leave_no_folder(
    name: str, assignment: str, message: str, tmp_path: Path
) -> None:
    recipe = Recipe.load(name).override([assignment])
    with pytest.raises(DataError, match=message):
        fit(recipe, load_data("digits", values=recipe.source().values), tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_convolutions_of_a_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AevbError, match=r"encoder \(conv\): A convolutional network needs images .*\(5,\).* Use mlp"):
        fit("conv", suiting(Recipe.load("gaussian")), tmp_path / "run")
    assert not list(tmp_path.iterdir())


# Seeds


@pytest.mark.trap(12)
def test_initialisation_is_a_function_of_the_seed_alone() -> None:
    recipe = Recipe.load("bernoulli").replace(latent=3)
    torch.manual_seed(1)
    a = build_model(recipe, (1, 4, 4))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    b = build_model(recipe, (1, 4, 4))
    assert equal(a, b)
    assert torch.equal(torch.get_rng_state(), state)  # and leaves the caller's generator alone
    assert not equal(a, build_model(recipe.replace(training__seed=1), (1, 4, 4)))


def test_a_run_is_its_seed(tmp_path: Path) -> None:
    data, recipe = (
        load_data("digits", values="dynamic"),
        Recipe.load("bernoulli").replace(latent=3, training__samples=500),
    )
    torch.manual_seed(1)
    a = fit(recipe, data, tmp_path / "a").model()
    torch.manual_seed(2)
    state = torch.get_rng_state()
    b = fit(recipe, data, tmp_path / "b").model()
    assert equal(a, b)
    assert torch.equal(torch.get_rng_state(), state)
    assert not equal(a, fit(recipe.replace(training__seed=1), data, tmp_path / "c").model())


def test_the_seed_covers_initialisation_order_and_noise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hold two of the three fixed: the third alone still makes another model."""
    import aevb.data.randomness
    import aevb.runs.build

    data, recipe = (
        load_data("digits", values="dynamic"),
        Recipe.load("bernoulli").replace(latent=3, training__samples=500),
    )
    derive = aevb.data.randomness.derive
    first = fit(recipe, data, tmp_path / "first").model()
    for free in ("initialization", "order", "noise"):

        def held(seed: int, *path: int | str, free: str = free) -> int:
            return derive(seed if path[0] == free else 0, *path)

        with monkeypatch.context() as patch:
            for module in (aevb.runs.build, aevb.data.randomness):
                patch.setattr(module, "derive", held)
            other = fit(recipe.replace(training__seed=5), data, tmp_path / free).model()
            assert not equal(first, other), free


def test_defaults_are_valid() -> None:
    bare = Recipe("bare", {})
    assert bare.settings == DEFAULTS
    assert bare.source().source == "digits"
    assert bare.training() == aevb.Training()

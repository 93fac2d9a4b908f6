"""Parts of installed packages: an entry point makes one nameable in a recipe; what is not named is not imported."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import aevb
from aevb.apps.cli import app
from aevb.errors import RecipeError
from aevb.runs.build import build_model
from aevb.runs.equations import equation
from aevb.runs.recipe import Recipe
from aevb.runs.store import Run

HALF_NORMAL = """
import torch
from aevb import Family
from aevb.parts import LIKELIHOOD, POSTERIOR, Offers, Support


class Cosine(Family):
    \"\"\"A raised cosine around m: declared in full.\"\"\"

    word, roles = "tilted", (POSTERIOR, LIKELIHOOD)
    offers = Offers(Support.REAL)
    equation = "Π_d N({v}_d; m_d, {width}²),  m = {net}"

    def __init__(self, shape, width: float = 0.5):
        super().__init__(shape)
        self.width = width

    @property
    def size(self):
        return self.shape.numel()

    def __call__(self, phi):
        mean = phi.unflatten(-1, tuple(self.shape))
        normal = torch.distributions.Normal(mean, torch.full_like(mean, self.width), validate_args=False)
        return torch.distributions.Independent(normal, len(self.shape), validate_args=False)


class Bare(torch.nn.Sequential):
    def __init__(self, inputs, outputs, width=8):
        size = inputs if isinstance(inputs, int) else torch.Size(inputs).numel()
        layers = torch.nn.Flatten(), torch.nn.Linear(size, width), torch.nn.Tanh(), torch.nn.Linear(width, outputs)
        super().__init__(*layers)


class Positive(Cosine):
    \"\"\"On other numbers than the standard normal, and says so.\"\"\"

    word, offers = "positive-own", Offers(Support.POSITIVE)
"""
ENTRIES = """[aevb.parts]
tilted = tilted_parts:Cosine
bare = tilted_parts:Bare
positive-own = tilted_parts:Positive
broken = tilted_parts:Absent
gone = package_that_is_not_there:Part
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package as pip would leave it: its module, and a dist-info with entry points."""
    site = tmp_path / "site"
    info = site / "tilted_parts-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "tilted_parts.py").write_text(HALF_NORMAL, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tilted-parts\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(ENTRIES, encoding="utf-8")
    monkeypatch.syspath_prepend(str(site))
    yield
    sys.modules.pop("tilted_parts", None)


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{words}\n{result.output}\n{result.exception!r}"
        return str(result.output)

    return run


def own(*assignments: str) -> Recipe:
    return Recipe.load("gaussian").override(
        ["posterior=tilted", "likelihood.type=tilted", "encoder=bare", "decoder=bare", "latent=2", *assignments]
    )


def test_a_part_of_an_installed_package_has_all_that_others_have(installed: None, call: Callable[..., str]) -> None:
    """Command line, run folder, equation, figures, evaluation; and weights that load again."""
    numbers = ["posterior.width=0.7", "training.samples=300", "training.batch=20", "evaluation.importance_samples=20"]
    parts = ["posterior=tilted", "likelihood=tilted", "encoder=bare", "decoder=bare", "latent=2"]
    sets = [word for assignment in [*parts, *numbers] for word in ("--set", assignment)]
    call("train", "digits", "--recipe", "gaussian", "--set", "data.values=standardized", "--out", "r", *sets)
    assert {p.name for p in Path("r").iterdir()} >= {"recipe.toml", "weights.safetensors", "figures"}
    assert list(Path("r/figures").glob("reconstructions*"))
    report = json.loads(call("evaluate", "r", "--json"))
    assert report["log_likelihood"] is not None
    run = Run.open("r")
    assert run.model().encoder.family.width == 0.7
    assert type(run.model().encoder.net).__name__ == "Bare"
    text = "\n".join(equation(run.recipe))
    assert "q(z|x) = Π_d N(z_d; m_d, 0.7²),  m = f(x)" in text
    assert "bare" in text  # it has no equation: its word stands for one


def test_only_the_part_that_is_named_is_imported(installed: None) -> None:
    build_model(Recipe.load("gaussian"), (5,))
    assert "tilted_parts" not in sys.modules
    build_model(own(), (5,))
    assert "tilted_parts" in sys.modules


def test_its_keys_are_those_of_its_constructor(installed: None) -> None:
    assert build_model(own("encoder.width=3"), (5,)).encoder.net[1].out_features == 3
    with pytest.raises(
        RecipeError, match=r"posterior \(tilted\): there is no 'with'\. Did you mean 'width'\? Possible: width"
    ):
        build_model(own("posterior.with=1"), (5,))
    with pytest.raises(RecipeError, match=r"posterior \(tilted\)\.width: expected a number; got 'wide'"):
        build_model(own("posterior.width=wide"), (5,))


def test_its_declaration_is_checked_as_any(installed: None, tmp_path: Path) -> None:
    data = aevb.load_data("digits", values="standardized")
    with pytest.raises(
        RecipeError, match=r"standard-normal gives no density on positive numbers, which the posterior positive"
    ):
        aevb.fit(own("posterior=positive-own"), data, tmp_path / "r")
    with pytest.raises(RecipeError, match="prior: there is no 'tilted'"):
        build_model(own("prior=tilted"), (5,))


def test_what_fails_says_which_package(installed: None) -> None:
    for word, what in (("broken", "tilted_parts:Absent"), ("gone", "package_that_is_not_there:Part")):
        with pytest.raises(RecipeError, match=rf"The part '{word}' \({what}\) of an installed package fails: "):
            build_model(own(f"encoder={word}"), (5,))


def test_without_the_package_the_word_is_unknown() -> None:
    with pytest.raises(RecipeError, match="posterior: there is no 'tilted'"):
        build_model(own(), (5,))

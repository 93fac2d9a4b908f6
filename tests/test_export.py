"""Exports give the numbers of the model: ONNX by onnxruntime, torch.export, a folder for a model hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pages import MADE, tiny
from torch import Tensor
from typer.testing import CliRunner

import aevb
from aevb.apps.cli import app
from aevb.apps.export.functions import functions, noise_from
from aevb.apps.export.hub import cell, write_hub
from aevb.apps.export.programs import write_onnx, write_torch
from aevb.errors import RecipeError, RunError
from aevb.runs.evaluate import evaluate_run

ROWS = 5


def rows_of(name: str) -> tuple[Tensor, Tensor | None]:
    """Some test rows and their conditions."""
    run, data = tiny(name)
    y = run.recipe.context().given(data.test)
    return data.test[torch.arange(ROWS)], None if y is None else y[:ROWS]


def expected(name: str) -> dict[str, dict[str, Any]]:
    """What the library says of the parts of a model, at its own inputs: inputs, and outputs by name."""
    run, _ = tiny(name)
    model: Any = run.model()
    x, y = rows_of(name)
    g = torch.Generator().manual_seed(0)
    z, noise = (
        torch.randn(ROWS, *model.latent_shape, generator=g),
        torch.randn(ROWS, model.latent_shape.numel(), generator=g),
    )
    beside = {} if y is None else {"y": y}
    pairs = x if y is None else aevb.Pairs(x, y)
    with torch.no_grad():
        mean = aevb.encode(model, pairs)
        px = model.decode(z, y)
        found = {"encoder": ({"x": x, **beside}, {"mean": mean}), "decoder": ({"z": z, **beside}, {"mean": px.mean})}
        if name not in ("hierarchy",):  # whose prior is drawn layer by layer
            found["sampler"] = ({"noise": noise, **beside}, {"z": noise, "mean": model.decode(noise, y).mean})
            q = model.posterior(aevb.Batch(x, y)).base_dist
            found["encoder"][1].update(loc=q.loc, scale=q.scale)
    return found


QUICK = ("conditional", "table")
EACH = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in MADE]


@pytest.mark.parametrize("name", EACH)
def test_onnx_gives_the_numbers_of_the_model(name: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    run, _ = tiny(name)
    about = write_onnx(run, tmp_path)
    assert about["left_out"] == {}
    assert set(about["files"]) == {"encoder.onnx", "decoder.onnx", "sampler.onnx"}
    for part, (inputs, outputs) in expected(name).items():
        session = runtime.InferenceSession(str(tmp_path / f"{part}.onnx"))
        names = [o.name for o in session.get_outputs()]
        assert names == about["files"][f"{part}.onnx"]["outputs"]
        got = dict(zip(names, session.run(None, {k: v.numpy() for k, v in inputs.items()}), strict=True))
        for key, x in outputs.items():
            np.testing.assert_allclose(got[key], x.numpy(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["conv", "hierarchy"])
def test_exported_programs_take_batches_of_any_size(name: str, tmp_path: Path) -> None:
    run, _ = tiny(name)
    about = write_torch(run, tmp_path)
    assert json.loads((tmp_path / "about.json").read_text())["files"] == about["files"]
    for part, (inputs, outputs) in expected(name).items():
        names = about["files"][f"{part}.pt2"]["outputs"]
        program = torch.export.load(tmp_path / f"{part}.pt2").module()
        for n in (1, 2, ROWS):
            with torch.no_grad():
                got = dict(zip(names, program(*(x[:n] for x in inputs.values())), strict=True))
            for key, x in outputs.items():
                torch.testing.assert_close(got[key], x[:n], atol=1e-5, rtol=1e-5)


def test_the_sampler_of_a_hierarchy_draws_layer_by_layer() -> None:
    """From the top: z_2 = ε_2, then z_1 by p(z_1 | z_2) and ε_1."""
    run, _ = tiny("hierarchy")
    model: Any = run.model()
    made, _ = functions(model, run.meta["shape"])
    sampler = next(f for f in made if f.name == "sampler").module
    noise = torch.randn(ROWS, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z = sampler(noise)[0]
        p = model.prior().at(z).p[0]
        torch.testing.assert_close(z[:, 4:], noise[:, :2])
        torch.testing.assert_close(z[:, :4], p.mean + p.stddev * noise[:, 2:])


def test_noise_comes_from_where_it_is_said() -> None:
    noise = torch.arange(6.0).reshape(2, 3)
    with noise_from(noise) as taken:
        a = torch.distributions.Normal(torch.zeros(2, 1), 2.0).rsample()
        b = torch.distributions.Normal(torch.zeros(2, 2), 1.0).rsample()
    assert taken == [3]
    assert a.tolist() == [[0.0], [6.0]]
    assert b.tolist() == [[1.0, 2.0], [4.0, 5.0]]
    assert torch.distributions.Normal(torch.zeros(2), 1.0).rsample().shape == (2,)


def test_a_prior_without_noise_leaves_the_sampler_out_with_a_sentence() -> None:
    prior = aevb.Mixture(aevb.Normal(2), components=3)
    q, p = aevb.Normal(2), aevb.Bernoulli((4,))
    encoder, decoder = aevb.Conditional(aevb.MLP(4, q.size), q), aevb.Conditional(aevb.MLP(2, p.size), p)
    made, left = functions(aevb.VAE(prior, encoder, decoder).eval(), (4,))
    assert [f.name for f in made] == ["encoder", "decoder"]
    assert "noise" in left["sampler"] or "normal" in left["sampler"]


@pytest.mark.parametrize("name", ["mlp", "conditional", "table"])
def test_a_folder_for_a_hub_is_the_same_model_bit_for_bit(name: str, tmp_path: Path) -> None:
    run, data = tiny(name)
    evaluate_run(run, data)
    files = write_hub(run, tmp_path / "hub")
    assert {f.name for f in files} >= {"README.md", "model.safetensors", "recipe.toml", "meta.json"}
    ours, theirs = aevb.load(tmp_path / "hub").state_dict(), run.model().state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], x) for key, x in theirs.items())
    text = (tmp_path / "hub" / "README.md").read_text(encoding="utf-8")
    assert text.startswith('---\nlibrary_name: "aevb"\n')
    numbers = json.loads((run.path / "evaluation-test.json").read_text())
    assert f"| ELBO | {numbers['elbo']:.2f} ± {numbers['elbo_se']:.2f} | nats |" in text


def test_a_folder_for_a_hub_names_no_machine(tmp_path: Path) -> None:
    run, _ = tiny("mlp")
    write_hub(run, tmp_path / "hub")
    texts = "".join(f.read_text(encoding="utf-8") for f in (tmp_path / "hub").iterdir() if f.suffix != ".safetensors")
    assert run.meta["platform"] not in texts
    assert str(run.path.parent) not in texts
    with pytest.raises(RunError, match="is not empty"):
        write_hub(run, tmp_path / "hub")


def test_names_are_no_markup_in_a_card() -> None:
    assert cell("<script>a|b*c`\n") == "&lt;script&gt;a\\|b\\*c\\`"


def test_the_verb_says_what_it_needs(tmp_path: Path) -> None:
    run, _ = tiny("mlp")
    nothing = CliRunner().invoke(app, ["export", str(run.path)])
    assert isinstance(nothing.exception, RecipeError)
    assert "--onnx model/" in str(nothing.exception)
    file = CliRunner().invoke(app, ["export", str(run.path), "--torch", str(tmp_path / "x.pt2")])
    assert isinstance(file.exception, RecipeError)
    done = CliRunner().invoke(app, ["export", str(run.path), "--hub", str(tmp_path / "h")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "h" / "model.safetensors").is_file()

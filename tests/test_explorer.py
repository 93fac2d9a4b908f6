"""The explorer's session and routes: its numbers are the library's, and nothing of the process changes."""

from __future__ import annotations

import csv
import io
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import aevb
from aevb.apps.explorer import curved
from aevb.apps.explorer.about import fingerprint
from aevb.apps.explorer.new import centred
from aevb.apps.explorer.server import Explorer, application, records
from aevb.apps.explorer.session import Session
from aevb.use.interpolate import arc, line, route
from aevb.use.plane import Plane, coordinates, ellipse, nearest, principal
from tests.explored import MARKUP, PORT, TOKEN, get, images, post, table


@pytest.fixture(scope="module")
def banded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Session, Any]:
    run = images(tmp_path_factory.mktemp("explored"), latent=2)
    session = Session(run, run.dataset())
    return session, application(Explorer({"": session}), TOKEN, PORT)


@pytest.fixture(scope="module")
def tabled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Session, Any]:
    run = table(tmp_path_factory.mktemp("explored"))
    session = Session(run, run.dataset())
    return session, application(Explorer({"": session}), TOKEN, PORT)


def test_decoded_pixels_are_those_of_the_model(banded: tuple[Session, Any]) -> None:
    session, app = banded
    z = [[0.5, -1.0], [2.0, 0.25]]
    found = post(app, "/api/decode", {"z": z, "y": None}).floats.reshape(2, 1, 5, 6)
    np.testing.assert_allclose(found, aevb.decode(session.run.model(), torch.tensor(z)).numpy(), rtol=1e-5, atol=1e-6)


def test_points_are_posterior_means_held_out_rows_first(banded: tuple[Session, Any]) -> None:
    session, app = banded
    answer = get(app, "/api/points?view=0,1&start=0")
    data, model = session.run.dataset(), session.run.model()
    rows = [part.frozen() for part in (data.test, data.validation, data.train)]
    wanted = torch.cat([aevb.encode(model, part) for part in rows])
    assert int(answer.headers["x-aevb-total"]) == len(wanted) == 90
    np.testing.assert_allclose(answer.floats.reshape(-1, 2), wanted.numpy(), rtol=1e-4, atol=1e-5)
    later = get(app, "/api/points?view=0,1&start=80").floats.reshape(-1, 2)
    np.testing.assert_allclose(later, wanted[80:].numpy(), rtol=1e-4, atol=1e-5)
    assert len(get(app, "/api/points?view=0,1&start=90").body) == 0


def test_a_point_shows_its_row_its_bound_and_its_neighbours(banded: tuple[Session, Any]) -> None:
    session, app = banded
    found = get(app, "/api/point?index=4").table
    row = session.points.some([4])
    np.testing.assert_allclose(found["x"], row[torch.arange(1)].flatten().numpy(), rtol=1e-6)
    assert found["elbo"] == pytest.approx(found["reconstruction_term"] - found["kl"], abs=1e-6)
    codes = session.points.codes.all()
    far = (codes - codes[4]).norm(dim=1)
    far[4] = math.inf
    assert found["neighbours"][0] == int(far.argmin())
    assert found["label"] == str(int(row.labels[0]))


def test_colours_are_labels_scores_and_latents(banded: tuple[Session, Any]) -> None:
    session, app = banded
    about = get(app, "/api/about").table
    names = [colour["name"] for colour in about["colours"]]
    assert names == ["label", "log_px", "cluster", "part", "latent:0", "latent:1"]
    labels = get(app, "/api/colour?name=label&start=0").floats
    assert labels.tolist() == session.points.rows.split.labels.tolist()
    scores = get(app, "/api/colour?name=log_px&start=0").floats
    wanted = aevb.score(session.model, session.points.data(slice(0, 90)), 64).log_px
    np.testing.assert_allclose(scores, wanted.numpy(), rtol=1e-5)
    z = get(app, "/api/colour?name=latent:1&start=0").floats
    np.testing.assert_allclose(z, session.points.codes.all()[:, 1].numpy())


def test_latents_come_by_their_kl_with_the_density_of_the_prior(banded: tuple[Session, Any]) -> None:
    session, app = banded
    latents = get(app, "/api/about").table["latents"]
    assert latents[0]["kl"] >= latents[1]["kl"]
    bound = aevb.elbo(session.model, session.points.data(slice(0, 300)))
    assert latents[0]["kl"] == pytest.approx(float(bound.kl.mean(0).max()), rel=1e-5)
    assert latents[0]["low"] == pytest.approx(-3, abs=0.2)
    assert latents[0]["high"] == pytest.approx(3, abs=0.2)
    density = np.array(latents[0]["density"])
    assert abs(int(density.argmax()) - 24) <= 4  # N(0, 1) is largest in the middle


def test_nothing_that_is_asked_changes_the_model_or_random_numbers(banded: tuple[Session, Any]) -> None:
    session, app = banded
    before = {name: value.clone() for name, value in session.model.state_dict().items()}
    torch.manual_seed(5)
    state, numpy_state = torch.get_rng_state().clone(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = post(app, "/api/sample", {"temperature": 1, "seed": 3}).table
    for path in ("/api/about", "/api/point?index=1", "/api/colour?name=cluster&start=0"):
        assert get(app, path).status == 200
    assert post(app, "/api/read", {"pixels": [0.5] * 30, "view": "0,1"}).status == 200
    assert post(app, "/api/sample", {"temperature": 1, "seed": 3}).table == first
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
    assert not session.model.training
    assert all(torch.equal(value, before[name]) for name, value in session.model.state_dict().items())


def test_temperature_scales_a_draw_around_the_prior_mean(banded: tuple[Session, Any]) -> None:
    _, app = banded
    warm, cold = (post(app, "/api/sample", {"temperature": t, "seed": 8}).table["z"] for t in (2, 0))
    assert max(map(abs, cold)) < 0.25  # near the mean of N(0, I)
    one = np.array(post(app, "/api/sample", {"temperature": 1, "seed": 8}).table["z"])
    np.testing.assert_allclose(np.array(warm) - cold, 2 * (one - cold), rtol=1e-4, atol=1e-5)


def test_two_runs_have_curves_draws_and_the_same_rows(banded: tuple[Session, Any], tmp_path: Path) -> None:
    session, app = banded
    lines = session.run.metrics()
    records = get(app, "/api/curves").table["records"]
    assert [r["samples"] for r in records] == [line["samples"] for line in lines]
    assert records[-1]["train"]["elbo"] == pytest.approx(lines[-1]["train"]["elbo"])
    assert set(records[0]) <= {"samples", "train", "validation"}
    found = post(app, "/api/sample", {"temperature": 1, "seed": 3, "n": 5}).table
    assert np.array(found["zs"]).shape == (5, 2)
    assert found["zs"][0] == found["z"] == post(app, "/api/sample", {"temperature": 1, "seed": 3}).table["z"]
    assert post(app, "/api/sample", {"n": 65}).status == post(app, "/api/sample", {"n": 0}).status == 400
    again = images(session.run.path.parent, "conditional", latent=4)
    same = fingerprint(Session(again, again.dataset()))
    other = images(tmp_path, classes=2, latent=2)
    unlike = fingerprint(Session(other, other.dataset()))
    assert fingerprint(session) == same != unlike


def test_long_metrics_are_thinned() -> None:
    lines = [{"samples": i, "train": {"elbo": -i}, "step": i} for i in range(4500)]
    found = records(lines)
    assert len(found) == 1500
    assert found[1] == {"samples": 3, "train": {"elbo": -3}}
    assert records([]) == []


def test_a_new_picture_is_placed_and_scored_like_a_row(banded: tuple[Session, Any]) -> None:
    session, app = banded
    row = session.points.some([7])
    grey = (row.stored[0].double() / 255).flatten().tolist() if row.stored.dtype == torch.uint8 else None
    levels = row.stored.double().flatten()
    low, high = (float(v) for v in session.points.rows.split.stored.double().aminmax())
    pixels = grey if session.values.support != "real" else ((levels - low) / (high - low)).tolist()
    found = post(app, "/api/read", {"pixels": pixels, "view": "0,1"}).table
    np.testing.assert_allclose(found["z"], session.points.codes.all()[7].numpy(), atol=0.05)
    assert 0 <= found["odder"] <= 100
    place = ellipse(session.model, session.points.data([7]), coordinates(2, 0, 1))
    np.testing.assert_allclose(found["ellipse"]["radii"], place.radii, rtol=0.2)


def test_a_picture_file_gives_what_its_pixels_give(banded: tuple[Session, Any]) -> None:
    _, app = banded
    levels = np.arange(30, dtype=np.uint8).reshape(5, 6) * 8
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    by_file = post(app, "/api/picture?view=0,1", file.getvalue(), content_type="application/octet-stream").table
    by_pixels = post(app, "/api/read", {"pixels": (levels / 255).flatten().tolist(), "view": "0,1"}).table
    np.testing.assert_allclose(by_file["z"], by_pixels["z"], rtol=1e-4, atol=1e-5)


def test_a_selection_says_what_its_points_share(banded: tuple[Session, Any]) -> None:
    session, app = banded
    indices = [i for i, c in enumerate(session.points.rows.split.labels.tolist()) if c == 1][:9]
    found = post(app, "/api/selection", {"indices": indices}).table
    assert found["labels"] == [{"name": "1", "number": 1, "n": 9}]
    np.testing.assert_allclose(found["mean"], session.points.codes.all()[indices].mean(0).numpy(), rtol=1e-5)
    rows = list(csv.reader(io.StringIO(post(app, "/api/export", {"indices": indices}).body.decode())))
    assert rows[0] == ["split", "row", "label", "z1", "z2"]
    assert len(rows) == 10
    assert {row[2] for row in rows[1:]} == {"1"}
    np.testing.assert_allclose(
        [float(v) for v in rows[1][3:]], session.points.codes.all()[indices[0]].numpy(), rtol=1e-4
    )


def test_a_walk_passes_its_stops_and_becomes_a_film(banded: tuple[Session, Any]) -> None:
    _, app = banded
    stops = [[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]]
    for how in ("linear", "spherical"):
        z = post(app, "/api/walk", {"z": stops, "how": how, "steps": 5}).table["z"]
        np.testing.assert_allclose([z[0], z[4], z[8]], stops, atol=1e-6)
    film = post(app, "/api/film", {"z": z, "kind": "gif"})
    picture = Image.open(io.BytesIO(film.body))
    assert (picture.format, picture.n_frames) == ("GIF", 9)
    strip = Image.open(io.BytesIO(post(app, "/api/film", {"z": z, "kind": "png"}).body))
    assert strip.width > strip.height


def test_a_code_of_a_table_has_values_intervals_and_probabilities(tabled: tuple[Session, Any]) -> None:
    session, app = tabled
    row = post(app, "/api/decode", {"z": [[0.3, -0.2]], "y": None}).table["rows"][0]["cells"]
    assert [cell["name"] for cell in row] == ["age", MARKUP, "city"]
    assert row[0]["low"] < row[0]["value"] < row[0]["high"]
    assert row[2]["text"] in ("Seoul", "Busan")
    assert 0.5 <= row[2]["share"] <= 1  # the likelier of two
    assert row[2]["low"] is None
    draws = session.model.decode(torch.tensor([[0.3, -0.2]])).sample((4000,))[:, 0]
    ages = session.schema.inverse(draws)[:, 0]
    assert float(ages.quantile(0.05)) == pytest.approx(row[0]["low"], abs=0.4)
    assert float(ages.quantile(0.95)) == pytest.approx(row[0]["high"], abs=0.4)


def test_a_typed_row_keeps_what_is_given_and_fills_the_rest(tabled: tuple[Session, Any]) -> None:
    session, app = tabled
    cells = post(app, "/api/read", {"cells": {"age": "13", "city": "Seoul"}, "view": "0,1"}).table["cells"]
    assert [cell["filled"] for cell in cells] == [False, True, False]
    assert cells[0]["text"] == "13"
    row = torch.tensor([[13.0, math.nan, float(session.schema.model[2].levels.index("Seoul"))]], dtype=torch.float64)
    split = aevb.Split(row, None, session.values)
    assert cells[1]["value"] == pytest.approx(float(aevb.impute(session.model, split, 200).values[0, 1]), rel=1e-6)
    assert cells[1]["low"] < cells[1]["value"] < cells[1]["high"]
    by_file = post(app, "/api/read", {"csv": "city,age\nSeoul,13\n", "view": "0,1"}).table["cells"]
    assert by_file == cells


def test_what_is_no_number_is_refused_with_the_name_of_its_column(tabled: tuple[Session, Any]) -> None:
    _, app = tabled
    answer = post(app, "/api/read", {"cells": {"age": "old"}, "view": "0,1"})
    assert answer.status == 422
    assert "age" in answer.table["error"]


def test_a_cell_that_begins_like_a_formula_is_no_formula_in_the_export() -> None:
    from aevb.apps.explorer.detail import safe

    assert [safe(text) for text in ("=1+1", "@x", "-2.5", "+3", "plain", "-x")] == [
        "'=1+1",
        "'@x",
        "-2.5",
        "+3",
        "plain",
        "'-x",
    ]


def test_classes_condition_what_is_decoded(tmp_path: Path) -> None:
    run = images(tmp_path, "conditional", latent=2)
    session = Session(run, run.dataset())
    app = application(Explorer({"": session}), TOKEN, PORT)
    about = get(app, "/api/about").table
    assert [c["number"] for c in about["classes"]] == [0, 1, 2]
    each = [post(app, "/api/decode", {"z": [[0.0, 0.0]], "y": y}).floats for y in range(3)]
    wanted = aevb.decode(session.model, torch.zeros(1, 2), torch.eye(3)[2:])
    np.testing.assert_allclose(each[2], wanted.flatten().numpy(), rtol=1e-5, atol=1e-6)
    assert not np.allclose(each[0], each[2])
    assert post(app, "/api/decode", {"z": [[0.0, 0.0]], "y": 7}).status == 422


def test_layers_below_the_one_that_is_moved_follow_it(tmp_path: Path) -> None:
    run = images(tmp_path, "hvae")
    session = Session(run, run.dataset())
    app = application(Explorer({"": session}), TOKEN, PORT)
    sizes = [layer["size"] for layer in get(app, "/api/about").table["layers"]]
    assert len(sizes) == 2
    z = torch.zeros(2, sum(sizes))
    z[1, sizes[0] :] = 1.5
    found = post(app, "/api/decode", {"z": z.tolist(), "y": None, "layer": 1}).floats.reshape(2, -1)
    p = session.model.prior().conditionals(z)[0].mean
    wanted = aevb.decode(session.model, torch.cat([p.detach(), z[:, sizes[0] :]], 1))
    np.testing.assert_allclose(found, wanted.flatten(1).numpy(), rtol=1e-4, atol=1e-5)
    alone = post(app, "/api/decode", {"z": z.tolist(), "y": None, "layer": 0}).floats.reshape(2, -1)
    np.testing.assert_array_equal(alone[0], alone[1])  # the decoder reads the first layer alone


# The mathematics of the plane and of walks


class Flattened:
    """In the place of UMAP: the first two codes, doubled; asked once to fit, then to place others."""

    def __init__(self, **settings: Any) -> None:
        assert settings == {"n_components": 2, "n_neighbors": 15, "random_state": 0}
        self.fitted = 0

    def fit_transform(self, codes: np.ndarray) -> np.ndarray:
        self.fitted = len(codes)
        return 2 * codes[:, :2]

    def transform(self, codes: np.ndarray) -> np.ndarray:
        assert self.fitted
        return 2 * codes[:, :2]


def test_umap_is_a_view_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = images(tmp_path, latent=3)
    assert curved.find_spec("umap") is None or "umap" in Session(run, run.dataset()).view_names()
    monkeypatch.setattr(curved, "find_spec", lambda name: None)
    assert Session(run, run.dataset()).view_names() == ["pca", "0,1"]
    monkeypatch.setattr(curved, "find_spec", lambda name: object())
    monkeypatch.setattr(curved, "FITTED", 50)
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Flattened))
    session = Session(run, run.dataset())
    app = application(Explorer({"": session}), TOKEN, PORT)
    views = get(app, "/api/about").table["views"]
    assert views[:2] == [{"name": "pca", "title": "PCA"}, {"name": "umap", "title": "UMAP"}]
    assert get(app, "/api/view?name=umap").table["curved"] is True
    assert get(app, "/api/view?name=pca").table["curved"] is False
    first = get(app, "/api/points?view=umap&start=0")
    second = get(app, "/api/points?view=umap&start=50")
    places = np.concatenate([first.floats, second.floats]).reshape(-1, 2)
    codes = get(app, "/api/codes?start=0").floats.reshape(-1, 3)
    assert len(first.floats) == 100
    np.testing.assert_allclose(places, 2 * codes[:, :2], rtol=1e-5)
    np.testing.assert_allclose(codes, session.points.codes.all().numpy())
    read = post(app, "/api/read", {"pixels": [0.5] * 30, "view": "umap"}).table
    assert read["ellipse"] is None
    assert len(read["z"]) == 3


def test_principal_axes_are_those_of_the_largest_variance() -> None:
    g = torch.Generator().manual_seed(0)
    z = torch.randn(4000, 3, generator=g) @ torch.diag(torch.tensor([0.1, 3.0, 1.0])) + 5
    plane = principal(z)
    np.testing.assert_allclose(plane.axes.abs().numpy(), [[0, 1, 0], [0, 0, 1]], atol=0.05)
    uv = plane.project(z)
    np.testing.assert_allclose(plane.lift(uv).numpy()[:, 1:], z.numpy()[:, 1:], atol=0.5)
    np.testing.assert_allclose(plane.project(plane.lift(uv)).numpy(), uv.numpy(), atol=1e-9)


def test_an_ellipse_holds_ninety_per_cent_of_a_normal_posterior(banded: tuple[Session, Any]) -> None:
    session, _ = banded
    data = session.points.data([3])
    axis = Plane(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    oval = ellipse(session.model, data, axis, 20_000)
    q = session.model.posterior(session.points.some([3])[torch.arange(1)])
    std = q.stddev[0].sort(descending=True).values
    np.testing.assert_allclose(oval.radii, (2.1460 * std).tolist(), rtol=0.03)
    np.testing.assert_allclose(oval.at, q.mean[0].tolist(), atol=0.02)


def test_an_arc_keeps_the_length_of_its_ends() -> None:
    a, b = torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([[0.0, 3.0, 0.0]])
    z = arc(a, b, 7)
    np.testing.assert_allclose(z.norm(dim=-1).numpy(), 3.0, rtol=1e-6)
    np.testing.assert_allclose(z[0, 3].numpy(), [3 / math.sqrt(2), 3 / math.sqrt(2), 0], rtol=1e-5, atol=1e-6)
    opposite = arc(a, -a, 5)
    np.testing.assert_allclose(opposite.numpy(), line(a, -a, 5).numpy())
    assert len(route(torch.cat([a, b, -a]), 4)) == 7


def test_the_nearest_codes_come_first() -> None:
    codes = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0], [0.4, 0.0]])
    assert nearest(codes, torch.tensor([0.0, 0.0]), 3) == [0, 3, 1]


def test_a_drawing_is_moved_to_where_the_mass_of_the_data_is() -> None:
    x = np.zeros((1, 7, 7))
    x[0, 0, 1] = 1.0
    moved = centred(x, (3.2, 4.0))
    assert np.argwhere(moved[0] == 1).tolist() == [[3, 4]]
    np.testing.assert_array_equal(centred(np.zeros((1, 7, 7)), (3.0, 3.0)), 0)

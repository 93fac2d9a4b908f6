"""Figures: what is drawn where, as numbers read back from the pixels, the lines and the codes that were decoded."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch
from matplotlib.colors import to_rgba
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import brentq
from scipy.stats import norm
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

import aevb
from aevb.errors import AevbError, DataError, ShapeError
from aevb.figures import plots, scatter
from aevb.figures.style import DPI, GAP, PALETTE, as_tiles, common_limits
from aevb.figures.tables import Table
from aevb.models.priors import Mixture, StandardNormal
from aevb.models.vae import VAE
from aevb.probability import families
from aevb.probability.distributions import Logistic
from aevb.runs.parts import AXES
from aevb.use.traverse import traverse

GREYS = 0.5 / 63 + 1e-6  # pictures have 64 levels of grey


class Linear(nn.Module):
    """N(a c + b, 1), which remembers every context it was given, and notices training mode and gradients."""

    def __init__(self, size_in: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(size_in)
        self.weight = nn.Parameter(0.1 * torch.randn(int(np.prod(shape)), size_in, generator=generator))
        self.shape, self.seen = shape, []

    def forward(self, c: Tensor) -> Independent:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.seen.append(c.clone())
        mean = (0.5 + c.flatten(1) @ self.weight.T).unflatten(1, self.shape)
        return Independent(Normal(mean, 1.0), len(self.shape))


def vae(latent: int = 2, shape: tuple[int, ...] = (1, 4, 6)) -> VAE:
    return VAE(StandardNormal(latent), Linear(int(np.prod(shape)), (latent,)), Linear(latent, shape)).train()


def decoded_codes(model: VAE, asked: int = 1) -> Tensor:
    return torch.cat(model.decoder.seen[asked:])  # before them one call asks for the size of a data point


def picture(figure: plots.Figure) -> np.ndarray:
    return np.asarray(figure.axes[0].images[0].get_array())


def words(figure: plots.Figure) -> list[str]:
    return [t.get_text() for t in figure.texts]


def means(model: VAE, x: Tensor) -> Tensor:
    model.eval()
    with torch.no_grad():
        return model.encode(x)


def test_image_grid_puts_every_pixel_of_every_tile_in_its_place():
    images = torch.rand(5, 1, 3, 4)
    grid = plots.image_grid(images, columns=2, gap=1, background=0.25)
    assert grid.shape == (3 * 4 - 1, 2 * 5 - 1)
    for i in range(5):
        y, x = 4 * (i // 2), 5 * (i % 2)
        assert_array_equal(grid[y : y + 3, x : x + 4], images[i, 0].numpy())
    assert (grid[3] == 0.25).all()
    assert (grid[:, 4] == 0.25).all()
    assert (grid[8:, 5:] == 0.25).all()


def test_image_grid_of_colours_ends_in_channels_and_of_plain_matrices_is_the_same_as_of_one_channel():
    colours = torch.rand(4, 3, 2, 2)
    grid = plots.image_grid(colours, columns=4, gap=0)
    assert grid.shape == (2, 8, 3)
    assert_array_equal(grid[:, 2:4], colours[1].permute(1, 2, 0).numpy())
    assert_array_equal(plots.image_grid(colours[:, 0], 2), plots.image_grid(colours[:, :1], 2))


def test_image_grid_clips_to_the_unit_interval():
    assert_array_equal(plots.image_grid(torch.tensor([[[-3.0, 7.0]]]), 1), [[0.0, 1.0]])


def test_tiles_enlarge_images_by_whole_numbers_without_blending():
    x = torch.rand(3, 1, 4, 5)
    tiles = as_tiles(x, (0, 1), rows=10, columns=10)
    assert tiles.shape[2] % 4 == 0
    assert tiles.shape[3] == tiles.shape[2] // 4 * 5
    assert torch.equal(tiles[..., :: tiles.shape[2] // 4, :: tiles.shape[2] // 4], x)


def test_vectors_are_strips_with_a_field_per_feature_red_above_zero_and_blue_below():
    tiles = as_tiles(torch.tensor([[-1.0, 0.0, 1.0]]), (-1, 1), rows=1, columns=20)
    fields = tiles[0, :, :: tiles.shape[2] // 3, 0].T
    assert tiles.shape[1] == 3
    assert fields[0, 2] > fields[0, 0] + 0.3
    assert fields[1].min() > 0.9
    assert fields[2, 0] > fields[2, 2] + 0.3


def test_limits_keep_the_unit_interval_for_images_and_are_symmetric_for_vectors():
    assert common_limits(torch.rand(4, 1, 8, 8)) == (0.0, 1.0)
    assert common_limits(0.3 * torch.rand(4, 1, 8, 8)) == (0.0, 1.0)  # dark images stay dark
    low, high = common_limits(0.1 * torch.randn(4, 1, 8, 8))  # the means of a standardised image
    assert low == pytest.approx(-high, rel=0.5)
    low, high = common_limits(5 * torch.randn(4, 1, 8, 8))
    assert low < -3
    assert high > 3
    low, high = common_limits(torch.randn(50, 7) + 1)
    assert low == -high


def test_samples_are_decoded_draws_from_the_prior_and_the_same_for_a_seed():
    model = vae()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = picture(plots.samples(model, n=2000, seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    z = decoded_codes(model, asked=0)
    assert z.shape == (2000, 2)
    assert_allclose(z.mean(0), 0, atol=4 / 2000**0.5)
    assert_allclose(z.std(0), 1, atol=4 / 4000**0.5)
    assert_array_equal(first, picture(plots.samples(model, n=2000, seed=1)))
    assert not np.array_equal(first, picture(plots.samples(model, n=2000, seed=2)))


def test_drawing_leaves_every_module_in_its_mode_and_no_gradients():
    model = vae()
    model.encoder.eval()
    plots.reconstructions(model, torch.rand(3, 1, 4, 6))
    assert model.training
    assert model.decoder.training
    assert not model.encoder.training
    assert all(p.grad is None for p in model.parameters())


def test_samples_picture_shows_the_decoded_means():
    model = vae()
    shown = picture(plots.samples(model, n=9))
    scale = (shown.shape[0] + GAP) // 3 // 4
    with torch.no_grad():
        y = model.eval().decode(decoded_codes(model, asked=0)).mean
    assert_allclose(shown[: 4 * scale : scale, : 6 * scale : scale], y[0, 0].clamp(0, 1), atol=GREYS)


def test_manifold_decodes_the_quantiles_of_cell_centres_first_latent_along_x_second_upwards():
    model = vae()
    plots.manifold(model, n=5)
    z = decoded_codes(model).reshape(5, 5, 2)
    expected = norm.ppf((np.arange(5) + 0.5) / 5)
    for row in range(5):
        assert_allclose(z[row, :, 0], expected, atol=1e-6)
        assert_allclose(z[:, row, 1], expected[::-1], atol=1e-6)
    assert_allclose(z.sum((0, 1)), 0, atol=1e-5)


PPF = {
    "standard-normal": scipy.stats.norm,
    "standard-logistic": scipy.stats.logistic,
    "standard-laplace": scipy.stats.laplace,
    "standard-cauchy": scipy.stats.cauchy,
    "standard-gumbel": scipy.stats.gumbel_r,
    "unit-exponential": scipy.stats.expon,
    "log-normal": scipy.stats.lognorm(1),
    "standard-student-t": scipy.stats.t(3),
    "uniform": scipy.stats.uniform,
}


@pytest.mark.parametrize("name", PPF)
def test_manifold_stands_at_the_quantiles_of_the_prior(name):
    """SciPy's, to the digit or, where PyTorch has no formula, within five standard errors √(u (1 - u) / N) / p(z)."""
    model = vae()
    model.prior = AXES["prior"][name](2)
    plots.manifold(model, n=5)
    z, u = decoded_codes(model).reshape(5, 5, 2), (np.arange(5) + 0.5) / 5
    drawn = name in ("standard-student-t", "uniform")
    expected = PPF[name].ppf(u)
    error = 5 * np.sqrt(u * (1 - u) / plots.DRAWS) / PPF[name].pdf(expected) if drawn else 1e-5 * (1 + abs(expected))
    for row in range(5):
        assert (np.abs(z[row, :, 0].numpy() - expected) < error).all()
        assert (np.abs(z[:, row, 1].numpy()[::-1] - expected) < error).all()


def test_manifold_stands_at_the_quantiles_of_a_mixtures_draws():
    """Of ½ N(-3, 1) + ½ N(3, 1), whose distribution function is inverted by hand; the other latent's median is its
    mean."""
    model = vae(latent=3)
    model.prior = Mixture(families.Normal(3), 2)
    with torch.no_grad():
        model.prior.phi.copy_(torch.tensor([[-3.0, -3, 1, 0, 0, 0], [3.0, 3, 1, 0, 0, 0]]))
    plots.manifold(model, n=4, dims=(0, 1))
    z, u = decoded_codes(model).reshape(4, 4, 3), (np.arange(4) + 0.5) / 4
    expected = [brentq(lambda x, v: 0.5 * norm.cdf(x + 3) + 0.5 * norm.cdf(x - 3) - v, -9, 9, (v,)) for v in u]
    assert_allclose(z[0, :, 0], expected, atol=0.05)
    assert_allclose(z[..., 2], 1, atol=0.02)


@pytest.mark.parametrize("name", ["flat-dirichlet", "uniform-sphere"])
def test_there_is_no_manifold_of_a_simplex_or_a_sphere(name):
    model = vae()
    model.prior = AXES["prior"][name](2)
    with pytest.raises(DataError, match=r"are on the (simplex|unit sphere): a plane of numbers does not show them"):
        plots.manifold(model)


def test_manifold_of_more_latents_needs_two_of_them_and_keeps_the_others_at_zero():
    model = vae(latent=4)
    with pytest.raises(DataError, match=r"4 latents: choose two.*dims=\(0, 1\)"):
        plots.manifold(model)
    for wrong in ((1, 1), (0, 4)):
        with pytest.raises(AevbError, match="two different latents from 0 to 3"):
            plots.manifold(model, dims=wrong)
    plots.manifold(model, n=3, dims=(2, 0))
    z = decoded_codes(model).reshape(3, 3, 4)
    assert_allclose(z[1, :, 2], norm.ppf([1 / 6, 1 / 2, 5 / 6]), atol=1e-6)
    assert_allclose(z[:, 1, 0], norm.ppf([5 / 6, 1 / 2, 1 / 6]), atol=1e-6)
    assert (z[..., [1, 3]] == 0).all()


@pytest.mark.parametrize("shape", [(1, 4, 6), (3, 4, 6), (4, 6), (9,)])
def test_interpolations_go_in_equal_steps_from_one_posterior_mean_to_the_other(shape):
    model, a, b = vae(3, shape), torch.rand(2, *shape), torch.rand(2, *shape)
    plots.interpolations(model, a, b, steps=7)
    z = decoded_codes(model).reshape(2, 7, 3)
    assert_allclose(z[:, 0], means(model, a), atol=1e-6)
    assert_allclose(z[:, -1], means(model, b), atol=1e-6)
    step = z.diff(dim=1)
    assert_allclose(step, step.mean(1, keepdim=True).expand_as(step), atol=1e-6)


def test_interpolations_show_the_data_at_both_margins():
    a, b = torch.rand(1, 1, 4, 6), torch.rand(1, 1, 4, 6)
    shown = picture(plots.interpolations(vae(), a, b, steps=3))
    scale = shown.shape[0] // 4
    assert_allclose(shown[::scale, : 6 * scale : scale], a[0, 0], atol=GREYS)
    assert_allclose(shown[::scale, -6 * scale :: scale], b[0, 0], atol=GREYS)


def test_manifold_has_no_seams_only_where_images_all_end_in_the_same_level():
    dark = vae(shape=(1, 5, 5))
    with torch.no_grad():
        dark.decoder.weight.mul_(nn.functional.pad(torch.ones(3, 3), (1, 1, 1, 1)).reshape(-1, 1))
    scale = 16
    assert picture(plots.manifold(dark, n=3)).shape == (15 * scale, 15 * scale)
    assert picture(plots.manifold(vae(shape=(1, 5, 5)), n=3)).shape == (15 * scale + 2 * GAP, 15 * scale + 2 * GAP)


def test_interpolations_refuse_ends_that_do_not_match():
    with pytest.raises(ShapeError, match="same shape"):
        plots.interpolations(vae(), torch.rand(2, 1, 4, 6), torch.rand(3, 1, 4, 6))


def test_traversals_move_one_latent_per_row_the_largest_kl_first():
    model, x, kl = vae(4), torch.rand(1, 4, 6), torch.tensor([0.5, 3.25, 0.0, 1.5])
    figure = plots.traversals(model, x, kl, plots.Moves(3, span=2.0, steps=5))
    z = decoded_codes(model).reshape(3, 5, 4)
    centre = means(model, x.unsqueeze(0))[0]
    for row, dim in enumerate((1, 3, 0)):
        others = [d for d in range(4) if d != dim]
        assert_allclose(z[row, :, dim], [-2, -1, 0, 1, 2])
        assert_allclose(z[row][:, others], centre[others].expand(5, 3), atol=1e-6)
    labels = [w for w in words(figure) if w.startswith("z[")]
    assert labels == ["z[1]  3.25", "z[3]  1.50", "z[0]  0.50"]


def test_positive_latents_move_where_the_prior_is():
    """Between the percentiles of p(z) = Exponential(1), where the decoder x = z shows them; never below 0."""
    prior, posterior = aevb.Known(torch.distributions.Exponential, (1.0,), 1), aevb.Gamma(1)
    decoder = nn.Linear(1, 1)
    with torch.no_grad():
        decoder.weight.fill_(1.0)
        decoder.bias.zero_()
    encoder = aevb.Conditional(nn.Linear(1, 2), posterior)
    model = aevb.VAE(prior, encoder, aevb.Conditional(decoder, aevb.Normal(1, scale=1.0)))
    ticks = traverse(model, None, torch.tensor([0]), steps=5).values
    expected = -torch.log1p(-torch.linspace(0.01, 0.99, 5))
    assert bool((ticks > 0).all())
    assert bool(((ticks - expected).abs() < 0.35 * expected + 0.05).all())  # quantiles of 1,000 draws


def test_traversals_around_the_prior_mean_and_without_a_kl_per_latent():
    model = vae(3)
    figure = plots.traversals(model, None, torch.tensor([2.0]), plots.Moves(steps=3))
    z = decoded_codes(model).reshape(3, 3, 3)
    for row in range(3):
        assert (z[row][:, [d for d in range(3) if d != row]] == 0).all()
    assert [w for w in words(figure) if w.startswith("z[")] == ["z[0]", "z[1]", "z[2]"]


@pytest.mark.parametrize("shape", [(1, 4, 6), (3, 4, 6), (9,)])
def test_reconstructions_show_data_above_their_decoded_posterior_means(shape):
    model, x = vae(2, shape), torch.rand(4, *shape)
    shown = picture(plots.reconstructions(model, x))
    assert_allclose(decoded_codes(model), means(model, x), atol=1e-6)
    with torch.no_grad():
        y = model.decode(means(model, x)).mean
    both, limits = torch.cat([x, y]), common_limits(x, y)
    if len(shape) == 1:  # a table, of which each column has its own scale
        both, limits = Table.of(x).colours(both), (-1.0, 1.0)
    tiles = as_tiles(both, limits, rows=2, columns=4)
    assert_allclose(shown, plots.image_grid(tiles, 4, gap=GAP), atol=GREYS)


def test_reconstructions_break_into_pairs_of_rows_and_leave_missing_places_white():
    model, x = vae(), torch.rand(5, 1, 4, 6)
    shown = picture(plots.reconstructions(model, x, columns=3))
    pair = (shown.shape[0] - 14) // 2
    assert (shown[pair : pair + 14] == 1).all()
    side = (shown.shape[1] + GAP) // 3
    assert (shown[pair + 14 :, -side:] == 1).all()
    assert_array_equal(shown[pair + 14], np.concatenate([shown[pair + 14, : 2 * side], np.ones(side - GAP)]))


def test_a_picture_is_drawn_pixel_for_pixel():
    figure = plots.decoded(torch.rand(6, 1, 5, 5), columns=3)
    figure.canvas.draw()
    axes, shown = figure.axes[0], picture(figure)
    assert_allclose(axes.get_window_extent().size, shown.shape[::-1], atol=0.05)
    assert_allclose(axes.get_window_extent().p0 % 1, 0, atol=0.05)


def metrics() -> list[dict]:
    lines = [
        {"step": i, "samples": 100 * i, "train": {"elbo": -90 - 10 / i, "reconstruction": -70.0 - i, "kl": i / 4}}
        for i in range(1, 41)
    ]
    for line in lines[::10]:
        line["validation"] = {"elbo": -100.0 - line["step"], "reconstruction": -80.0, "kl": 20.0 + line["step"]}
    return lines


def test_loss_curves_plot_exactly_the_numbers_of_the_metrics():
    lines = metrics()
    figure = plots.loss_curves(lines, "digits")
    for axes, name in zip(figure.axes, ("elbo", "reconstruction", "kl"), strict=True):
        for curve, part in zip(axes.lines, ("train", "validation"), strict=True):
            rows = [(m["samples"], m[part][name]) for m in lines if part in m]
            assert curve.get_label() == part
            assert_array_equal(curve.get_xydata(), rows)
        assert axes.get_xscale() == "log"
    assert words(figure)[0] == "digits"
    assert {a.get_xscale() for a in plots.loss_curves(lines[5:]).axes} == {"linear"}


def test_loss_curves_do_without_validation_and_without_an_elbo():
    lines = [{"step": 1, "samples": 100, "train": {"loss": 3.0, "reconstruction": -3.0}}]
    elbo, reconstruction, _ = plots.loss_curves(lines).axes
    assert [t.get_text() for t in elbo.texts] == ["not recorded"]
    assert_array_equal(reconstruction.lines[0].get_xydata(), [[100, -3]])
    assert len(plots.loss_curves([]).axes) == 3


def clusters(n: int, size: int) -> tuple[Tensor, Tensor]:
    labels = torch.arange(n) % 3
    return 6.0 * nn.functional.one_hot(labels, size) + 0.1 * torch.randn(n, size), labels


def test_scatter_of_two_latents_has_a_colour_per_class_and_names_at_the_medians():
    labels = torch.arange(90) % 3
    centres = torch.tensor([[-4.0, 0.0], [4.0, 0.0], [0.0, 5.0]])
    codes = centres[labels] + 0.1 * torch.randn(90, 2)
    axes = scatter.latent_scatter(codes, labels, ["ant", "bee", "cat"]).axes[0]
    dots = axes.collections[0]
    at, colours = np.asarray(dots.get_offsets()), dots.get_facecolors()[:, :3]
    assert_allclose(np.sort(at, 0), np.sort(codes.numpy(), 0), atol=1e-6)
    for c in range(3):
        mine = np.linalg.norm(at - centres[c].numpy(), axis=1) < 1
        assert {tuple(v) for v in colours[mine]} == {to_rgba(PALETTE[c])[:3]}
        name = axes.texts[c]
        assert name.get_text() == ["ant", "bee", "cat"][c]
        assert_allclose(name.get_position(), codes[labels == c].median(0).values, atol=0.1)
    assert axes.get_aspect() == 1.0


def exponentials() -> Distribution:
    return aevb.Known(torch.distributions.Exponential, (1.0,), 2)()


def two_normals() -> Distribution:
    prior = aevb.Mixture(aevb.Normal(2), 2)
    with torch.no_grad():
        prior.phi.copy_(torch.tensor([[-5.0, 0.0, 0.0, 0.0], [3.0, 1.0, -2.0, 1.0]]))
    return prior()


def logistics() -> Distribution:
    return aevb.Known(Logistic, (0.0, 1.0), 2)()


SHAPES_OF_PRIORS: dict[str, Callable[[], Distribution]] = {
    "normal": lambda: aevb.StandardNormal(2)(),
    "exponential": exponentials,
    "mixture": two_normals,
    "logistic": logistics,
}


@pytest.mark.parametrize("make", SHAPES_OF_PRIORS.values(), ids=SHAPES_OF_PRIORS)
def test_lines_hold_their_share_of_the_prior(make: Callable[[], Distribution]) -> None:
    prior, n = make(), 100_000
    axes = scatter.latent_scatter(torch.randn(20, 2), prior=prior).axes[0]
    levels = torch.as_tensor(axes.collections[-1].levels).flip(0)
    torch.manual_seed(5)
    log_p = prior.log_prob(prior.sample((n,))).detach()
    for level, mass in zip(levels, (0.5, 0.9, 0.99), strict=True):
        error = 4 * (2 * mass * (1 - mass) / n) ** 0.5  # of these draws, and of those that gave the level
        assert float((log_p >= level).double().mean()) == pytest.approx(mass, abs=error)


def test_lines_of_a_standard_normal_are_circles() -> None:
    axes = scatter.latent_scatter(torch.randn(20, 2), prior=aevb.StandardNormal(2)()).axes[0]
    for path, mass in zip(axes.collections[-1].get_paths(), (0.99, 0.9, 0.5), strict=True):
        radii = np.linalg.norm(path.vertices, axis=1)
        assert_allclose(radii, np.sqrt(-2 * np.log(1 - mass)), rtol=0.03)


def test_a_flat_prior_has_no_lines() -> None:
    figure = scatter.latent_scatter(torch.rand(20, 2), prior=aevb.Known(torch.distributions.Beta, (1.0, 1.0), 2)())
    assert len(figure.axes[0].collections) == 1
    assert "hold" not in words(figure)[1]


def test_names_of_overlapping_classes_are_moved_apart():
    codes, labels = torch.randn(300, 2), torch.arange(300) % 10
    figure = scatter.latent_scatter(codes, labels)
    figure.canvas.draw()
    boxes = [t.get_window_extent() for t in figure.axes[0].texts]
    assert len(boxes) == 10
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_more_than_two_latents_are_embedded_by_t_sne_which_the_figure_says():
    codes, labels = clusters(120, 5)
    figure, again = (scatter.latent_scatter(codes, labels, points=90) for _ in range(2))
    assert words(figure)[1] == "90 posterior means; t-SNE of 5 latents"
    first, again = figure.axes[0], again.axes[0]
    at, colours = np.asarray(first.collections[0].get_offsets()), first.collections[0].get_facecolors()
    assert len(at) == 90
    assert_array_equal(at, again.collections[0].get_offsets())
    nearest = np.linalg.norm(at[:, None] - at[None], axis=-1) + 1e9 * np.eye(90)
    assert_array_equal(colours, colours[nearest.argmin(1)])


def test_scatter_without_labels_is_darkest_where_points_are_dense():
    codes = torch.cat([0.1 * torch.randn(500, 2), 8 * torch.rand(50, 2) + 2])
    dots = scatter.latent_scatter(codes).axes[0].collections[0]
    at, light = np.asarray(dots.get_offsets()), dots.get_facecolors()[:, :3].sum(1)
    dense = np.linalg.norm(at, axis=1) < 0.2
    assert light[dense].mean() < light[~dense].mean() - 0.5


def test_one_latent_runs_along_x():
    codes = torch.randn(30, 1)
    at = np.asarray(scatter.latent_scatter(codes).axes[0].collections[0].get_offsets())
    assert_allclose(np.sort(at[:, 0]), np.sort(codes[:, 0].numpy()), atol=1e-6)


def test_save_writes_png_and_svg_byte_for_byte_the_same_and_nothing_else(tmp_path):
    def write(name: str) -> list[bytes]:
        return [p.read_bytes() for p in plots.save(plots.samples(vae(), n=4), tmp_path / name)]

    png, svg = write("a.b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.b.png", "a.b.svg"]
    assert png.startswith(b"\x89PNG")
    assert b"<svg" in svg
    assert not re.search(rb"<dc:date|Matplotlib v", svg)
    assert [png, svg] == write("a.b")
    lines = metrics()
    assert len({p.read_bytes() for n in "cd" for p in plots.save(plots.loss_curves(lines), tmp_path / n)}) == 2


def test_saved_pixels_are_the_data(tmp_path):
    from PIL import Image

    figure = plots.decoded(torch.rand(4, 1, 6, 6))
    path = plots.save(figure, tmp_path / "x")[0]
    whole, shown = np.asarray(Image.open(path).convert("L")) / 255, picture(figure)
    box = figure.axes[0].get_window_extent()
    x, y = round(box.x0), whole.shape[0] - round(box.y1)
    assert_allclose(whole[y : y + shown.shape[0], x : x + shown.shape[1]], shown, atol=2 / 255)


def test_drawing_does_not_depend_on_or_change_the_users_settings_of_matplotlib():
    import matplotlib

    with matplotlib.rc_context({"axes.facecolor": "black", "figure.dpi": 50}):
        figure = plots.loss_curves(metrics())
        assert matplotlib.rcParams["axes.facecolor"] == "black"
    assert figure.axes[0].get_facecolor() == to_rgba("white")
    assert figure.dpi == DPI


@pytest.mark.filterwarnings("error")
def test_one_code_for_all_is_one_place() -> None:
    assert not scatter._t_sne(np.ones((20, 5))).any()

"""Figures 4 and 5 (App. A): what a plane of latents decodes to, and random samples for four sizes of the latent
space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.figure import Figure
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from torch import Tensor

from aevb.data.dataset import Split
from aevb.evaluation.latent import as_array
from aevb.figures import plots
from aevb.figures.style import GAP, as_tiles, image_grid, save, sheet, stack, styled
from aevb.models.inference import Model
from aevb.models.vae import VAE
from aevb.reproduce.curves import Curve, dataset, has_weights, trained, write_table
from aevb.reproduce.experiment import Experiment
from aevb.reproduce.figure2 import frey, mnist
from aevb.reproduce.seeds import alike, rounded, seen, spread
from aevb.use.generate import generate

LATENTS = (2, 5, 10, 20)  # of Figure 5
SHOWN = 100  # samples in a panel of Figure 5
JUDGED = 1000  # samples whose digits are counted
NEIGHBOURS, AGREE = 10, 0.9  # a sample is a clear digit where nine of its ten nearest train images have one label
Row = dict[str, str | float]


def model_of(curve: Curve, place: Path) -> VAE | None:
    """The trained model of a curve; None if its weights are not on disk."""
    if not has_weights(curve, place):
        return None
    model = trained(curve, place).best_known
    assert isinstance(model, VAE)
    return model.eval()


def models_of(curve: Curve, place: Path) -> list[VAE]:
    """Those of all seeds that have seen as many training samples, the curve's own first."""
    return [model for each in alike(curve, place) if (model := model_of(each, place)) is not None]


# Figure 4


def present_manifolds(place: Path, out: Path) -> list[str]:
    found, over_seeds = [], []
    planes = (("MNIST", mnist(2), 20, _digits, _digits_said), ("Frey Face", frey(2), 10, _faces, _faces_said))
    for name, curve, n, measure, say in planes:
        models = models_of(curve, place)
        if not models:
            continue
        title = f"Figure 4: the learned manifold of {name}"
        save(plots.manifold(models[0], n, title=title), out / f"figure-4-{curve.source}")
        line: Row = {"data": name, "points": n * n, "training samples": seen(curve, place)}
        rows = [line | measure(on_plane(model, n)) for model in models]
        found.append(f"{say(rows[0])} ({line['training samples']:,} training samples.)")
        over_seeds += rounded(spread([[row] for row in rows], tuple(line)))
    if over_seeds:
        write_table(out / "seeds.csv", over_seeds)
    return found + [_plane_over_seeds(row) for row in over_seeds]


def on_plane(model: Model, n: int) -> Tensor:
    """The means of p(x|z) at z = Φ⁻¹(u), u the n x n cell centres of the unit square: (n², *X)."""
    ticks = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n).float()
    with torch.no_grad():
        return model.decode(torch.cartesian_prod(ticks, ticks)).mean


def _digits(images: Tensor) -> Row:
    return digits(images, dataset("mnist", "grey").train)


def _digits_said(row: Row) -> str:
    missing = f"without {row['missing']}" if row["missing"] else "all ten"
    return (
        f"MNIST, {row['points']} points of the plane: {row['clear']:.0%} are clear digits (at "
        f"least nine of the ten nearest "
        f"train images have one label), of {row['classes']} classes ({missing})."
    )


def _faces(images: Tensor) -> Row:
    """The median distance of images (N, *X), and of test faces, to the nearest train face."""
    data = dataset("frey", "grey")
    train = data.train[:]
    return {
        name: float(nearest(x, train).median()) for name, x in (("distance", images), ("of test faces", data.test[:]))
    }


def _faces_said(row: Row) -> str:
    return (
        f"Frey Face, {row['points']} points of the plane: the median distance to the nearest train frame is "
        f"{row['distance']:.3f} (root mean square per pixel); that of test frames is {row['of test faces']:.3f}."
    )


def _plane_over_seeds(row: Row) -> str:
    many = (
        f"{row['data']}, {row['seeds']} seeds, {row['training samples']:,} training samples, mean ± standard deviation"
    )
    if "clear" in row:
        return f"{many}: {row['clear']:.0%} ± {row['clear_sd']:.0%} clear digits, of {row['classes']:.2g} classes."
    return f"{many}: a distance of {row['distance']:.3f} ± {row['distance_sd']:.3f}."


def nearest(x: Tensor, rows: Tensor) -> Tensor:
    """The root mean square per pixel between each x (N, *X) and the nearest of the rows (M, *X), (N,)."""
    distances, _ = NearestNeighbors(n_neighbors=1).fit(as_array(rows.flatten(1))).kneighbors(as_array(x.flatten(1)))
    return torch.as_tensor(distances[:, 0]) / math.sqrt(x[0].numel())


def digits(images: Tensor, train: Split) -> Row:
    """Which digits images (N, *X) show, by a vote of the nearest train images' pixels.

    Returns:
        clear: the share of images for which at least nine of ten neighbours have one label; clear_se: its standard
            error.
        classes, missing: how many classes the clear ones have, and which they do not have.
        rarest, most: the smallest and the largest share of a class among the clear ones.
    """
    assert train.labels is not None
    vote = KNeighborsClassifier(NEIGHBOURS).fit(as_array(train[:].flatten(1)), as_array(train.labels))
    shares = torch.as_tensor(vote.predict_proba(as_array(images.flatten(1))))
    clear = shares.amax(1) >= AGREE
    counts = shares[clear].argmax(1).bincount(minlength=shares.shape[1])
    p, parts = float(clear.double().mean()), counts / counts.sum().clamp(min=1)
    absent = ", ".join(str(c) for c in vote.classes_[(counts == 0).numpy()])
    error = math.sqrt(p * (1 - p) / len(images))
    spread: Row = {"rarest": round(float(parts.min()), 4), "most": round(float(parts.max()), 4)}
    return {"clear": p, "clear_se": round(error, 4), "classes": int((counts > 0).sum()), "missing": absent, **spread}


# Figure 5


def present_samples(place: Path, out: Path) -> list[str]:
    models = {d: found for d in LATENTS if (found := models_of(mnist(d), place))}
    if not models:
        return []
    data = dataset("mnist", "grey")
    shown = {f"{d} latents": generate(found[0], SHOWN) for d, found in models.items()}
    save(side_by_side(shown), out / "figure-5")
    each = {d: [_judged(d, model, place, data.train) for model in found] for d, found in models.items()}
    rows = [found[0] for found in each.values()]
    rows.append({"latents": "test images", **digits(data.test[:JUDGED], data.train)})
    write_table(out / "figure-5.csv", rows)
    words = "; ".join(_clear_said(row) for row in rows)
    said = [f"Clear digits (nine of the ten nearest train images agree) among {JUDGED:,} random samples: {words}."]
    keys = ("latents", "training samples")
    over_seeds = rounded([line for found in each.values() for line in spread([[row] for row in found], keys)])
    if over_seeds:
        write_table(out / "seeds.csv", over_seeds)
        words = "; ".join(
            f"{row['latents']} latents ({row['training samples']:,} training samples, {row['seeds']} seeds) "
            f"{row['clear']:.1%} ± {row['clear_sd']:.1%}"
            for row in over_seeds
        )
        said.append(f"Over seeds, mean ± standard deviation: {words}.")
    return said


def _judged(latents: int, model: Model, place: Path, train: Split) -> Row:
    about: Row = {"latents": latents, "training samples": seen(mnist(latents), place)}
    return about | digits(generate(model, JUDGED, seed=1), train)


def _clear_said(row: Row) -> str:
    known = "training samples" in row
    name = f"{row['latents']} latents ({row['training samples']:,} training samples)" if known else row["latents"]
    return f"{name} {row['clear']:.1%} ± {row['clear_se']:.1%} of {row['classes']} classes"


@styled
def side_by_side(panels: Mapping[str, Tensor]) -> Figure:
    """Square panels of images, (N, *X) each, with their names below."""
    blocks = [image_grid(as_tiles(x, (0.0, 1.0), 15, 30), math.isqrt(len(x)), 0) for x in panels.values()]
    wide = blocks[0].shape[1] + 4 * GAP
    below = [(i * wide + blocks[0].shape[1] / 2, name) for i, name in enumerate(panels)]
    title = "Figure 5: random samples of the models"
    return sheet(stack(blocks, 1, 4 * GAP), title, "Bernoulli means at z ~ p(z)", below=below)


FIGURE4 = Experiment(
    "figure-4",
    "Figure 4: the learned manifolds of MNIST and Frey Face",
    "Models as in figure 2 with two latents. At the cell centres u of a regular grid on the "
    "unit square, z = Φ⁻¹(u) is decoded, so that equal areas have equal prior mass. Measured: "
    "which digits the plane holds, "
    "by the nearest train images; how near the faces are to train frames.",
    (mnist(2), frey(2)),
    present_manifolds,
    (mnist(2), frey(2)),
)
FIGURE5 = Experiment(
    "figure-5",
    "Figure 5: random samples for 2, 5, 10 and 20 latents",
    "Models of figure 2 on MNIST: the Bernoulli means at z ~ N(0, I). Measured: the share of samples which the nearest "
    "train images call one digit, and how many digits there are.",
    tuple(map(mnist, LATENTS)),
    present_samples,
    tuple(map(mnist, LATENTS)),
)

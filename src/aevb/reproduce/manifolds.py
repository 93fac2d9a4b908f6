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
from aevb.reproduce.curves import Curve, dataset, has_weights, read, trained, write_table
from aevb.reproduce.experiment import Experiment
from aevb.reproduce.figure2 import frey, mnist
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


# Figure 4


def present_manifolds(place: Path, out: Path) -> list[str]:
    found = []
    for curve, n, say in ((mnist(2), 20, _digits_said), (frey(2), 10, _faces_said)):
        model = model_of(curve, place)
        if model is not None:
            name = {"mnist": "MNIST", "frey": "Frey Face"}[curve.source]
            title = f"Figure 4: the learned manifold of {name}"
            save(plots.manifold(model, n, title=title), out / f"figure-4-{curve.source}")
            found.append(f"{say(on_plane(model, n))} ({seen(curve, place):,} training samples.)")
    return found


def seen(curve: Curve, place: Path) -> int:
    """Training samples of a curve so far."""
    followed = read(curve, place)
    return int(followed.rows[-1]["samples"]) if followed else 0


def on_plane(model: Model, n: int) -> Tensor:
    """The means of p(x|z) at z = Φ⁻¹(u), u the n x n cell centres of the unit square: (n², *X)."""
    ticks = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n).float()
    with torch.no_grad():
        return model.decode(torch.cartesian_prod(ticks, ticks)).mean


def _digits_said(images: Tensor) -> str:
    row = digits(images, dataset("mnist", "grey").train)
    missing = f"without {row['missing']}" if row["missing"] else "all ten"
    return (
        f"MNIST, {len(images)} points of the plane: {row['clear']:.0%} are clear digits (at "
        f"least nine of the ten nearest "
        f"train images have one label), of {row['classes']} classes ({missing})."
    )


def _faces_said(images: Tensor) -> str:
    data = dataset("frey", "grey")
    train, test = data.train[:], data.test[:]
    ours, theirs = (float(nearest(x, train).median()) for x in (images, test))
    return (
        f"Frey Face, {len(images)} points of the plane: the median distance to the nearest train frame is {ours:.3f} "
        f"(root mean square per pixel); that of test frames is {theirs:.3f}."
    )


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
    models = {d: model for d in LATENTS if (model := model_of(mnist(d), place)) is not None}
    if not models:
        return []
    data = dataset("mnist", "grey")
    save(side_by_side({f"{d} latents": generate(model, SHOWN) for d, model in models.items()}), out / "figure-5")
    rows: list[Row] = [{"latents": d, "training samples": seen(mnist(d), place)} for d in models]
    rows = [row | digits(generate(models[int(row["latents"])], JUDGED, seed=1), data.train) for row in rows]
    rows.append({"latents": "test images", **digits(data.test[:JUDGED], data.train)})
    write_table(out / "figure-5.csv", rows)
    words = "; ".join(_clear_said(row) for row in rows)
    return [f"Clear digits (nine of the ten nearest train images agree) among {JUDGED:,} random samples: {words}."]


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
)
FIGURE5 = Experiment(
    "figure-5",
    "Figure 5: random samples for 2, 5, 10 and 20 latents",
    "Models of figure 2 on MNIST: the Bernoulli means at z ~ N(0, I). Measured: the share of samples which the nearest "
    "train images call one digit, and how many digits there are.",
    tuple(map(mnist, LATENTS)),
    present_samples,
)

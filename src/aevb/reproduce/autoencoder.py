"""A plain autoencoder against a VAE: the same networks, once with a point for a posterior and no KL."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torch.distributions import MultivariateNormal

from aevb.data.dataset import Dataset, Split
from aevb.data.randomness import derive, seeded
from aevb.errors import DataError
from aevb.evaluation.bound import elbo
from aevb.evaluation.latent import as_array, kmeans, neighbors_accuracy, prior_gap, silhouette
from aevb.evaluation.reports.fidelity import (
    Features,
    LogDensity,
    fidelity,
    median_distance,
    mixture_density,
    mmd,
    principal_components,
)
from aevb.figures.style import save
from aevb.models.inference import Model, inference
from aevb.models.vae import VAE
from aevb.reproduce.autoencoder_pictures import paths_picture, samples_picture, scatters
from aevb.reproduce.curves import Curve, Row, dataset, read, write_table
from aevb.reproduce.experiment import Experiment
from aevb.reproduce.figure2 import plain
from aevb.reproduce.manifolds import AGREE, NEIGHBOURS, models_of
from aevb.reproduce.seeds import rounded, seen, spread
from aevb.training.learner import Learner
from aevb.use.encode import encode, posterior_draws
from aevb.use.interpolate import different_pairs, paths

LATENTS = (2, 20)
STEP = 0.02  # Adagrad's, of both kinds: an autoencoder has no bound to choose by
POINTS = 5000  # samples, and test images to compare them with
PAIRS = 500  # of test images of different digits, between whose codes a path runs
BLOCKS = 10  # parts of the test split, for the error of what has no error of its own
Models = Mapping[tuple[str, int], VAE]  # ("autoencoder" or "VAE", latents) → model
Line = dict[str, Any]  # of the table


def reconstruction(learner: Learner, train: Split, test: Split, most: int = 10_000) -> Row:
    """E_q[log p(x|z)] in nats per data point, over (the first `most`) train rows and over test rows."""
    model = learner.best_known
    assert isinstance(model, VAE)
    return {
        name: float(elbo(model, rows.take(most)).reconstruction.mean())
        for name, rows in (("train", train), ("test", test))
    }


def autoencoder(latents: int, source: str = "mnist") -> Curve:
    """The curve of an autoencoder: networks, data, optimiser, step and weight prior of figure 2's VAE, without its
    noise."""
    changes = {"latent": latents, "training__optimizer__lr": STEP}
    return Curve(
        f"{source}-z{latents}-autoencoder", "autoencoder", source, reconstruction, changes, steps=(), share=0.3
    )


KINDS: dict[str, Callable[[int], Curve]] = {"autoencoder": autoencoder, "VAE": plain}
CURVES = tuple(kind(latents) for kind in KINDS.values() for latents in LATENTS)


def present(place: Path, out: Path) -> list[str]:
    curves = {(name, d): kind(d) for d in LATENTS for name, kind in KINDS.items()}
    found = {key: models_of(curve, place) for key, curve in curves.items()}
    found = {key: each for key, each in found.items() if all(found[name, key[1]] for name in KINDS)}
    if not found:
        return []
    judge, first = Judge.of(dataset("mnist", "grey")), {key: each[0] for key, each in found.items()}
    lines = {key: [of_model(*key, model, judge) for model in each] for key, each in found.items()}
    many = {d: min(len(lines[name, d]) for name in KINDS) for _, d in found}
    table = [*(line for each in lines.values() for line in each[0]), *references(judge)]
    write_table(out / "autoencoder.csv", rounded(table))
    draw(first, judge, out)
    keys = ("model", "latents", "codes")
    over_seeds = [line for (_, d), each in lines.items() for line in spread(each[: many[d]], keys)]
    if over_seeds:
        write_table(out / "seeds.csv", rounded(over_seeds))
    return [_trained(curves, first, place), *findings(table), *findings_over_seeds(over_seeds)]


# What judges


@dataclass(frozen=True)
class Judge:
    """Data, and what is fitted to them without any model that is judged.

    Attributes:
        features: the first 50 principal components of the train images (all, if they have fewer pixels).
        log_density: of features, by a mixture of 20 normals fitted to the validation images, on which no model was
            trained.
        usual: the mean of the log-density of test images, in nats.
        near: the features of at most `POINTS` test images, spread over the split: MNIST's first 5,000 are the easier
            ones.
        bandwidth: the median distance of two of them.
        vote: the labels of the ten nearest train images.
    """

    data: Dataset
    features: Features
    log_density: LogDensity
    usual: float
    near: Tensor
    bandwidth: float
    vote: KNeighborsClassifier

    @classmethod
    def of(cls, data: Dataset, components: int = 20) -> Judge:
        rows = data.train[:]
        features = principal_components(rows, min(50, data.shape.numel()))
        log_density = mixture_density(features(data.validation[:]), components)
        test = features(data.test[:])
        near = test[:: max(len(test) // POINTS, 1)][:POINTS]
        vote = KNeighborsClassifier(NEIGHBOURS).fit(as_array(features(rows)), as_array(labels_of(data.train)))
        return cls(data, features, log_density, float(log_density(test).mean()), near, median_distance(near), vote)

    def clear(self, features: Tensor) -> Tensor:
        """(N, F) → (N,): 1 where at least nine of the ten nearest train images have one label, otherwise 0."""
        return torch.as_tensor(self.vote.predict_proba(as_array(features)).max(1) >= AGREE, dtype=torch.float64)


def labels_of(rows: Split) -> Tensor:
    if rows.labels is None:
        raise DataError("Codes are compared by their labels: choose data that have some.")
    return rows.labels


def of_model(name: str, latents: int, model: VAE, judge: Judge) -> list[Line]:
    """Two lines of the table: for samples at z ~ N(0, I), and at codes from a normal fitted to the train codes.

    A column ending in `_se` is the standard error over test images, samples or pairs of the column before it.
    """
    line = {"model": name, "latents": latents, "codes": "N(0, I)"}
    prior = _decoded(model, _prior_draws(model, len(judge.near)))
    fitted = _decoded(model, fitted_draws(model, judge.data, len(judge.near)))
    return [
        {**line, **about_codes(model, judge), **about_samples(prior, judge), **about_paths(model, judge)},
        {**line, "codes": "N(m, S)", **about_samples(fitted, judge)},
    ]


def references(judge: Judge) -> list[Line]:
    """Two lines for comparison, of no model: train images, and paths on which pixels fade."""
    a, b = (judge.data.test[rows] for rows in _pairs(judge))
    fade = torch.stack([torch.lerp(a, b, t) for t in torch.linspace(0, 1, 11).tolist()], 1)
    return [
        {"model": "train images", **about_samples(judge.data.train[: len(judge.near)], judge)},
        {"model": "cross-fade of pixels", **path_numbers(fade, judge)},
    ]


# Codes


def about_codes(model: Model, judge: Judge) -> Line:
    """How test codes lie, by label and against the prior; and the reconstruction, in nats per data point.

    silhouette, neighbours (the accuracy of the ten nearest train codes) and nmi (of k-means, the mean over ten parts of
    the test split) are of posterior means. gap is KL(N(m, S) ‖ N(0, I)) in nats per latent, and codes_mmd the squared
    distance from draws of N(0, I), both for draws z ~ q(z|x); gap_means is the gap of posterior means.
    """
    train, test = judge.data.train, judge.data.test
    labels, means, draws = labels_of(test), encode(model, test).flatten(1), _draws(model, test)
    right = neighbors_accuracy(encode(model, train).flatten(1), labels_of(train), means, labels)
    parts = [kmeans(means[i::BLOCKS], labels[i::BLOCKS]).nmi for i in range(BLOCKS)]
    return {
        **_mean("reconstruction", elbo(model, test).reconstruction),
        **_mean("silhouette", silhouette(means, labels)),
        "neighbours": right,
        "neighbours_se": math.sqrt(right * (1 - right) / len(means)),
        **_mean("nmi", torch.tensor(parts)),
        **_mean("gap", prior_gap(draws) / draws.shape[1]),
        **_mean("gap_means", prior_gap(means) / draws.shape[1]),
        **_mmd("codes_mmd", draws[:POINTS], _prior_draws(model, len(draws[:POINTS])).flatten(1)),
    }


def _draws(model: Model, rows: Split) -> Tensor:
    """One draw z ~ q(z|x) per row, (N, D): the aggregate posterior."""
    return posterior_draws(model, rows, 1)[0].flatten(1)


def _prior_draws(model: Model, n: int) -> Tensor:
    with inference(model, derive(0, "prior")):
        drawn: Tensor = model.sample_latent(n).cpu()
        return drawn


def fitted_draws(model: Model, data: Dataset, n: int) -> Tensor:
    """n draws from the normal fitted to codes z ~ q(z|x) of the train split: what an autoencoder has instead of a
    prior."""
    z = _draws(model, data.train).double()
    with seeded(derive(0, "fitted")):
        return MultivariateNormal(z.mean(0), z.T.cov()).sample(torch.Size((n,))).float()


# Samples


def _decoded(model: Model, z: Tensor) -> Tensor:
    """The means of p(x|z), (N, *X)."""
    with inference(model, 0) as device:
        return torch.cat([model.decode(part.to(device)).mean.cpu() for part in z.split(500)])


def about_samples(images: Tensor, judge: Judge) -> Line:
    """Precision, recall, density and coverage of images (N, *X), and their MMD², all against as many test images.

    clear: the share of images that are clear digits, by `Judge.clear`.
    """
    found = judge.features(images)
    f = fidelity(judge.near, found)
    numbers = {
        k: v
        for name in ("precision", "recall", "density", "coverage")
        for k, v in _mean(name, getattr(f, name)).items()
    }
    return {**numbers, **_mmd("mmd", judge.near, found, judge.bandwidth), **_mean("clear", judge.clear(found))}


def _mmd(name: str, x: Tensor, y: Tensor, bandwidth: float | None = None) -> Row:
    value, error = mmd(x, y, bandwidth or median_distance(y))
    return {name: value, f"{name}_se": error}


# Paths


def _pairs(judge: Judge) -> tuple[Tensor, Tensor]:
    """Row numbers of test images of different digits."""
    return different_pairs(labels_of(judge.data.test), PAIRS)


def about_paths(model: Model, judge: Judge) -> Line:
    a, b = (encode(model, judge.data.test[rows]) for rows in _pairs(judge))
    return path_numbers(paths(model, a, b), judge)


def path_numbers(images: Tensor, judge: Judge) -> Line:
    """What lies on paths (N, T, *X) of images; log-densities in nats, less that of test images on average.

    path_ends: the log-density at both ends. path_mean and path_least: between the ends, on average and at the least
    likely place. path_dip: by how much that place is less likely than the less likely end. path_clear: the share of
    images between the ends that are clear digits. path_jump: the longest of the T - 1 steps from image to image over
    their mean length.
    """
    features = judge.features(images.flatten(0, 1))
    logs, clear = (f(features).reshape(images.shape[:2]) for f in (judge.log_density, judge.clear))
    steps = features.reshape(*images.shape[:2], -1).diff(dim=1).norm(dim=-1)
    inner, ends = logs[:, 1:-1], logs[:, [0, -1]]
    return {
        **_mean("path_ends", ends.mean(1) - judge.usual),
        **_mean("path_mean", inner.mean(1) - judge.usual),
        **_mean("path_least", inner.amin(1) - judge.usual),
        **_mean("path_dip", inner.amin(1) - ends.amin(1)),
        **_mean("path_clear", clear[:, 1:-1].mean(1)),
        **_mean("path_jump", steps.amax(1) / steps.mean(1)),
    }


def _mean(name: str, x: Tensor) -> Row:
    """The mean of (N,) and its standard error."""
    return {name: float(x.mean()), f"{name}_se": float(x.std()) / math.sqrt(len(x))}


# What is claimed of a VAE, and what is found

MORE, LESS = 1, -1  # is better
PATHS = {"path_dip": MORE, "path_clear": MORE, "path_jump": LESS}  # levels say more of blur than of continuity
SAMPLES = dict.fromkeys(("precision", "recall", "density", "coverage", "clear"), MORE) | {"mmd": LESS}
CLAIMS: dict[str, dict[str, int]] = {
    "clustered (codes by digit)": {"silhouette": MORE, "neighbours": MORE, "nmi": MORE},
    "structured (codes like the prior)": {"gap": LESS, "codes_mmd": LESS},
    "continuous (paths between digits)": PATHS,
    "generative (samples at z ~ N(0, I))": SAMPLES,
}


def findings(table: Sequence[Line]) -> list[str]:
    said = []
    for latents in dict.fromkeys(line["latents"] for line in table if "latents" in line):
        point, vae = (_line(table, name, latents, "N(0, I)") for name in KINDS)
        said.append(f"{latents} latents, reconstruction of test images: {_versus(point, vae, 'reconstruction')} nats.")
        said += [f"{latents} latents, {claim}: {_claimed(point, vae, signs)}" for claim, signs in CLAIMS.items()]
        said.append(f"{latents} latents, {_levels(point, vae)}")
        late = _line(table, "autoencoder", latents, "N(m, S)")
        said.append(
            f"{latents} latents, the VAE's samples at z ~ N(0, I) against the autoencoder's at codes from a normal "
            f"fitted to its train codes: {_claimed(late, vae, SAMPLES)}"
        )
    return said


def findings_over_seeds(table: Sequence[Line]) -> list[str]:
    """The claims again, by means over seeds and their standard errors, sd / √n."""
    said = []
    for latents in dict.fromkeys(line["latents"] for line in table):
        point, vae = (_of_means(_line(table, name, latents, "N(0, I)")) for name in KINDS)
        seeds = f"{latents} latents, means of {vae['seeds']} seeds ± their standard error"
        said += [f"{seeds}, {claim}: {_claimed(point, vae, signs)}" for claim, signs in CLAIMS.items()]
    return said


def _of_means(line: Line) -> Line:
    errors = {
        name.removesuffix("_sd") + "_se": v / math.sqrt(line["seeds"]) for name, v in line.items() if "_sd" in name
    }
    return {**line, **errors}


def _levels(point: Line, vae: Line) -> str:
    words = "; ".join(
        f"{m.removeprefix('path_')} {_versus(point, vae, m)}" for m in ("path_ends", "path_mean", "path_least")
    )
    return (
        "log-density along the paths less that of test images, in nats (above 0 where images are "
        f"blurred), VAE against autoencoder: {words}."
    )


def _line(table: Sequence[Line], model: str, latents: int, codes: str) -> Line:
    key = (model, latents, codes)
    return next(line for line in table if (line["model"], line.get("latents"), line.get("codes")) == key)


def _claimed(point: Line, vae: Line, signs: Mapping[str, int]) -> str:
    """The numbers, and how many of them favour the VAE, or the autoencoder, by more than two standard errors."""
    gains = {m: sign * (vae[m] - point[m]) for m, sign in signs.items()}
    errors = {m: math.hypot(vae[f"{m}_se"], point[f"{m}_se"]) for m in signs}
    for_vae, against = (sum(side * gain > 2 * errors[m] for m, gain in gains.items()) for side in (1, -1))
    verdict = "holds" if for_vae == len(signs) else "does not hold" if not for_vae else "holds in part"
    words = "; ".join(f"{m.replace('_', ' ')} {_versus(point, vae, m)}" for m in signs)
    count = f"the VAE better in {for_vae} of {len(signs)} measures, worse in {against}"
    return f"{verdict}, {count}. VAE against autoencoder: {words}."


def _versus(point: Line, vae: Line, measure: str) -> str:
    return " against ".join(f"{line[measure]:.3g} ± {line[f'{measure}_se']:.1g}" for line in (vae, point))


def _trained(curves: Mapping[tuple[str, int], Curve], models: Models, place: Path) -> str:
    """After how many samples, with which step; a warning where they differ, as the comparison then is not fair."""
    facts = {}
    for key in models:
        followed = read(curves[key], place)
        facts[key] = seen(curves[key], place), (followed.settings["step_size"] if followed else None) or STEP
    words = "; ".join(f"{name}, {d} latents: {n:,} at step {step}" for (name, d), (n, step) in facts.items())
    unequal = [d for d in LATENTS if len({fact for (_, latents), fact in facts.items() if latents == d}) > 1]
    warning = f" Unequal for {' and '.join(map(str, unequal))} latents: not a fair comparison yet." if unequal else ""
    return f"Training samples: {words}.{warning}"


def draw(models: Models, judge: Judge, out: Path) -> None:
    """The pictures: codes by digit, random samples, paths."""
    test = judge.data.test
    plane = {name: encode(m, test).flatten(1) for (name, latents), m in models.items() if latents == 2}
    if plane:
        save(scatters(plane, labels_of(test)), out / "codes")
    panels = {}
    for (name, latents), model in models.items():
        panels[latents, f"{name}, z ~ N(0, I)"] = _decoded(model, _prior_draws(model, 64))
        if name == "autoencoder":
            panels[latents, f"{name}, z ~ N(m, S)"] = _decoded(model, fitted_draws(model, judge.data, 64))
    save(samples_picture(panels), out / "samples")
    a, b = (test[rows[:6]] for rows in _pairs(judge))
    decoded = {key: paths(m, encode(m, a), encode(m, b)) for key, m in models.items()}
    save(paths_picture(a, b, decoded), out / "paths")


AUTOENCODER = Experiment(
    "autoencoder",
    "An autoencoder against a VAE",
    "The same networks (500 tanh units on either side), data (MNIST, grey levels), optimiser, "
    "step, weight prior and number "
    "of training samples; the autoencoder has a point for a code and no KL. Compared are "
    "clusters by digit, the distance of "
    "the codes from N(0, I), images on straight lines between the codes of two digits, and "
    "samples. N(m, S) is the normal "
    "fitted to the train codes, which makes a generative model of an autoencoder after the fact. "
    "Images are judged by 50 "
    "principal components of the train split, their density by a mixture of normals fitted to "
    "the validation split. Blurred "
    "images in the midst of the data have a high density and a high precision: recall, coverage "
    "and MMD² show that they are "
    "no fair sample. ± is one standard error; differences of less than two count for neither side.",
    CURVES,
    present,
    CURVES,
)

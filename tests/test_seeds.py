"""The same experiment by several seeds: their mean and standard deviation, of those that are alike."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import mean, stdev

import pytest

from aevb.reproduce import autoencoder, estimators, manifolds
from aevb.reproduce.curves import Curve, dataset, follow, seeded
from aevb.reproduce.experiment import Experiment
from aevb.reproduce.seeds import alike, spread

STEP = {"training__optimizer__lr": 0.05}
SIZES = {"latent": 2, "encoder__hidden": [30], "decoder__hidden": [30], **STEP}
SMALL = Curve("small", "aevb", "digits", lambda learner, train, test: {}, SIZES, steps=())
POINT = Curve("point", "autoencoder", "digits", autoencoder.reconstruction, SIZES, steps=())
SEEDS = (0, 1, 2)


def test_seeds_are_alike_that_saw_as_much(tmp_path: Path) -> None:
    for seed, samples in ((1, 300), (2, 200), (3, 300)):
        follow(seeded(SMALL, seed), tmp_path, samples)
    assert alike(SMALL, tmp_path) == []  # the curve itself is not trained
    follow(SMALL, tmp_path, 300)
    assert [c.name for c in alike(SMALL, tmp_path)] == ["small", "small-s1", "small-s3"]


def test_the_spread_is_the_mean_and_the_standard_deviation_of_numbers_alone() -> None:
    tables = [[{"of": 7, "name": "a", "x": x, "x_se": 0.1, "n": n}] for x, n in ((1.0, 3), (2.0, 5), (6.0, 4))]
    assert spread(tables, ("of", "name")) == [
        {"of": 7, "name": "a", "seeds": 3, "x": 3.0, "x_sd": 7.0**0.5, "n": 4.0, "n_sd": 1.0}
    ]
    assert spread(tables[:1], ("of",)) == []


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curves")
    for curve in (SMALL, POINT):
        for seed in SEEDS:
            follow(seeded(curve, seed), folder, 4_000)
    return folder


def trains(patch: pytest.MonkeyPatch, seed: int) -> None:
    """Experiments on digits, whose curves have this seed for their own."""
    small, point = (seeded(curve, seed) for curve in (SMALL, POINT))
    for name, value in {"EARLY": 2000, "BATCHES": 3, "BATCH": 20, "DRAWS": 5, "CURVE": small}.items():
        patch.setattr(estimators, name, value)
    for name in ("mnist", "frey"):
        patch.setattr(manifolds, name, lambda latents: small)
    patch.setattr(autoencoder, "KINDS", {"autoencoder": lambda latents: point, "VAE": lambda latents: small})
    for module in (manifolds, autoencoder):
        patch.setattr(module, "LATENTS", (2,))
        patch.setattr(module, "dataset", lambda source, values: dataset("digits", "grey"))


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


MEASURES = [
    (manifolds.FIGURE5, ("clear",)),
    (estimators.ESTIMATORS, ("encoder_ratio", "bound_A")),
    (autoencoder.AUTOENCODER, ("gap", "mmd", "path_dip")),
]


@pytest.mark.parametrize(("experiment", "measures"), MEASURES, ids=["figure-5", "estimators", "autoencoder"])
def test_the_table_of_seeds_is_that_of_each_seed_alone(
    experiment: Experiment, measures: tuple[str, ...], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = autoencoder.Judge.of
    monkeypatch.setattr(autoencoder.Judge, "of", lambda data: judged(data, components=3))
    trains(monkeypatch, 0)
    said = experiment.present(place, tmp_path / "all")
    assert any("3 seeds" in sentence for sentence in said)
    each = []
    for seed in SEEDS:
        trains(monkeypatch, seed)
        experiment.present(place, tmp_path / f"{seed}")  # of the seeds 1 and 2 there are no further ones
        each.append(table(tmp_path / f"{seed}" / f"{experiment.name}.csv"))
    found = table(tmp_path / "all" / "seeds.csv")
    assert found
    assert not (tmp_path / "1" / "seeds.csv").exists()
    for i, line in enumerate(found):
        assert float(line["seeds"]) == 3
        for measure in (m for m in measures if line[m]):
            numbers = [float(rows[i][measure]) for rows in each]
            rounding = 1e-3 * max(map(abs, numbers))  # four digits
            assert float(line[measure]) == pytest.approx(mean(numbers), abs=rounding)
            assert float(line[f"{measure}_sd"]) == pytest.approx(stdev(numbers), abs=rounding)


def test_the_planes_of_seeds_are_measured(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trains(monkeypatch, 0)
    said = manifolds.FIGURE4.present(place, tmp_path)
    planes = [manifolds.on_plane(model, 20) for model in manifolds.models_of(SMALL, place)]
    clear = [manifolds.digits(plane, dataset("digits", "grey").train)["clear"] for plane in planes]
    row = table(tmp_path / "seeds.csv")[0]
    assert float(row["clear"]) == pytest.approx(mean(clear), rel=1e-3)
    assert float(row["clear_sd"]) == pytest.approx(stdev(clear), rel=1e-3)
    assert f"{float(row['clear']):.0%} ± {float(row['clear_sd']):.0%} clear digits" in said[-2]

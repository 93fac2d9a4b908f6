"""The estimators: the checks of scikit-learn, exact oracles, frames that come back as they were."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from tabular import mixed_table

import aevb
from aevb.data.weights import Weighted
from aevb.errors import AevbWarning, DataError

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
Array = NDArray[np.float64]
DRAWN = {
    "check_sample_weight_equivalence_on_dense_data": "weights are rates at which rows are drawn: equal only on average",
}
EXPECTED = {"VAEEmbedding": DRAWN, "VAEOutlierDetector": DRAWN}  # what the others give is equal in this check
SHORT: dict[str, Any] = {"samples": 300, "hidden": (8,), "importance_samples": 20}  # the checks ask for no quality
ALL = [
    estimator(**SHORT)
    for estimator in (aevb.VAEEmbedding, aevb.VAEImputer, aevb.VAEOutlierDetector, aevb.VAESynthesizer)
]


def expected(estimator: Any) -> dict[str, str]:
    return EXPECTED.get(type(estimator).__name__, {})


@parametrize_with_checks(ALL, expected_failed_checks=expected)
def test_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


# Against exact answers: x = W z + b + σ ε


LOADINGS, MEAN, NOISE = np.array([1.0, 2.0, -1.5, 0.5]), np.array([5.0, 0.0, 100.0, -3.0]), 0.5
COVARIANCE = np.outer(LOADINGS, LOADINGS) + NOISE**2 * np.eye(4)
QUICK: dict[str, Any] = {"samples": 2000, "hidden": (16,), "random_state": 0}  # where no number depends on quality


def rows(n: int, seed: int) -> Array:
    g = np.random.default_rng(seed)
    return MEAN + np.outer(g.normal(size=n), LOADINGS) + NOISE * g.normal(size=(n, 4))


def holey(x: Array, seed: int = 3) -> Array:
    """Two of the four cells of each row hidden."""
    order = np.random.default_rng(seed).random(x.shape).argsort(1)
    return np.where(order < 2, np.nan, x)


def conditional_mean(row: Array) -> Array:
    seen = ~np.isnan(row)
    gain = COVARIANCE[:, seen] @ np.linalg.inv(COVARIANCE[np.ix_(seen, seen)])
    return np.where(seen, row, MEAN + gain @ (row[seen] - MEAN[seen]))


@pytest.fixture(scope="module")
def embedding() -> aevb.VAEEmbedding:
    return aevb.VAEEmbedding(random_state=0).fit(rows(600, 0))


def test_scores_are_the_log_density_of_the_data_as_given(embedding: aevb.VAEEmbedding) -> None:
    """In their own units: center and scale of the columns count."""
    x = rows(300, 1)
    error = embedding.score_samples(x) - multivariate_normal(MEAN, COVARIANCE).logpdf(x)
    assert abs(error.mean()) < 0.25  # nats
    assert np.abs(error).mean() < 0.4
    assert embedding.score(x) == pytest.approx(embedding.score_samples(x).mean(), abs=1e-12)


def test_scores_of_rows_with_holes_are_those_of_what_is_there(embedding: aevb.VAEEmbedding) -> None:
    x = rows(300, 1)
    x[:, [1, 3]] = np.nan
    exact = multivariate_normal(MEAN[[0, 2]], COVARIANCE[np.ix_([0, 2], [0, 2])]).logpdf(x[:, [0, 2]])
    assert abs((embedding.score_samples(x) - exact).mean()) < 0.2


def test_scores_depend_on_the_seed_by_their_error_alone(embedding: aevb.VAEEmbedding) -> None:
    """A row's score is the same alone, among others, and in another order."""
    x = rows(50, 1)
    whole = embedding.score_samples(x)
    assert embedding.score_samples(x[7:8]) == pytest.approx(whole[7:8], rel=1e-6)
    assert embedding.score_samples(x[::-1])[::-1] == pytest.approx(whole, rel=1e-6)
    assert len(np.unique(whole)) == 50


def test_inverse_transform_undoes_transform_up_to_the_noise(embedding: aevb.VAEEmbedding) -> None:
    x = rows(300, 1)
    back = embedding.inverse_transform(embedding.transform(x))
    assert back.shape == x.shape
    assert np.sqrt(((back - x) ** 2).mean()) < 1.2 * NOISE  # the mean alone: 1.44


def test_samples_have_the_moments_of_the_rows(embedding: aevb.VAEEmbedding) -> None:
    new = embedding.sample(4000)
    assert new.mean(0) == pytest.approx(MEAN, abs=0.25)
    assert np.cov(new.T) == pytest.approx(COVARIANCE, abs=0.6)
    assert (new == embedding.sample(4000)).all()


def test_imputations_are_near_the_exact_conditional_mean() -> None:
    x = rows(600, 0)
    imputer = aevb.VAEImputer(random_state=0).fit(holey(x))
    new = rows(400, 1)
    gaps = holey(new, 4)
    full, hidden = imputer.transform(gaps), np.isnan(gaps)
    exact = np.stack([conditional_mean(row) for row in gaps])
    best, ours = (np.sqrt(((guess - new)[hidden] ** 2).mean()) for guess in (exact, full))
    trivial = np.sqrt(((np.nanmean(holey(x), 0) - new)[hidden] ** 2).mean())
    assert best < ours < best + 0.2 * (trivial - best)
    assert (full[~hidden] == new[~hidden]).all()


def test_many_imputations_spread_as_the_conditional_does() -> None:
    x = rows(600, 0)
    imputer = aevb.VAEImputer(random_state=0).fit(x)
    gaps = rows(300, 1)
    gaps[:, 1] = np.nan
    draws = np.stack(imputer.transform_many(gaps, 20))[..., 1]
    seen = [0, 2, 3]
    rest = COVARIANCE[1, seen] @ np.linalg.inv(COVARIANCE[np.ix_(seen, seen)]) @ COVARIANCE[seen, 1]
    assert draws.std(0).mean() == pytest.approx(np.sqrt(COVARIANCE[1, 1] - rest), rel=0.2)


def test_draws_fill_holes_where_the_posterior_is_asked_for() -> None:
    gaps = holey(rows(60, 0))
    imputer = aevb.VAEImputer(sample_posterior=True, **QUICK).fit(gaps)
    assert (imputer.transform(gaps) == imputer.transform_many(gaps, 1)[0]).all()
    assert (imputer.transform(gaps) != imputer.set_params(sample_posterior=False).transform(gaps)).any()


def test_outliers_are_found_and_their_share_is_the_contamination() -> None:
    x = rows(400, 0)
    x[:20] = MEAN + 8 * (x[:20] - MEAN)[:, ::-1]  # against the correlations
    detector = aevb.VAEOutlierDetector(contamination=0.05, random_state=0)
    labels = detector.fit_predict(x)
    assert (labels == -1).sum() == 20
    assert (labels[:20] == -1).mean() >= 0.8
    new = rows(50, 1)
    assert detector.decision_function(new) == pytest.approx(detector.score_samples(new) - detector.offset_)
    assert detector.score_samples(new).mean() > detector.offset_


def test_automatic_contamination_marks_few_of_clean_rows() -> None:
    x = rows(400, 0)
    assert (aevb.VAEOutlierDetector(random_state=0).fit_predict(x) == -1).mean() < 0.1


@pytest.mark.parametrize("share", [0.0, 0.6, "some", None])
def test_a_contamination_that_is_none_is_refused(share: Any) -> None:
    with pytest.raises(ValueError, match=r"contamination is a share above 0 and up to 0\.5"):
        aevb.VAEOutlierDetector(contamination=share).fit(rows(30, 0))


# Parameters


def test_equal_seeds_give_equal_estimators() -> None:
    x = rows(60, 0)
    scores = [aevb.VAEEmbedding(**{**QUICK, "random_state": seed}).fit(x).score_samples(x) for seed in (1, 1, 2)]
    assert (scores[0] == scores[1]).all()
    assert (scores[0] != scores[2]).any()


def test_pickles_are_plain_data_and_score_bit_for_bit(embedding: aevb.VAEEmbedding) -> None:
    x = rows(40, 1)
    data = pickle.dumps(embedding)
    assert b"aevb.models" not in data
    assert b"torch" not in data
    back = pickle.loads(data)
    assert (back.score_samples(x) == embedding.score_samples(x)).all()
    assert (back.transform(x) == embedding.transform(x)).all()
    assert (back.inverse_transform(back.transform(x)) == embedding.inverse_transform(embedding.transform(x))).all()


def test_parameters_reach_the_model() -> None:
    e = aevb.VAEEmbedding(3, hidden=(8, 9), batch=10, samples=55, learning_rate=0.01, random_state=0)
    e.fit(rows(60, 0))
    assert (e.n_iter_, e.transform(rows(2, 1)).shape) == (6, (2, 3))
    sizes = {layer.out_features for layer in e.model_.modules() if isinstance(layer, torch.nn.Linear)}
    assert {8, 9} < sizes
    assert e.recipe_.settings["training"]["optimizer"]["lr"] == 0.01
    kinds = aevb.VAEEmbedding(columns={"x1": "positive"}, **QUICK).fit(np.exp(rows(60, 0) / 10)).schema_
    assert [c.kind for c in kinds.columns][1] == "positive"


def test_grid_search_and_pipelines_take_them() -> None:
    x = rows(120, 0)
    search = GridSearchCV(aevb.VAEEmbedding(samples=6000, random_state=0), {"latent": [1, 2]}, cv=2).fit(x)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    pipe = make_pipeline(StandardScaler(), clone(search.best_estimator_)).fit(x)
    assert pipe.transform(x).shape == (120, search.best_params_["latent"])


def test_verbose_prints_progress(capsys: pytest.CaptureFixture[str]) -> None:
    aevb.VAEEmbedding(**QUICK, verbose=1).fit(rows(60, 0))
    assert "[VAEEmbedding] 2,010 of 2,010 training samples, loss" in capsys.readouterr().out


def test_what_is_not_fitted_says_so() -> None:
    with pytest.raises(NotFittedError):
        aevb.VAESynthesizer().sample(3)
    assert not hasattr(aevb.VAEImputer(), "schema_")


def test_an_array_of_running_numbers_is_no_id() -> None:
    x = np.stack([np.arange(60.0), np.arange(60.0) ** 2], 1)
    assert [c.kind for c in aevb.VAEEmbedding(**QUICK).fit(x).schema_.columns] == ["real", "count"]


# Weights


def test_rows_are_drawn_in_proportion_to_their_weights() -> None:
    data = Weighted(torch.arange(4.0)[:, None], torch.tensor([1.0, 0.0, 3.0, 4.0]).cumsum(0))
    torch.manual_seed(0)
    drawn = data[torch.zeros(80_000, dtype=torch.int64)].x.flatten().long()
    assert (torch.bincount(drawn, minlength=4) / 80_000).tolist() == pytest.approx([1 / 8, 0, 3 / 8, 1 / 2], abs=0.01)


def test_weights_move_the_density() -> None:
    x = np.concatenate([rows(150, 0), rows(150, 1) + 6])
    weights = np.repeat([1.0, 9.0], 150)
    e = aevb.VAEEmbedding(random_state=0)
    plain, weighted = (clone(e).fit(x, sample_weight=w).sample(3000)[:, 1].mean() for w in (None, weights))
    assert plain == pytest.approx(3, abs=0.8)
    assert weighted == pytest.approx(5.4, abs=0.8)


# Frames


def mixed(n: int = 120, seed: int = 0) -> Any:
    g = np.random.default_rng(seed)
    z = g.normal(size=n)
    frame = pd.DataFrame(
        {
            "size": 3 + z + 0.2 * g.normal(size=n),
            "many": pd.array(g.poisson(np.exp(1 + 0.5 * z)), "Int64"),
            "sort": pd.Categorical(np.where(z > 0.3, "up", np.where(z < -0.3, "down", "mid")), ["down", "mid", "up"]),
            "sure": z + 0.1 * g.normal(size=n) > 0,
            "when": pd.Timestamp("2024-01-01", tz="Europe/Berlin") + pd.to_timedelta(np.round(40 + 10 * z), "D"),
            "note": [f"a remark of some words about row {i} by its keeper" for i in range(n)],
            "same": "x",
        },
        index=pd.Index(np.arange(n) * 2 + 5, name="key"),
    )
    return frame


def punched(frame: Any) -> Any:
    out = frame.copy()
    out["sure"] = out["sure"].astype("boolean")
    for place, name in enumerate(("size", "many", "sort", "sure", "when")):
        out.iloc[place::7, out.columns.get_loc(name)] = None
    return out


def test_imputed_frames_are_as_they_were_without_holes() -> None:
    frame = punched(mixed())
    full = aevb.VAEImputer(random_state=0).fit_transform(frame)
    assert list(full.columns) == list(frame.columns)
    assert (full.dtypes == frame.dtypes).all()
    assert full.index.equals(frame.index)
    assert not full.isna().any().any()
    for name in frame:
        there = frame[name].notna()
        assert (full.loc[there, name] == frame.loc[there, name]).all()
    holes = frame["sort"].isna()
    assert (full.loc[holes, "sort"] == mixed().loc[holes, "sort"]).mean() > 0.6  # by chance 0.4


def test_frames_of_polars_come_back_as_such() -> None:
    frame = pl.DataFrame({"a": [1.5, None, 3.0, 2.5] * 10, "b": ["u", "v", None, "v"] * 10})
    full = aevb.VAEImputer(**QUICK).fit_transform(frame)
    assert isinstance(full, pl.DataFrame)
    assert full.schema == frame.schema
    assert full.null_count().row(0) == (0, 0)
    new = aevb.VAESynthesizer(**QUICK).fit(frame).sample(5)
    assert new.schema == frame.schema
    assert len(new) == 5


def test_new_rows_have_the_types_of_the_frame() -> None:
    frame = mixed()
    new = aevb.VAESynthesizer(**QUICK).fit(frame).sample(50)
    assert list(new.columns) == list(frame.columns)
    same = [name for name in frame if name != "note"]
    assert (new.dtypes[same] == frame.dtypes[same]).all()
    assert new["note"].isna().all()
    assert set(new["same"]) == {"x"}
    assert set(new["sort"]) <= {"down", "mid", "up"}
    assert (new["many"] >= 0).all()


def test_new_rows_hold_what_is_given() -> None:
    model = aevb.VAESynthesizer(random_state=0).fit(mixed(300))
    new = model.sample(200, given={"sort": "up", "size": (None, 5.0)})
    assert (new["sort"] == "up").all()
    assert (new["size"] <= 5).all()
    assert new["sure"].mean() > 0.8  # of all rows: a half
    with pytest.raises(DataError, match=r"column 'sort' has no value 'upp'\. Did you mean 'up'"):
        model.sample(1, given={"sort": "upp"})
    with pytest.raises(DataError, match=r"no column 'sot'\. Did you mean 'sort'"):
        model.sample(1, given={"sot": "up"})


def test_pickles_keep_the_types_of_the_frame() -> None:
    model = aevb.VAESynthesizer(**QUICK).fit(mixed())
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(model)).sample(20), model.sample(20))


def test_codes_of_a_frame_become_a_frame_if_asked() -> None:
    frame = mixed()
    e = aevb.VAEEmbedding(2, **QUICK).set_output(transform="pandas")
    z = e.fit_transform(frame)
    assert list(z.columns) == ["vaeembedding0", "vaeembedding1"]
    assert z.index.equals(frame.index)
    back = e.inverse_transform(z)
    assert list(back.columns) == list(frame.columns)
    assert (back["sort"].dtype, back["when"].dtype) == (frame["sort"].dtype, frame["when"].dtype)


def test_a_level_that_was_not_there_is_said_and_is_improbable() -> None:
    frame = mixed()
    frame["sort"] = frame["sort"].astype(str)
    e = aevb.VAEEmbedding(**QUICK).fit(frame)
    new = frame.head(3).copy()
    usual = e.score_samples(new)
    new.loc[new.index[1], "sort"] = "sideways"
    with pytest.warns(AevbWarning, match="sideways did not occur in training"):
        scores = e.score_samples(new)
    assert scores[[0, 2]] == pytest.approx(usual[[0, 2]], rel=1e-6)
    assert scores[1] < usual[1] - 2


def test_bad_columns_are_named() -> None:
    frame = mixed()
    frame.loc[frame.index[3], "size"] = np.inf
    with pytest.raises(DataError, match="column 'size' holds an infinite number"):
        aevb.VAEImputer().fit(frame)


def penguins() -> Path:
    return Path(os.environ.get("AEVB_DATA", ".")) / "tables" / "penguins.csv"


@pytest.mark.skipif(not penguins().is_file(), reason="the table is not here")
def test_penguins_are_filled() -> None:
    frame = pd.read_csv(penguins())
    full = aevb.VAEImputer(**QUICK).fit_transform(frame)
    assert (full.dtypes == frame.dtypes).all()
    assert not full.isna().any().any()
    assert full.notna().all().all()
    there = frame.notna()
    assert full.where(there).equals(frame.where(there))


# In memory


def test_a_training_in_memory_gives_the_model_that_a_run_has(tmp_path: Path) -> None:
    data, recipe = mixed_table(), aevb.Recipe.load("table").replace(training__samples=1000, latent=2)
    trained = aevb.fit_in_memory(recipe, data)
    run = aevb.fit(recipe, data, tmp_path / "run")
    for ours, theirs in zip(trained.model.parameters(), run.model().parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert trained.end.best == run.meta["best_step"]
    assert not trained.model.training


def contaminated() -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """340 rows of a normal and 60 outliers; 300 new rows of the normal, and their true log-density."""
    rng, covariance = np.random.default_rng(0), np.array([[1, 0.8, 0], [0.8, 1, 0], [0, 0, 1.0]])
    usual = rng.multivariate_normal(np.zeros(3), covariance, 340)
    rows = np.concatenate([usual, rng.normal(5, 0.5, (60, 3))])
    new = rng.multivariate_normal(np.zeros(3), covariance, 300)
    return rows, new, multivariate_normal(np.zeros(3), covariance).logpdf(new)


def test_a_trimmed_fit_finds_the_density_of_the_usual_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """KL(true || fitted) is less than a tenth of a nat although 15 % are outliers; half a nat where none is left
    out."""
    rows, new, true = contaminated()

    def lost() -> float:
        return float((true - aevb.VAEOutlierDetector(random_state=0).fit(rows).score_samples(new)).mean())

    assert -0.05 < lost() < 0.1
    monkeypatch.setattr("aevb.apps.estimators.outliers.TRIM", 0.0)
    assert lost() > 0.5


def test_a_fitted_detector_is_a_normal_whose_density_is_known() -> None:
    """log p(x) of the linear decoder is log N(x; b, W Wᵀ + S), up to the error of importance sampling."""
    rows, new, _ = contaminated()
    detector = aevb.VAEOutlierDetector(random_state=0, importance_samples=1000).fit(rows)
    scale = np.array([column.scale for column in detector.schema_.model])
    center = np.array([column.center for column in detector.schema_.model])
    with torch.no_grad():
        mean = detector.model_.decode(torch.zeros(1, 3)).mean[0].double().numpy()
        axes = detector.model_.decode(torch.eye(3)).mean.double().numpy() - mean
        noise = detector.model_.decode(torch.zeros(1, 3)).variance[0].double().numpy()
    assert (noise >= 0.2**2).all()
    exact = multivariate_normal(mean, axes.T @ axes + np.diag(noise)).logpdf((new - center) / scale)
    difference = detector.score_samples(new) - (exact - np.log(scale).sum())
    assert abs(difference.mean()) < 0.01
    assert np.abs(difference).max() < 0.5


def test_a_tight_cluster_of_outliers_is_odder_than_usual_rows() -> None:
    """A tenth of the rows are a tight cluster, to which a density of free scales would give its peak."""
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(size=(270, 3)), 4 + 0.1 * rng.normal(size=(30, 3))])
    scores = aevb.VAEOutlierDetector(random_state=0).fit(rows).score_samples(rows)
    assert roc_auc_score(np.arange(300) >= 270, -scores) > 0.99


def test_estimators_have_a_module_of_their_own() -> None:
    import aevb.estimators

    assert all(getattr(aevb.estimators, name) is getattr(aevb, name) for name in aevb.estimators.__all__)
    assert len(aevb.estimators.__all__) == 4

"""Runs in the peers' environment: `python worker.py` reads names of folders from standard input, one a line.

It reads in.npz and options.json of each folder, writes out.npz, and answers with a line: empty, or what went wrong. It
imports nothing of this project. Each function below is a task: arrays and options in, arrays out. What a task needs is
imported inside it, so that one broken peer does not stop the others.
"""

# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, Any]
spent: list[float] = []


@contextlib.contextmanager
def clock() -> Iterator[None]:
    """Processor time of what a task is measured by: without its imports."""
    start = time.process_time()
    yield
    spent.append(time.process_time() - start)


def seeded(seed: int) -> None:
    import torch

    np.random.seed(seed)  # noqa: NPY002 (the peers draw from the global generator)
    torch.manual_seed(seed)


def pyod(arrays: Arrays, detector: str, seed: int) -> Arrays:
    """Scores of test rows by a detector with its defaults."""
    from importlib import import_module

    seeded(seed)
    make = getattr(import_module(f"pyod.models.{detector.lower()}"), detector)
    # with more components than the rows span, PyOD's PCA divides by a variance of zero
    options = {"n_components": int(np.linalg.matrix_rank(arrays["train"]))} if detector == "PCA" else {}
    with clock():
        scores = make(**options).fit(arrays["train"]).decision_function(arrays["test"])
    return {"scores": scores}


def frame_of_codes(arrays: Arrays) -> Any:
    """Codes (N, F) as a frame whose categories have the dtype category."""
    import pandas as pd

    frame = pd.DataFrame(arrays["codes"], columns=[f"x{j}" for j in range(arrays["codes"].shape[1])])
    for name, category in zip(frame, arrays["is_category"], strict=True):
        if category:
            frame[name] = frame[name].astype("Int64").astype("category")
    return frame


def back(frame: Any) -> Any:
    return np.stack([frame[name].astype("float64").to_numpy() for name in frame], axis=1)


def miceforest(arrays: Arrays, draws: int, seed: int) -> Arrays:
    """Completed tables (draws, N, F) of codes, by miceforest with its defaults and five iterations."""
    from miceforest import ImputationKernel

    frame = frame_of_codes(arrays)
    with clock():
        kernel = ImputationKernel(frame, num_datasets=draws, random_state=seed)
        kernel.mice(5)
        filled = [kernel.complete_data(dataset=i) for i in range(draws)]
    return {"draws": np.stack([back(one) for one in filled])}


def missforest(arrays: Arrays, seed: int) -> Arrays:
    """A completed table (N, F) of codes by the algorithm of MissForest (Stekhoven and Buehlmann 2012).

    Ten rounds at most; ended, with the round before, when the change of numbers and of categories grows. The package
    of this name is not used: it fits its forests to the cells that it has filled, too.
    """
    holes, is_category = arrays["codes"], arrays["is_category"].astype(bool)
    with clock():
        filled, last = guess(holes, is_category), np.array([np.inf, np.inf])
        for _ in range(10):
            before, filled = filled, forests(filled, holes, is_category, seed)
            change = changes(before, filled, np.isnan(holes), is_category)
            if (change >= last).all():
                return {"filled": before}
            last = change
    return {"filled": filled}


def guess(holes: Any, is_category: Any) -> Any:
    """Means of numbers and modes of categories."""
    filled = holes.copy()
    for j, category in enumerate(is_category):
        known = holes[~np.isnan(holes[:, j]), j]
        filled[np.isnan(holes[:, j]), j] = np.bincount(known.astype(int)).argmax() if category else known.mean()
    return filled


def forests(filled: Any, holes: Any, is_category: Any, seed: int) -> Any:
    """One round: each column with holes from all others, those with few holes first."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    filled, missing = filled.copy(), np.isnan(holes)
    for j in np.argsort(missing.sum(axis=0), kind="stable"):
        if not missing[:, j].any():
            continue
        make = RandomForestClassifier if is_category[j] else RandomForestRegressor
        others, rows = np.delete(filled, j, axis=1), missing[:, j]
        forest = make(max_features="sqrt", random_state=seed).fit(others[~rows], filled[~rows, j])
        filled[rows, j] = forest.predict(others[rows])
    return filled


def changes(before: Any, after: Any, missing: Any, is_category: Any) -> Any:
    """How much a round changed: of numbers, and of categories; 0 where there is none of them."""
    numbers, cells = ((after - before) ** 2)[:, ~is_category].sum(), (after**2)[:, ~is_category].sum()
    changed, holes = (after != before)[:, is_category].sum(), missing[:, is_category].sum()
    return np.array([numbers / max(cells, 1e-300), changed / max(holes, 1)])


def frame_of(arrays: Arrays, prefix: str) -> Any:
    """The columns `prefix:name` as a frame; text has the dtype object."""
    import pandas as pd

    names = [name for name in arrays if name.startswith(prefix)]
    text = {name for name in names if arrays[name].dtype.kind == "U"}
    return pd.DataFrame({n[len(prefix) :]: arrays[n].astype(object) if n in text else arrays[n] for n in names})


def tvae(arrays: Arrays, n: int, categories: list[str], seed: int) -> Arrays:
    """n rows of the package ctgan's TVAE with its defaults."""
    from ctgan import TVAE

    seeded(seed)
    train = frame_of(arrays, "train:")
    with clock():
        model = TVAE()
        model.fit(train, categories)
        made = model.sample(n)
    return {name: made[name].to_numpy().astype(arrays[f"train:{name}"].dtype) for name in made}


def judge(arrays: Arrays, categories: list[str], target: str, seed: int) -> Arrays:
    """How synthetic rows compare with the training rows, and what a model trained on them says of test rows."""
    train, test, made = (frame_of(arrays, prefix) for prefix in ("train:", "test:", "made:"))
    seeded(seed)
    kinds = {name: {"sdtype": "categorical" if name in categories else "numerical"} for name in train}
    numbers = {"c2st": detection(train, made)}
    numbers |= quality(train, made, {"columns": kinds})
    numbers["mle"] = efficacy(made, test, categories, target)
    return {name: np.array(number) for name, number in numbers.items()}


def detection(train: Any, made: Any) -> float:
    """sdmetrics' detection score, 0 to 1, with XGBoost as the classifier."""
    from sdmetrics.single_table.detection.sklearn import ScikitLearnClassifierDetectionMetric
    from xgboost import XGBClassifier

    class Detection(ScikitLearnClassifierDetectionMetric):  # type: ignore[misc]
        @staticmethod
        def _get_classifier() -> Any:
            return XGBClassifier(eval_metric="logloss", enable_categorical=True, random_state=0)

    return float(Detection.compute(real_data=train, synthetic_data=made))


def quality(train: Any, made: Any, metadata: dict[str, Any]) -> dict[str, float]:
    """sdmetrics' quality of single columns and of pairs, 0 to 1."""
    from sdmetrics.reports.single_table import QualityReport

    report = QualityReport()
    with contextlib.redirect_stdout(io.StringIO()):
        report.generate(train, made, metadata, verbose=False)
    shape, pairs = report.get_properties()["Score"]
    return {"shape": float(shape), "pairs": float(pairs)}


def efficacy(made: Any, test: Any, categories: list[str], target: str) -> float:
    """AUROC on real test rows of XGBoost trained on synthetic rows; of a number, the RMSE of its logarithm."""
    import pandas as pd
    from sklearn.metrics import roc_auc_score, root_mean_squared_error
    from xgboost import XGBClassifier, XGBRegressor

    both = pd.concat([made, test], ignore_index=True)
    inputs = both.drop(columns=target)
    for name in set(categories) - {target}:
        inputs[name] = inputs[name].astype(str).astype("category")
    x, x_test = inputs.iloc[: len(made)], inputs.iloc[len(made) :]
    if target not in categories:
        y = np.log(both[target].astype(float).clip(1, 20_000)).to_numpy()  # as the published rows do
        model = XGBRegressor(enable_categorical=True, random_state=0).fit(x, y[: len(made)])
        return float(root_mean_squared_error(y[len(made) :], model.predict(x_test)))
    codes = both[target].astype(str).astype("category").cat.codes.to_numpy()
    if len(set(codes[: len(made)])) < 2:
        return 0.5  # one class alone was made: nothing to learn
    model = XGBClassifier(enable_categorical=True, random_state=0).fit(x, codes[: len(made)])
    return float(roc_auc_score(codes[len(made) :], model.predict_proba(x_test)[:, 1]))


def h5ad(arrays: Arrays, path: str, labels: str) -> Arrays:
    """Counts (N, D) and labels (N,) of an .h5ad file."""
    import h5py

    with h5py.File(path) as file:
        return {"counts": file["X"][()], "labels": file["obs"][labels].asstr()[()].astype(str)}


TASKS: dict[str, Callable[..., Arrays]] = {
    task.__name__: task for task in (pyod, miceforest, missforest, tvae, judge, h5ad)
}


def run(folder: Path) -> None:
    options = json.loads((folder / "options.json").read_text())
    with np.load(folder / "in.npz", allow_pickle=False) as file:
        arrays = dict(file)
    spent.clear()
    result = TASKS[options.pop("task")](arrays, **options)
    np.savez(folder / "out.npz", **result, seconds=np.array(sum(spent)))


def main() -> None:
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        answer = ""
        try:
            with contextlib.redirect_stdout(sys.stderr):
                run(Path(line.strip()))
        except Exception as error:
            answer = " ".join(f"{type(error).__name__}: {error}".split())
        print(answer, flush=True)


if __name__ == "__main__":
    main()

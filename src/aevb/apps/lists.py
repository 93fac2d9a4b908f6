"""The verbs that list: runs, recipes, data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from aevb.apps import show
from aevb.apps.app import Crop, DataDir, Exposure, Json, Kinds, KindsFile, Side, verb


@verb("aevb runs", "aevb runs --json")
def runs(json_: Json = False) -> None:
    """List the runs, the oldest first."""
    from aevb.evaluation.estimate import Estimate
    from aevb.runs.index import summaries

    def number(mean: float | None, se: float | None) -> str:
        return Estimate(float("nan") if mean is None else mean, float("nan") if se is None else se).text()

    found = summaries()
    if json_:
        show.print_json(found)
    elif not found:
        show.out.print("No runs yet. Make one: aevb train digits")
    else:
        columns = [c for c in found[0] if not c.endswith(" se")]
        cells = [[number(r[c], r[f"{c} se"]) if f"{c} se" in r else cell(r[c]) for c in columns] for r in found]
        show.out.print(show.table("", columns, cells))


@verb("aevb recipes", "aevb recipes beta-vae", "aevb recipes beta-vae > mine.toml")
def recipes(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Print this recipe.")] = None,
    json_: Json = False,
) -> None:
    """List the recipes, or print one under its equation: save it, change it, give it to train --recipe FILE.toml."""
    from aevb.runs.index import recipe_details, recipe_summaries, recipe_text

    if name is not None:
        show.print_json(recipe_details(name)) if json_ else show.text(recipe_text(name))
    elif json_:
        show.print_json(recipe_summaries())
    else:
        show.out.print(show.table("", ("recipe", "what it is", "paper"), grouped()))


CODES = ("vq", "fsq", "one-hot", "concrete")
WEIGHTS = ("beta", "capacity", "free_bits")  # of the KL, among the keys of an ELBO


def kind_of(settings: Mapping[str, Any]) -> str:
    """What a recipe differs in from a plain VAE; one word for several answers the first of them."""
    objective, terms = settings["objective"], settings["terms"]
    posterior, prior = (settings.get(axis, {}).get("type", "") for axis in ("posterior", "prior"))
    kinds = {
        "labels": bool(settings.get("context")),
        "hierarchies": "ladder" in settings or bool(settings["chain"]),
        "discrete codes": posterior in CODES,
        "autoencoders": posterior == "delta",
        "posteriors": posterior != "normal",
        "priors": prior != "standard-normal",
        "bounds and ways to learn": objective["type"] != "elbo" or objective.get("estimator") == "A",
        "weights of the KL, regularisers": bool(terms) or any(key in objective for key in WEIGHTS),
    }
    return next((kind for kind, fits in kinds.items() if fits), PLAIN)


PLAIN = "data, likelihoods, networks"


def grouped() -> list[list[str]]:
    """The recipes by kind, each kind under a line of its own; the plain ones first."""
    from aevb.runs.recipe import Recipe, recipe_names

    kinds: dict[str, list[list[str]]] = {PLAIN: []}
    for name in recipe_names():
        settings = Recipe.load(name).settings
        kinds.setdefault(kind_of(settings), []).append([name, settings["title"], settings["paper"]])
    lines: list[list[str]] = []
    for kind, rows in kinds.items():
        lines += [["", "", ""]] * bool(lines) + [[kind.upper(), "", ""], *rows]
    return lines


@verb("aevb data", "aevb data mnist", "aevb data table.csv --column age=count", "aevb data pictures/")
def data(
    source: Annotated[str | None, typer.Argument(metavar="SOURCE", help="Load and describe these data.")] = None,
    data_dir: DataDir = None,
    size: Side = None,
    crop: Crop = None,
    column: Kinds = None,
    schema: KindsFile = None,
    exposure: Exposure = None,
    json_: Json = False,
) -> None:
    """List the data sets known by name, or describe one of them (downloaded if needed) or your own data.

    For a table it gives the kind of each column, its likelihood and why.
    """
    from aevb.apps.plans import weighed
    from aevb.apps.tables import kinds_asked, look_into
    from aevb.data.sources import SOURCES, is_table_at
    from aevb.runs.index import describe_data

    if source is not None and is_table_at(source):
        asked = kinds_asked(weighed(None, column, exposure), schema)
        return look_into(source, asked, schema, json_)
    if source is not None:
        described = describe_data(source, data_dir, size, crop)
        return show.print_json(described) if json_ else show_description(source, described)
    rows = [
        {"source": s.name, "what it is": s.title, "shape": "×".join(map(str, s.shape)),
         "train": s.counts[0], "validation": s.counts[1], "test": s.counts[2], "recipe": s.recipe}
        for s in SOURCES.values()
    ]  # fmt: skip
    if json_:
        return show.print_json(rows)
    show.out.print(show.table("", list(rows[0]), [[cell(v) for v in r.values()] for r in rows]))
    return show.out.print(
        "\nOr a table (.csv, .parquet), a .npy or .npz file, a folder or .zip of images: aevb train PATH"
    )


def show_description(source: str, described: dict[str, Any]) -> None:
    show.out.print(source)
    width = max(map(len, described))
    for name, value in described.items():
        show.out.print(f"{name.ljust(width)}  {cell(value)}")


def cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else str(value)

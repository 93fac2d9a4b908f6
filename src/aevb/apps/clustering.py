"""The verb that groups rows: cluster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aevb.apps import actions, outputs, show
from aevb.apps.app import (
    DataDir,
    First,
    GivenNew,
    Json,
    Moved,
    Place,
    RunOption,
    Second,
    Seed,
    Split,
    default,
    out,
    verb,
)
from aevb.apps.rows import Asked, Found, asked_for, rows

if TYPE_CHECKING:
    from torch import Tensor

    from aevb.models.inference import Model
    from aevb.use.cards import Card
    from aevb.use.cluster import Clusters, Grouping

AT_ONCE = 2**16  # rows that are written
NAMED = 3  # typical rows, and columns, that a line of the table names
ENDINGS = ".csv or .parquet, or .npy for all p(c|x), (N, C)"
ClustersOut = Annotated[Path | None, out("none, the clusters are printed", ENDINGS)]


@verb(
    "aevb cluster",
    "aevb cluster new.npy --out clusters.csv",
    "aevb cluster RUN photos/ --number 10",
    "aevb cluster --split train --out shares.npy",
)
def cluster(
    first: First = None,
    second: Second = None,
    number: Annotated[
        int | None,
        typer.Option(
            "--number",
            min=1,
            help=f"Number of clusters.{default('those of a mixture prior; else chosen by held-out likelihood')}",
        ),
    ] = None,
    seed: Seed = 0,
    run: RunOption = None,
    device: Place = "auto",
    split: Split = "test",
    given: GivenNew = None,
    data_: Moved = None,
    data_dir: DataDir = None,
    json_: Json = False,
    out: ClustersOut = None,
) -> None:
    """Group rows into clusters of codes, and say how the clusters differ.

    A run with a mixture prior has clusters of its own. For any other run, a mixture of normals is fitted to the codes
    of the train split. A table for --out has a line for each row: its cluster, and that cluster's probability p. A
    picture of the clusters is written beside it, or among the run's figures.
    """
    kinds = "clusters are written as a .csv, .parquet or .npy file"
    place, out = actions.device_named(device), outputs.checked(out, (".csv", ".parquet", ".npy"), kinds)
    from aevb.use.cluster import largest_first

    asked = asked_for(first, second, run, data_, split, {"data_dir": data_dir, "given": given})
    from aevb.apps import streamed_clusters, streaming

    parts, model = streaming.parts_of(asked), asked.run.model(place)
    found = rows(asked) if parts is None else streaming.all_rows(asked, parts)
    with show.counting("clustering"):
        by = grouping_of(asked, model, number, seed, place)
        if parts is None:
            clusters = largest_first(by.clusters(found.data(place)))
            cards = cards_of(found, clusters)
        else:
            clusters, cards = streamed_clusters.clustered(asked, parts, by, place)
    if out is not None:
        write(out, found, clusters, said=not json_)
    figure = drawn(found, model, clusters, cards, f"Clusters of {asked.title}")
    if json_:
        from aevb.figures.style import save

        save(figure, picture(found, out))
        show.print_json(numbers_of(found, clusters, cards))
    else:
        tell(asked.title, found, clusters, cards)
        outputs.save_figure(asked.run, picture(found, out), "clusters", figure)


def grouping_of(asked: Asked, model: Model, number: int | None, seed: int, place: str) -> Grouping:
    """The mixture that gives clusters; that of a mixture prior needs no train split."""
    from aevb.models.priors import Mixture
    from aevb.runs.evaluate import rows_of
    from aevb.use.cluster import grouping

    run = asked.run
    if number is None and isinstance(getattr(model, "prior", None), Mixture):
        return grouping(model, None, seed=seed)
    train = run.recipe.context().rows(rows_of(run, run.dataset(asked.data_dir), "train"), place)
    return grouping(model, train, number, seed=seed)


def cards_of(found: Found, clusters: Clusters) -> list[Card]:
    """The cards; of a table by the names of its columns, in the units of its numbers and the words of its levels."""
    from aevb.apps.streamed_clusters import words_of
    from aevb.data.parts import rows_of
    from aevb.use.cards import TYPICAL, Tallies, cards, dealt

    split, schema = found.split, found.split.values.schema
    if split.stored.ndim != 2:
        return cards(clusters)
    tallies = Tallies(clusters.p.shape[1], split.stored.shape[1], *(() if schema is None else words_of(schema)))
    assigned, step = clusters.assigned.numpy(), rows_of(split.stored.shape[1])
    for start in range(0, len(assigned), step):
        rows = split.stored[start : start + step]
        tallies.add(split.values.as_given(rows), assigned[start : start + step])
    sizes = clusters.sizes.tolist()
    return dealt(sizes, [clusters.typical(c, TYPICAL) for c in range(len(sizes))], tallies)


def write(out: Path, found: Found, clusters: Clusters, said: bool = True) -> None:
    """A table with the columns `row` or `file`, `cluster` and `p`, or all p(c|x) as a .npy."""
    if out.suffix == ".npy":
        outputs.write_array(out, clusters.p)
        return
    from aevb.apps.streaming import write_columns

    names = (found.column, "cluster", "p")

    def columns() -> Iterator[dict[str, list[Any]]]:
        for start in range(0, len(found.names), AT_ONCE):
            p = clusters.p[start : start + AT_ONCE]
            own = (list(found.names[start : start + AT_ONCE]), p.argmax(1).tolist(), p.amax(1).tolist())
            yield dict(zip(names, own, strict=True))

    outputs.written(out, lambda beside: write_columns(columns(), beside, out.suffix))
    if said:
        show.out.print(f"{out}: {len(found.names):,} rows, columns {', '.join(names)}")


def numbers_of(found: Found, clusters: Clusters, cards: list[Card]) -> dict[str, Any]:
    """All that is printed, for JSON."""
    scores = {str(c): {"mean": mean, "se": clusters.errors[c]} for c, mean in clusters.scores.items()}
    told = [{**asdict(card), "typical": [found.names[i] for i in card.typical]} for card in cards]
    agrees = agreement_of(found, clusters)
    return {"n": len(clusters.p), "clusters": len(cards), "held_out": scores, **agrees, "cards": told}


def agreement_of(found: Found, clusters: Clusters) -> dict[str, float]:
    """How well the clusters agree with the labels of the rows, where they have any that the model was not given."""
    from aevb.evaluation.latent import agreement

    labels = found.split.labels
    if labels is None or found.run.recipe.context().classes:
        return {}
    agrees = agreement(labels, clusters.assigned)
    return {"accuracy": agrees.accuracy, "nmi": agrees.nmi, "ari": agrees.ari}


def tell(title: str, found: Found, clusters: Clusters, cards: list[Card]) -> None:
    """The scores of the candidate numbers, a line for each cluster, and the agreement with labels."""
    from aevb.use.cards import label, share_text

    if clusters.scores:
        tell_choice(clusters)
    cells = [
        (
            card.cluster,
            f"{card.n:,}",
            share_text(card),
            ", ".join(str(found.names[i]) for i in card.typical[:NAMED]),
            " · ".join(map(label, card.traits[:NAMED])),
        )
        for card in cards
    ]
    columns = ("cluster", "rows", "share", f"typical {found.column}s", "against the rest")
    keep = len(columns) - (not any(card.traits for card in cards))
    heading = f"{title}, n = {len(clusters.p):,}: {len(cards)} cluster{'s' * (len(cards) != 1)}"
    show.out.print(show.table(heading, columns[:keep], [line[:keep] for line in cells]))
    agrees = agreement_of(found, clusters)
    if agrees:
        show.out.print(
            f"labels: accuracy {agrees['accuracy']:.1%} with clusters matched to classes, NMI {agrees['nmi']:.3f},"
            f" ARI {agrees['ari']:.3f}"
        )


def tell_choice(clusters: Clusters) -> None:
    """By which scores the number of clusters was chosen."""
    from aevb.evaluation.estimate import Estimate

    lines = [(c, Estimate(score, clusters.errors[c]).text()) for c, score in clusters.scores.items()]
    title = f"log density of held-out codes, nats; {clusters.p.shape[1]} clusters are chosen"
    if not show.MANNER.quiet:
        show.err.print(show.table(title, ("clusters", "score"), lines))
    if clusters.p.shape[1] == max(clusters.scores) > 1:
        show.note(
            "it is the largest number that was tried: the codes may have no clusters; --number N sets their number"
        )


def drawn(found: Found, model: Model, clusters: Clusters, cards: list[Card], title: str) -> Any:
    """The cards as a picture."""
    from aevb.figures import cards as figures

    if len(found.split.shape) == 1:
        return figures.table_cards(cards, title)
    images = [found.split[list(card.typical)] for card in cards]
    return figures.image_cards(cards, decoded(found, model, clusters, cards), images, title)


def picture(found: Found, out: Path | None) -> Path:
    """Where the picture goes, without its ending: beside --out, or among the figures of the run."""
    return outputs.figure_of(found.run, "clusters") if out is None else out.with_suffix("")


def decoded(found: Found, model: Model, clusters: Clusters, cards: list[Card]) -> Tensor:
    """p(x|z)'s mean at each cluster's mean code, under the condition of its most typical row where there is one."""
    import torch

    from aevb.data.batch import take
    from aevb.use.reconstruct import decode

    y = take(found.data(), torch.tensor([card.typical[0] for card in cards])).y
    return decode(model, clusters.centres[[card.cluster for card in cards]], y)

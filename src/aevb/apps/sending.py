"""The verbs that make something to send: report, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aevb.apps import actions, outputs, show
from aevb.apps.app import OUTPUT, DataDir, Moved, Place, RunArg, RunOption, out, verb
from aevb.apps.rows import open_run
from aevb.errors import RecipeError

if TYPE_CHECKING:
    from aevb.runs.store import Run

PageOut = Annotated[Path | None, out("report.html in the run's folder", ".html")]


@verb("aevb report", "aevb report RUN --out digits.html")
def report(
    run: RunArg = None,
    run_: RunOption = None,
    device: Place = "auto",
    data_: Moved = None,
    data_dir: DataDir = None,
    out: PageOut = None,
) -> None:
    """Write a report on a run: one HTML file of less than 5 MB that opens anywhere, without a network.

    It holds the numbers with their errors, curves, reconstructions, samples beside their nearest train rows, the
    doctor's findings, the recipe, the data and the settings. The decoder is in it: a click on the map decodes.
    """
    place = actions.device_named(device)
    path = outputs.checked(out, (".html",), "a report is written as an .html file")
    opened = open_run(run, run_, data_)
    from aevb.apps.report.write import report as written

    target = outputs.announced(path or outputs.beside_run(opened, "report.html"))
    with show.counting("reporting"):
        done = written(opened, target, opened.dataset(data_dir), device=place)
    show.out.print(f"{done}: {done.stat().st_size / 1e6:.1f} MB, open it in a browser")


def folder(option: str, what: str) -> Any:
    """An option that names a folder to write."""
    return typer.Option(option, metavar="FOLDER", help=what, rich_help_panel=OUTPUT)


@verb(
    "aevb export --onnx model/",
    "aevb export RUN --torch model/",
    "aevb export RUN --hub digits-vae/",
    "aevb export RUN --web page/",
)
def export(
    run: RunArg = None,
    run_: RunOption = None,
    onnx: Annotated[
        Path | None, folder("--onnx", "encoder.onnx, decoder.onnx, sampler.onnx. Needs: pip install 'aevb[export]'")
    ] = None,
    torch: Annotated[
        Path | None, folder("--torch", "encoder.pt2, decoder.pt2, sampler.pt2, for torch.export.load.")
    ] = None,
    hub: Annotated[
        Path | None, folder("--hub", "A folder for a model hub: weights, recipe, a card with the numbers.")
    ] = None,
    web: Annotated[
        Path | None, folder("--web", "The explorer as a page for any host, with some rows of the data in it.")
    ] = None,
    data_: Moved = None,
    data_dir: DataDir = None,
) -> None:
    """Write a run's model for other programs: ONNX, torch.export, a folder for a model hub, a page.

    Encoder and decoder give the parameters of their distributions, not only means. The sampler takes its noise,
    standard normal, as an input. Batches are of any size. about.json names inputs and outputs. `aevb.load` reads the
    folder of --hub.
    """
    opened = open_run(run, run_, data_)
    asked = {"onnx": onnx, "torch": torch, "hub": hub, "web": web}
    chosen = {name: path.expanduser() for name, path in asked.items() if path is not None}
    if not chosen:
        raise RecipeError(f"export: say what to write, such as aevb export {opened.path.name} --onnx model/")
    for name, path in chosen.items():
        refuse_file(name, path)
        _exported(opened, name, path, data_dir)


def refuse_file(name: str, path: Path) -> None:
    """Refuse a file, or what is named as one.

    Raises:
        RecipeError: it is.
    """
    if path.is_file() or path.suffix in (".onnx", ".pt2", ".pt", ".safetensors"):
        raise RecipeError(f"--{name} {path}: several files are written. Name a folder, such as --{name} {path.stem}/")


def _exported(run: Run, name: str, path: Path, data_dir: Path | None) -> None:
    if name == "web":
        from aevb.apps.export.web import write_web

        show.out.print(f"{write_web(run, path, run.dataset(data_dir))}: put the folder on any host, or open it here")
        return
    if name == "hub":
        from aevb.apps.export.hub import write_hub

        show.out.print(f"{path}: {', '.join(file.name for file in write_hub(run, path))}")
        return
    from aevb.apps.export import programs

    about = (programs.write_onnx if name == "onnx" else programs.write_torch)(run, path)
    for file, facts in about["files"].items():
        show.out.print(f"{path / file}: {', '.join(facts['inputs'])} → {', '.join(facts['outputs'])}")
    for part, why in about["left_out"].items():
        show.warn(f"{part} is left out: {why}")

"""The verb that shows a run in a browser: explore."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aevb.apps import show
from aevb.apps.app import OUTPUT, DataDir, Moved, RunArg, RunOption, default, verb
from aevb.apps.rows import open_run

if TYPE_CHECKING:
    from aevb.apps.explorer.session import Session
    from aevb.runs.store import Run

Port = Annotated[
    int | None,
    typer.Option("--port", min=1, max=65535, metavar="N", help=f"The port.{default('8765, or the next free one')}"),
]
Host = Annotated[
    str, typer.Option("--host", metavar="ADDRESS", help="Address to bind. Other computers can then reach the page.")
]
Browser = Annotated[
    bool, typer.Option("--no-browser", help="Only print the link; open no browser.", rich_help_panel=OUTPUT)
]
MANY = 100_000


@verb("aevb explore", "aevb explore runs/mine --no-browser", "aevb explore runs/first --compare runs/second")
def explore(
    run: RunArg = None,
    compare: Annotated[
        str | None,
        typer.Option("--compare", metavar="RUN", help=f"A second run, whose map is beside the first.{default('none')}"),
    ] = None,
    points: Annotated[
        int, typer.Option("--points", min=1, max=MANY, metavar="N", help="Most points on the map.")
    ] = MANY,
    port: Port = None,
    host: Host = "127.0.0.1",
    no_browser: Browser = False,
    run_: RunOption = None,
    data_: Moved = None,
    data_dir: DataDir = None,
) -> None:
    """Show the latent space of a run in a browser: a map, sliders, drawing, walks.

    The page gets everything from this program, so it works offline. Ctrl-C ends it.
    """
    from aevb.apps.explorer.start import Address, Server, bound, needs_packages, opened, warn_of_host

    needs_packages()
    runs = [open_run(run, run_, data_), *([open_run(compare)] if compare else [])]
    listening, number = bound(host, port)
    try:
        sessions = [session(each, data_dir, points) for each in runs]
        sessions[0].can["compare"] = len(sessions) > 1
        from aevb.apps.explorer.server import Explorer

        address = Address(host, number)
        warn_of_host(host)
        with Server(Explorer(dict(zip(("", "/other"), sessions, strict=False))), address, listening) as server:
            opened(address, not no_browser)
            show.note("Ctrl-C ends the server")
            server.wait()
    except KeyboardInterrupt:
        show.note("ended")
    finally:
        listening.close()


def session(run: Run, data_dir: Path | None, points: int) -> Session:
    from aevb.apps.explorer.session import Session

    return Session(run, run.dataset(data_dir), most=points)

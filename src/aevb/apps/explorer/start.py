"""The explorer's server: which port it takes, how it begins, and how it ends."""

from __future__ import annotations

import errno
import secrets
import socket
import threading
import webbrowser
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aevb.apps import show
from aevb.errors import RecipeError, RunError

if TYPE_CHECKING:
    from aevb.apps.explorer.server import Explorer

PORT = 8765  # by default
TRIED = 20  # ports from the default one on
GRACE = 1  # seconds that requests may take when the server ends
INSTALL = "The explorer needs two more packages: pip install 'aevb[explore]'"


@dataclass(frozen=True)
class Address:
    """Where the server is."""

    host: str
    port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    @property
    def link(self) -> str:
        """What opens the page: the token is behind #, which no browser sends or logs."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        shown = "127.0.0.1" if self.host in ("0.0.0.0", "::") else name
        return f"http://{shown}:{self.port}/#token={self.token}"


def bound(host: str, port: int | None) -> tuple[socket.socket, int]:
    """A socket that is bound: to the port that is asked for, or to the first free one from the default on.

    Raises:
        RunError: the port that is asked for is busy, or there is no such host.
    """
    for number in [port] if port is not None else range(PORT, PORT + TRIED):
        try:
            made = one_socket(host, number)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and port is None:
                show.note(f"port {number} is busy; trying {number + 1}")
                continue
            raise RunError(refused(host, number, error)) from error
        return made, made.getsockname()[1]
    raise RunError(f"The ports {PORT} to {PORT + TRIED - 1} are all busy. Choose another: --port {PORT + TRIED}")


def one_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, asyncio sends without delay
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(128)  # two servers may bind one port where neither listens
    except BaseException:
        made.close()
        raise
    return made


def refused(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} is busy. Choose another, or leave --port out to use the first free one."
    if error.errno == errno.EACCES:
        return f"Port {port} may not be used. Choose one from 1024 on, such as --port {PORT}."
    return f"{host}:{port} cannot be used: {error.strerror or error}. Leave --host out to use 127.0.0.1."


def needs_packages() -> None:
    """Raises RecipeError where Starlette or uvicorn is not installed."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise RecipeError(INSTALL) from error


class Server:
    """A server in a thread of its own: it ends when it is told to, and leaves nothing behind."""

    def __init__(self, explorer: Explorer, address: Address, listening: socket.socket) -> None:
        import uvicorn

        from aevb.apps.explorer.server import application

        hosts = () if address.host in ("0.0.0.0", "::") else (address.host,)
        app: Any = application(explorer, address.token, address.port, (*hosts, *own_names(address.host)))
        settings = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE, server_header=False, ws="none"
        )
        self.server, self.socket = uvicorn.Server(settings), listening
        self.thread = threading.Thread(target=self.server.run, args=([listening],), daemon=True)

    def __enter__(self) -> Server:
        self.thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.server.should_exit = True
        self.thread.join(GRACE + 4)
        self.socket.close()

    def wait(self) -> None:
        """Until Ctrl-C."""
        while self.thread.is_alive():
            self.thread.join(0.5)


def own_names(host: str) -> tuple[str, ...]:
    """The names and numbers by which others reach a server that is bound to all addresses."""
    if host not in ("0.0.0.0", "::"):
        return ()
    name = socket.gethostname()
    try:
        numbers = {str(info[4][0]) for info in socket.getaddrinfo(name, None, socket.AF_INET)}
    except OSError:
        numbers = set()
    return (name, *sorted(numbers))


def warn_of_host(host: str) -> None:
    """Say that others can reach the page, where they can."""
    if host not in ("127.0.0.1", "localhost", "::1"):
        show.warn(f"--host {host}: other computers can reach this page. Whoever has the link sees the data.")


def opened(address: Address, browser: bool) -> None:
    """Print the link, and open it in a browser."""
    show.out.print(f"explore  {address.link}", soft_wrap=True)
    if browser:
        threading.Thread(target=webbrowser.open, args=(address.link,), daemon=True).start()

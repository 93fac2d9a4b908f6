"""Who may ask the explorer, and how much; and that nothing which is sent makes it fail."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from aevb.apps.explorer import start
from aevb.apps.explorer.asked import BODY
from aevb.apps.explorer.safety import POLICY
from aevb.apps.explorer.server import GETS, POSTS, STATIC, Explorer, application
from aevb.apps.explorer.session import Session
from aevb.errors import RunError
from tests.explored import MARKUP, OWN, PORT, TOKEN, Answered, asked, get, images, post, table


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("explored")
    runs = images(folder, latent=2), table(folder)
    sessions = {place: Session(run, run.dataset()) for place, run in zip(("", "/other"), runs, strict=True)}
    return application(Explorer(sessions), TOKEN, PORT)


@pytest.mark.parametrize("path", [f"/api/{name}" for name in (*GETS, *POSTS, "picture", "events", "nothing")])
def test_without_the_token_nothing_is_told(both: Any, path: str) -> None:
    for token in ("", "wrong", TOKEN[:-1], TOKEN + "x"):
        for answer in (get(both, path, x_aevb_token=token), post(both, path, {}, x_aevb_token=token)):
            assert answer.status == 403
            assert "token" in answer.table["error"]


def test_a_token_in_the_address_is_none(both: Any) -> None:
    assert get(both, f"/api/about?token={TOKEN}", x_aevb_token="").status == 403


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:80", f"127.0.0.1.evil.example:{PORT}", ""]
)
def test_another_host_is_refused_so_that_no_name_can_be_rebound(both: Any, host: str) -> None:
    for path in ("/", "/app.js", "/api/about"):
        assert get(both, path, host=host).status == 421


@pytest.mark.parametrize("host", [f"127.0.0.1:{PORT}", f"localhost:{PORT}", f"LOCALHOST:{PORT}", f"[::1]:{PORT}"])
def test_its_own_names_are_let_through(both: Any, host: str) -> None:
    assert get(both, "/api/about", host=host).status == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", f"https://127.0.0.1:{PORT}", "http://127.0.0.1:1", ""]
)
def test_another_origin_is_refused(both: Any, origin: str) -> None:
    assert get(both, "/api/about", origin=origin).status == 403
    assert post(both, "/api/decode", {"z": [[0, 0]]}, origin=origin).status == 403


def test_its_own_origin_is_let_through_without_cors(both: Any) -> None:
    answer = get(both, "/api/about", origin=f"http://127.0.0.1:{PORT}")
    assert answer.status == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/", "/app.js", "/style.css", "/api/about", "/api/none", "/none"])
def test_every_answer_has_a_strict_policy(both: Any, path: str) -> None:
    for answer in (get(both, path), get(both, path, x_aevb_token="wrong"), get(both, path, host="evil")):
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
    assert "unsafe" not in POLICY
    assert POLICY.startswith("default-src 'none'")


@pytest.mark.parametrize(
    "path",
    [
        "/none",
        "/../pyproject.toml",
        "/..%2f..%2fetc/passwd",
        "/app.js/",
        "//etc/passwd",
        "/api",
        "/api/",
        "/api/about/",
        "/other/",
        "/static/app.js",
        "/favicon.ico",
    ],
)
def test_only_known_routes_are_there(both: Any, path: str) -> None:
    assert get(both, path).status == 404


def test_what_is_served_without_a_token_holds_no_data(both: Any) -> None:
    pages = Path(start.__file__).parents[1] / "pages" / "static"
    for name, (file, _) in STATIC.items():
        answer = get(both, f"/{name}", x_aevb_token="")
        assert answer.status == 200
        assert answer.body == (pages / file).read_bytes()


def test_the_page_has_no_script_or_style_in_line_and_asks_no_other_server() -> None:
    pages = Path(start.__file__).parents[1] / "pages" / "static"
    html = (pages / "index.html").read_text()
    assert "<script>" not in html
    assert "style=" not in html
    for file in pages.iterdir():
        text = file.read_text().replace("http://www.w3.org/", "")
        assert "innerHTML" not in text, file
        assert "insertAdjacentHTML" not in text, file
        assert "http://" not in text, file
        assert "https://" not in text, file


def test_a_body_beyond_the_limit_is_refused_whatever_its_header_says(both: Any) -> None:
    assert post(both, "/api/decode", b"[]", content_length=str(BODY + 1)).status == 413
    assert post(both, "/api/decode", b" " * (BODY + 1)).status == 413
    assert post(both, "/api/picture", b" " * (BODY + 1)).status == 413
    assert post(both, "/api/decode", b"[]", content_length="many").status == 413


def test_a_picture_of_too_many_pixels_is_refused(both: Any) -> None:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("1", (9000, 9000)).save(file, "PNG")  # a kilobyte or so, of 81 million pixels
    answer = post(both, "/api/picture", file.getvalue())
    assert answer.status == 422
    assert "pixels" in answer.table["error"]


def test_a_name_that_is_markup_is_text(both: Any) -> None:
    assert get(both, "/other/api/about").table["columns"][1]["name"] == MARKUP
    answer = get(both, "/other/api/about")
    assert answer.headers["content-type"] == "application/json"


def test_fifty_clients_at_once_get_what_one_gets(both: Any) -> None:
    alone = post(both, "/api/decode", {"z": [[0.1, 0.2]], "y": None}).body
    point = get(both, "/other/api/point?index=3").body

    async def all_() -> list[Answered]:
        each = json.dumps({"z": [[0.1, 0.2]], "y": None}).encode()
        headers = {**OWN, "content-type": "application/json"}
        calls = [asked(both, "POST", "/api/decode", headers, each) for _ in range(40)]
        return await asyncio.gather(*calls, *(asked(both, "GET", "/other/api/point?index=3", OWN) for _ in range(10)))

    found = asyncio.run(all_())
    assert [answer.status for answer in found] == [200] * 50
    assert {answer.body for answer in found[:40]} == {alone}
    assert {answer.body for answer in found[40:]} == {point}


# Requests of any form


NUMBERS = (
    0,
    1,
    -1,
    0.5,
    3,
    7,
    1e6,
    -1e6,
    1e9,
    1e308,
    10**400,
    True,
    None,
    "1",
    "",
    "x",
    [],
    {},
    [1],
    [[0, 0]],
    [[0.0, 1.0], [1, 2]],
)
TEXTS = (
    "",
    "0,1",
    "pca",
    "1,0",
    "0,0",
    "9,9",
    "layer:0",
    "layer:9",
    "label",
    "log_px",
    "latent:0",
    "column:0",
    "part",
    "-1",
    "1e9",
    "²",
    "٣",
    "%00",
    "a" * 3000,
)
NAMES = (
    "z",
    "y",
    "layer",
    "indices",
    "steps",
    "how",
    "kind",
    "temperature",
    "seed",
    "pixels",
    "cells",
    "csv",
    "view",
    "centre",
)


def thing(rng: random.Random, depth: int = 0) -> Any:
    """Any value of JSON, often one that a route asks for."""
    kind = rng.randrange(7)
    if kind < 4 or depth > 2:
        return rng.choice([*NUMBERS, *TEXTS, "linear", "spherical", "gif", "png", MARKUP])
    if kind < 6:
        return [thing(rng, depth + 1) for _ in range(rng.choice((0, 1, 2, 2, 30)))]
    return {rng.choice([*NAMES, "age", "city", MARKUP]): thing(rng, depth + 1) for _ in range(rng.randrange(4))}


def right(rng: random.Random) -> tuple[str, str, dict[str, str], bytes]:
    """A request that is answered."""
    z = [[rng.uniform(-3, 3) for _ in range(2)] for _ in range(rng.randrange(2, 5))]
    rows = [rng.randrange(90) for _ in range(3)]
    bodies = {
        "decode": {"z": z, "y": None},
        "walk": {"z": z, "how": rng.choice(("linear", "spherical")), "steps": 4},
        "selection": {"indices": rows},
        "export": {"indices": rows},
        "thumbnails": {"indices": rows},
        "sample": {"temperature": rng.random()},
    }
    headers = {**OWN, "content-type": "application/json"}
    place, name = rng.choice(("", "/other")), rng.choice([*bodies, "about", "point", "points"])
    if name in bodies:
        return "POST", f"{place}/api/{name}", headers, json.dumps(bodies[name]).encode()
    return "GET", f"{place}/api/{name}?index={rows[0]}&view=0,1&start={rows[1]}", headers, b""


def request(rng: random.Random) -> tuple[str, str, dict[str, str], bytes]:
    """A request that may be right, nearly right, or nonsense."""
    if rng.random() < 0.2:
        return right(rng)
    place, headers = rng.choice(("", "", "/other", "/third")), dict(OWN)
    name = rng.choice([*GETS, *POSTS, "picture", "nothing"])
    query = "&".join(
        f"{key}={rng.choice([*TEXTS, '0', '1', '5', '89'])}"
        for key in ("name", "view", "start", "index", "y")
        if rng.random() < 0.7
    )
    method = rng.choice(("GET", "POST", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"))
    table = {key: thing(rng) for key in NAMES if rng.random() < 0.6}
    if rng.random() < 0.4:
        table |= {
            "z": [[rng.uniform(-3, 3) for _ in range(2)] for _ in range(rng.randrange(1, 4))],
            "y": None,
            "layer": 0,
        }
    body = json.dumps(table if rng.random() < 0.85 else thing(rng)).encode()
    if rng.random() < 0.1:
        body = bytes(rng.randrange(256) for _ in range(rng.randrange(60)))
    if rng.random() < 0.9:
        headers["content-type"] = "application/json"
    if rng.random() < 0.05:
        headers[rng.choice(("host", "origin", "x-aevb-token", "content-length"))] = rng.choice(TEXTS[:13])
    return method, f"{place}/api/{name}?{query}", headers, body if method != "GET" else b""


def fuzz(app: Any, seed: int, n: int) -> dict[int, int]:
    """How often each status came of n requests; every refusal is a sentence."""
    rng, seen = random.Random(seed), dict[int, int]()

    async def all_() -> None:
        for _ in range(n):
            method, path, headers, body = request(rng)
            answer = await asked(app, method, path, headers, body)
            assert answer.status < 500, (method, path, body[:200])
            if answer.status >= 400 and method != "HEAD":
                assert answer.table["error"].endswith((".", "...")), answer.body
            seen[answer.status] = seen.get(answer.status, 0) + 1

    asyncio.run(all_())
    return seen


def test_no_request_makes_the_server_fail(both: Any) -> None:
    seen = fuzz(both, 0, 400)
    assert seen[200] > 60  # not all is refused
    assert seen[400] > 20
    assert get(both, "/api/about").status == 200


@pytest.mark.slow
def test_ten_thousand_requests_make_the_server_fail_nowhere(both: Any) -> None:
    seen = fuzz(both, 1, 10_000)
    assert {200, 400, 403, 404, 405, 415, 421, 422} <= set(seen)
    assert get(both, "/api/about").status == 200


# The port, and the end


def busy() -> tuple[socket.socket, int]:
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    made.listen()
    return made, made.getsockname()[1]


def test_a_busy_port_that_was_asked_for_is_an_error() -> None:
    held, port = busy()
    with held, pytest.raises(RunError, match=f"Port {port} is busy"):
        start.bound("127.0.0.1", port)


def test_a_busy_default_port_is_stepped_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    held, port = busy()
    monkeypatch.setattr(start, "PORT", port)
    with held:
        found, number = start.bound("127.0.0.1", None)
    found.close()
    assert port < number < port + start.TRIED
    assert f"port {port} is busy" in capsys.readouterr().err


def test_an_address_that_is_not_this_computer_is_an_error() -> None:
    with pytest.raises(RunError, match="Leave --host out"):
        start.bound("192.0.2.1", 8765)


def test_the_link_carries_the_token_where_no_server_sees_it() -> None:
    one, two = start.Address("127.0.0.1", 8765), start.Address("127.0.0.1", 8765)
    assert one.token != two.token
    assert len(one.token) >= 32
    assert one.link == f"http://127.0.0.1:8765/#token={one.token}"
    assert start.Address("0.0.0.0", 1, "t").link == "http://127.0.0.1:1/#token=t"


@pytest.mark.slow
def test_the_command_serves_until_ctrl_c_and_leaves_nothing(tmp_path: Path) -> None:
    run = images(tmp_path, latent=2)
    held, port = busy()
    held.close()
    line = [
        sys.executable,
        "-c",
        "from aevb.apps.cli import main; main()",
        "explore",
        str(run.path),
        "--no-browser",
        "--port",
        str(port),
    ]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    link = next(word for text in process.stdout for word in text.split() if word.startswith("http://"))
    place, token = link.split("/#token=")
    asking = urllib.request.Request(f"{place}/api/about", headers={"X-Aevb-Token": token})
    with urllib.request.urlopen(asking, timeout=60) as answer:
        assert json.load(answer)["size"] == 2
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    with pytest.raises(OSError):  # noqa: PT011  # refused, or reset
        urllib.request.urlopen(asking, timeout=5)

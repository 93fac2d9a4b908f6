"""A training that is followed from a page: what is told is what the run's folder holds."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import urllib.request
import webbrowser
from pathlib import Path
from typing import Any

import pytest
import torch

import aevb
from aevb.apps.explorer import live
from aevb.apps.explorer.server import Explorer, application
from aevb.apps.explorer.start import bound
from aevb.runs.checkpoint import place
from aevb.runs.files import read_tensors
from aevb.runs.store import Run
from tests.explored import PORT, TOKEN, get, images, post


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return images(tmp_path_factory.mktemp("followed"), latent=2)


def test_answers_are_sent_without_delay() -> None:
    """asyncio turns Nagle's algorithm off where a socket names its protocol: else an answer takes 40 ms longer."""
    listening, port = bound("127.0.0.1", None)
    with listening, socket.create_connection(("127.0.0.1", port)):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP


def told(following: live.Live) -> list[dict[str, Any]]:
    """All events of a training that has ended."""

    async def all_() -> list[str]:
        return [event async for event in following.events()]

    following.ended.set()
    events = asyncio.run(all_())
    assert all(event.startswith("data: ") and event.endswith("\n\n") for event in events)
    return [json.loads(event[6:]) for event in events]


def test_the_records_of_the_folder_are_told_then_the_weights_then_the_end(trained: Run) -> None:
    events = told(live.followed(trained.path, trained.recipe, trained.dataset(), lambda: None))
    records = [event for event in events if event["kind"] == "record"]
    assert [r["train"] for r in records] == [line["train"] for line in trained.metrics()]
    assert [r["samples"] for r in records] == [line["samples"] for line in trained.metrics()]
    assert {r["total"] for r in records} == {600}
    assert any("elbo" in r.get("validation", {}) for r in records)
    assert [event["kind"] for event in events[-2:]] == ["weights", "end"]


def test_the_map_is_drawn_by_the_weights_of_the_last_checkpoint(trained: Run) -> None:
    following = live.followed(trained.path, trained.recipe, trained.dataset(), lambda: None)
    session = following.session
    before = session.points.codes.all().clone()
    assert following.renew()
    assert not following.renew()  # there is no newer one
    tensors, _ = read_tensors(place(trained))
    weights = session.model.state_dict()
    assert all(torch.equal(weights[k.removeprefix("model.")], v) for k, v in tensors.items() if k.startswith("model."))
    after = session.points.codes.all()
    assert not torch.allclose(before, after)
    wanted = aevb.encode(session.model, session.points.data(slice(0, 90)))
    torch.testing.assert_close(after, wanted)


def test_a_training_that_has_not_begun_tells_nothing_and_fails_nowhere(trained: Run, tmp_path: Path) -> None:
    following = live.followed(tmp_path / "none", trained.recipe, trained.dataset(), lambda: None)
    assert told(following) == [{"kind": "end"}]


def test_the_page_can_end_the_training(trained: Run) -> None:
    calls: list[str] = []
    following = live.followed(trained.path, trained.recipe, trained.dataset(), lambda: calls.append("stop"))
    app = application(Explorer({"": following.session}, extra=following.routes()), TOKEN, PORT)
    assert get(app, "/api/about").table["can"]["live"]
    assert post(app, "/api/stop", {}, x_aevb_token="wrong").status == 403
    assert not calls
    assert post(app, "/api/stop", {}).status == 200
    assert calls == ["stop"]
    assert get(app, "/api/stop").status == 405


def test_the_end_of_a_training_reaches_one_in_the_background_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the shell makes Ctrl-C ignored."""
    sent: list[int] = []
    monkeypatch.setattr(live.os, "kill", lambda _, number: sent.append(number))
    for handler in (signal.default_int_handler, signal.SIG_IGN):
        monkeypatch.setattr(live.signal, "getsignal", lambda _, handler=handler: handler)
        live.interrupt()
    assert sent == [signal.SIGINT, signal.SIGTERM]


def test_a_training_is_on_a_page_while_it_runs_and_no_longer(
    trained: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    links: list[str] = []
    monkeypatch.setattr(webbrowser, "open", links.append)
    with live.watched(trained.path, trained.recipe, trained.dataset()) as following:
        link = capsys.readouterr().out.split()[1]
        address, token = link.split("/#token=")
        asked = urllib.request.Request(f"{address}/api/about", headers={"X-Aevb-Token": token})
        with urllib.request.urlopen(asked, timeout=60) as answer:
            assert json.load(answer)["name"] == trained.path.name
        assert not following.ended.is_set()
    assert following.ended.is_set()
    with pytest.raises(OSError, match=r"refused|reset|closed"):
        urllib.request.urlopen(asked, timeout=5)
    assert links == [link]

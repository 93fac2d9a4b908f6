"""The report: one file, small, that loads nothing, says the numbers, and takes no value of the data for markup."""

from __future__ import annotations

import json
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from pages import MADE, tiny
from typer.testing import CliRunner

import aevb
from aevb.apps.cli import app
from aevb.apps.pages import decoder as pages_decoder
from aevb.apps.report import page as pages
from aevb.apps.report.markup import json_script, tag
from aevb.apps.report.page import LARGEST, SAID
from aevb.apps.report.shown import by_kl
from aevb.apps.report.subject import Subject
from aevb.data.columns import Column
from aevb.evaluation.estimate import Estimate, flat, with_errors
from aevb.evaluation.reports import fidelity
from aevb.evaluation.two_sample import nearest_rows


class Elements(HTMLParser):
    """All elements of a page, its visible text, and what scripts hold."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.scripts, self.inside = "", [], ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts[-1] += data
        else:
            self.text += data

    def json(self, name: str) -> Any:
        places = [attrs.get("id") for kind, attrs in self.found if kind == "script"]
        return json.loads(self.scripts[places.index(name)])


@cache
def reported(name: str) -> tuple[str, Elements]:
    run, data = tiny(name)
    path = aevb.report(run, run.path / "report.html", data)
    text = path.read_text(encoding="utf-8")
    return text, Elements(text)


def test_a_report_is_small_and_loads_nothing() -> None:
    text, page = reported("mlp")
    assert len(text.encode()) < LARGEST
    addresses = [v for _, attrs in page.found for k, v in attrs.items() if k in ("src", "href", "data", "action")]
    assert addresses
    assert all(str(v).startswith(("data:", "#")) for v in addresses)
    assert "http://" not in re.sub(r'content="[^"]*"', "", text).replace("http://www.w3.org", "")
    imports = json.loads(next(s for s in page.scripts if s.startswith('{"imports"')))["imports"]
    assert all(v.startswith("data:text/javascript;base64,") for v in imports.values())
    policy = next(attrs["content"] for kind, attrs in page.found if attrs.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none';")


def test_a_report_has_all_its_sections_and_the_numbers_with_their_errors() -> None:
    run, _ = tiny("conv")
    _, page = reported("conv")
    anchors = {attrs.get("id") for kind, attrs in page.found if kind == "section"}
    assert anchors == {"map", *(anchor for anchor, _, _ in SAID)}
    numbers = with_errors(json.loads((run.path / "evaluation-test.json").read_text()))
    for name in ("elbo", "reconstruction", "kl"):
        assert numbers[name].text() in page.text
    assert "Trained on blobs" in page.text
    assert "rate, KL(q(z|x) ‖ p(z))" in page.text
    assert "maximised over θ" in page.text


@pytest.mark.parametrize("name", MADE)
def test_every_kind_of_run_has_a_report_with_its_decoder(name: str) -> None:
    run, data = tiny(name)
    _, page = reported(name)
    content, decoder = page.json("content"), page.json("decoder")
    assert decoder["weights"] == "float16"
    assert content["why"] == ""
    assert content["latent"]["size"] == run.model().latent_shape.numel()
    assert content["map"]["count"] == len(data.test)
    if name == "table":
        assert content["map"]["fields"] == [c.name for c in data.train.values.columns.model]
        assert "missing" in content["map"]["cells"][0] + content["map"]["cells"][1] + content["map"]["cells"][2]
    else:
        across = content["map"]["thumbs"]["columns"]
        assert across**2 >= len(data.test) > (across - 1) ** 2


def test_a_label_that_looks_like_markup_is_text() -> None:
    text, page = reported("conditional")
    assert page.json("content")["classes"][0] == "</script><b>zero"
    assert "</script><b>zero" in page.text
    assert "<b>zero" not in text
    assert text.count("</script>") == len(page.scripts) == 4


def test_markup_is_escaped_everywhere() -> None:
    hostile = "<script>alert(1)</script>\"'&"
    assert Elements(tag("td", hostile, title=hostile)).found == [("td", {"title": hostile})]
    assert Elements(tag("td", hostile)).text == hostile
    assert json.loads(Elements(json_script("x", {"a": hostile})).scripts[0]) == {"a": hostile}
    column = pages_decoder.column_of(Column(hostile, "binary", levels=(hostile, "b")))
    assert column["name"] == column["levels"][0] == hostile


def test_a_decoder_too_large_becomes_int8_or_is_left_out_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    run, data = tiny("mlp")
    found = pages.interactive.decoder(Subject(run, data))
    large, small = (len(json.dumps(found.to_dict(s))) for s in (False, True))  # type: ignore[union-attr]
    assert small < 0.8 * large
    assert pages._decoder(found, large + 1001)[0]["weights"] == "float16"  # type: ignore[index]
    assert pages._decoder(found, large - 1)[0]["weights"] == "int8"  # type: ignore[index]
    made, why = pages._decoder(found, small - 1)
    assert made is None
    assert why.startswith("The decoder has ")
    assert "left out" in why
    assert pages._decoder("The network takes a step.", 10**9) == (None, "The network takes a step.")


def test_latents_come_by_their_kl() -> None:
    run, data = tiny("mlp")
    subject = Subject(run, data)
    order, kl = by_kl(subject)
    assert kl is not None
    assert sorted(order) == [0, 1, 2]
    assert [kl[d] for d in order] == sorted(kl, reverse=True)
    assert kl == pytest.approx(aevb.elbo(run.model(), data.test).kl.mean(0).tolist())


def test_the_nearest_train_rows_are_the_nearest() -> None:
    g = torch.Generator().manual_seed(0)
    train, new = torch.randn(30, 5, generator=g), torch.randn(7, 5, generator=g)
    expected = torch.cdist(new, train).argmin(1)
    assert torch.equal(fidelity.nearest_rows(train, new), expected)
    rows = train.double().numpy()
    scaled = torch.as_tensor((rows - rows.mean(0)) / rows.std(0))
    made = torch.as_tensor((new.double().numpy() - rows.mean(0)) / rows.std(0))
    assert (
        nearest_rows(rows, new.double().numpy(), ["real"] * 5).tolist() == torch.cdist(made, scaled).argmin(1).tolist()
    )


def test_numbers_of_json_are_estimates_again() -> None:
    numbers = {"a": Estimate(1.5, 0.25), "each": [Estimate(1.0, 0.1), Estimate(2.0, 0.2)], "n": 3, "x_se": 0.5}
    found = with_errors(json.loads(json.dumps(flat({**numbers, "inner": {"b": Estimate(2.0, 0.5)}}))))
    assert (found["a"], found["a"].se) == (1.5, 0.25)
    assert [(e.mean, e.se) for e in found["each"]] == [(1.0, 0.1), (2.0, 0.2)]
    assert (found["n"], found["x_se"], found["inner"]["b"].se) == (3, 0.5, 0.5)


def test_the_verb_writes_a_report(tmp_path: Path) -> None:
    run, _ = tiny("conv")
    result = CliRunner().invoke(app, ["report", str(run.path), "--out", str(tmp_path / "x.html")])
    assert result.exit_code == 0, result.output
    assert "<title>conv, a report by aevb</title>" in (tmp_path / "x.html").read_text(encoding="utf-8")
    wrong = CliRunner().invoke(app, ["report", str(run.path), "--out", str(tmp_path / "x.pdf")])
    assert isinstance(wrong.exception, aevb.DataError)


def test_a_report_names_no_folder_of_the_machine() -> None:
    for name in ("conv", "table"):
        run, _ = tiny(name)
        text, _ = reported(name)
        assert str(run.path.parent) not in text

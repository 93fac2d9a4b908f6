"""The decoder that lives in a page gives the numbers of PyTorch with the same rounded weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from pages import MADE, decoded, needs_node, tiny
from torch import nn

from aevb.apps.pages.decoder import SHARES, page_decoder
from aevb.apps.pages.graph import UnknownStep, graph_of
from aevb.apps.pages.weights import FEW, packed, rounded
from aevb.probability.inverse import icdf


def exact(name: str, small: bool = False) -> tuple[Any, Any, dict[str, Any]]:
    """The run's model with weights rounded as a page's, its data, its decoder for JSON."""
    run, data = tiny(name)
    model: Any = copy.deepcopy(run.model())
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=g))
            if p.numel() > FEW and not small:
                p.copy_(p.half().float())
    classes = run.recipe.context().classes
    page = page_decoder(model, data.train.values, (0.0, 1.0), [str(c) for c in range(classes)])
    return model, data, page.to_dict(small)


def inputs_of(model: Any, about: dict[str, Any]) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(2)
    shapes = {name: shape for name, (_, shape) in about["network"]["inputs"].items()}
    found = {"z": torch.randn(shapes["z"], generator=g)}
    return found | ({"y": torch.eye(shapes["y"][1])[1:2]} if "y" in shapes else {})


@needs_node
@pytest.mark.parametrize("name", [name for name in MADE if name != "table"])
def test_a_page_decodes_images_as_pytorch_does(name: str, tmp_path: Path) -> None:
    model, _, page = exact(name)
    given = inputs_of(model, page)
    found = decoded(page["network"], given, tmp_path)["mean"]
    with torch.no_grad():
        expected = model.decode(given["z"].reshape(1, *model.latent_shape), given.get("y")).mean
    assert page["shape"] == list(expected.shape[1:])
    assert float(expected.std()) > 0.01
    torch.testing.assert_close(found, expected.flatten().double(), atol=1e-4, rtol=0)


@needs_node
def test_a_page_decodes_a_table_as_pytorch_does(tmp_path: Path) -> None:
    """Medians, intervals, means and shares of levels, of every column."""
    model, data, page = exact("table")
    given = inputs_of(model, page)
    found = decoded(page["network"], given, tmp_path)
    with torch.no_grad():
        groups = model.decode(given["z"]).groups
    seen = 0
    for i, group in enumerate(groups):
        cells = group.cells
        expected = {f"shares{i}": cells.base.probs} if hasattr(cells, "base") else {f"mean{i}": cells.mean}
        if f"low{i}" in found:
            ends = (icdf(cells, torch.full_like(cells.mean, u)) for u in SHARES)
            expected = dict(zip((f"median{i}", f"low{i}", f"high{i}"), ends, strict=True))
        for name, x in expected.items():
            torch.testing.assert_close(found[name], x.flatten().double(), atol=1e-3, rtol=1e-3)
            seen += 1
    assert seen == len(found) > len(groups)
    names = [column.name for column in data.train.values.columns.model]
    assert [column["name"] for column in page["columns"]] == names


@needs_node
def test_int8_weights_are_those_that_rounding_says(tmp_path: Path) -> None:
    g = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 40))
    x = torch.randn(1, 4, generator=g)
    graph = graph_of(Tupled(net), {"z": x}, ["out"])
    found = decoded({**graph.to_dict(), "constants": packed(graph.constants, small=True)}, {"z": x}, tmp_path)["out"]
    with torch.no_grad():
        net[2].weight.copy_(rounded(net[2].weight.T.contiguous(), small=True).T)
        torch.testing.assert_close(found, net(x).flatten().double(), atol=1e-5, rtol=0)


class Tupled(nn.Module):
    """A module that gives a tuple."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.net(z),)


NETS = {
    "transposed convolution": nn.Sequential(
        nn.Unflatten(1, (3, 2, 2)), nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1), nn.ReLU(),
        nn.ConvTranspose2d(4, 2, 4, stride=2, dilation=2)
    ),
    "strides, groups and norms": nn.Sequential(
        nn.Unflatten(1, (4, 3, 1)), nn.Upsample(scale_factor=3), nn.Conv2d(4, 8, 3, stride=2, padding=2, groups=2),
        nn.GroupNorm(2, 8), nn.GELU(), nn.BatchNorm2d(8), nn.LeakyReLU(0.2), nn.Conv2d(8, 2, 1)
    ),
    "activations": nn.Sequential(
        nn.Linear(12, 9), nn.LayerNorm(9), nn.ELU(), nn.Linear(9, 8), nn.Softplus(), nn.GLU(), nn.SiLU(),
        nn.Linear(4, 6), nn.Hardtanh(), nn.Softmax(1)
    ),
}  # fmt: skip


@needs_node
@pytest.mark.parametrize("name", NETS)
def test_networks_of_users_run_in_a_page(name: str, tmp_path: Path) -> None:
    torch.manual_seed(4)
    net = NETS[name].eval()
    x = torch.randn(1, 12)
    graph = graph_of(Tupled(net), {"z": x}, ["out"])
    found = decoded({**graph.to_dict(), "constants": packed(graph.constants)}, {"z": x}, tmp_path)["out"]
    with torch.no_grad():
        torch.testing.assert_close(found, net(x).flatten().double(), atol=1e-5, rtol=1e-5)


class Sorting(nn.Module):
    """A step that no page knows."""

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor]:
        return (z.sort(1).values,)


def test_a_step_that_no_page_knows_is_named() -> None:
    with pytest.raises(UnknownStep, match="pages do not support: sort"):
        graph_of(Sorting(), {"z": torch.zeros(1, 3)}, ["out"])

"""Convolutional networks that nobody gave channels fit the size of the images, and a run keeps what it had."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from aevb.data.arrays import array_dataset
from aevb.models.networks import ConvDecoder, ConvEncoder, pyramid
from aevb.models.residual import ResidualDecoder, ResidualEncoder, stages_of
from aevb.runs.recipe import Recipe


@pytest.mark.parametrize(
    ("side", "channels"),
    [
        *((side, [32, 64]) for side in (8, 28, 32)),
        *((side, [16, 32, 64]) for side in (33, 64)),
        (96, [8, 16, 32, 64]),
        (256, [8, 16, 32, 64, 64]),
        (1024, [8, 16, 32, 64, 64, 64, 64]),
    ],
)
def test_the_longer_side_is_halved_to_eight_pixels(side: int, channels: list[int]) -> None:
    assert pyramid((3, side, side)) == channels
    assert pyramid((1, 5, side)) == channels


def test_residual_networks_begin_at_the_image_as_it_is() -> None:
    assert [stages_of((1, side, side)) for side in (28, 32, 64)] == [[16, 32, 64], [16, 32, 64], [8, 16, 32, 64]]


@pytest.mark.parametrize("make", [(ConvEncoder, ConvDecoder), (ResidualEncoder, ResidualDecoder)])
def test_the_work_of_a_pixel_does_not_grow_with_the_image(make: tuple[type, type]) -> None:
    work = []
    for side in (32, 64, 128):
        encoder, decoder = make[0]((3, side, side), 8), make[1](4, 3 * side**2, (3, side, side))
        with FlopCounterMode(display=False) as flops, torch.no_grad():
            assert encoder(torch.zeros(1, 3, side, side)).shape == (1, 8)
            assert decoder(torch.zeros(1, 4)).shape == (1, 3, side, side)
        work.append(flops.get_total_flops() / side**2)
    assert max(work[1:]) < work[0]
    assert work[2] < 1.15 * work[1]


def test_a_recipe_takes_its_channels_from_the_data() -> None:
    data = array_dataset(torch.randint(0, 256, (60, 3, 64, 64), dtype=torch.uint8).numpy())
    recipe = Recipe.load("conv").of(data)
    assert recipe.settings["encoder"]["channels"] == recipe.settings["decoder"]["channels"] == [16, 32, 64]
    given = Recipe.load("conv").override(["encoder.channels=[4]", "decoder.channels=[5]"]).of(data)
    assert (given.settings["encoder"]["channels"], given.settings["decoder"]["channels"]) == ([4], [5])

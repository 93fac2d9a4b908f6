"""Figure 2: the bound against training samples, AEVB and wake-sleep, MNIST and Frey Face."""

from __future__ import annotations

from aevb.apps.paper.curves import Curve, bounds

MNIST = (3, 5, 10, 20, 200)
FREY = (2, 5, 10, 20)


def mnist(latents: int, algorithm: str = "AEVB", values: str = "grey") -> Curve:
    """A curve of one of the upper panels; `values` as the paper left open: grey levels, threshold, dynamic."""
    recipe = {"AEVB": "aevb", "WS": "wake-sleep"}[algorithm]
    name = f"mnist-z{latents}-{algorithm.lower()}" + ("" if values == "grey" else f"-{values}")
    return Curve(name, recipe, "mnist", bounds, {"latent": latents}, values)


def frey(latents: int, algorithm: str = "AEVB") -> Curve:
    """A curve of one of the lower panels."""
    objective = {} if algorithm == "AEVB" else {"objective": {"type": "wake-sleep"}}
    return Curve(f"frey-z{latents}-{algorithm.lower()}", "aevb-frey", "frey", bounds, {"latent": latents, **objective})


PANELS: dict[str, list[Curve]] = {
    **{f"MNIST Nz={d}": [mnist(d), mnist(d, "WS")] for d in MNIST},
    **{f"Frey Nz={d}": [frey(d), frey(d, "WS")] for d in FREY},
}

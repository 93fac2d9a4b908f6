"""Pictures of models and data: each function gives a matplotlib `Figure` and leaves the user's settings as they are.

figure = aevb.figures.reconstructions(model, data)
figure.savefig("reconstructions.png")
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

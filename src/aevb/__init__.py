"""aevb: variational autoencoders, named after Auto-Encoding Variational Bayes (Kingma & Welling 2013, arXiv 1312.6114).

    model = aevb.VAE(prior, encoder, decoder)                 # three conditional distributions
    for step in aevb.train(model, aevb.ELBO(), data): ...     # Algorithm 1
    aevb.evaluate(model, data)                                # ELBO, log p(x), active units

Names are imported when they are first used, so that `import aevb` is instant. `__init__.pyi` lists them.
"""

import lazy_loader

__version__ = "0.2.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

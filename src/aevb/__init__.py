"""aevb: variational auto-encoders, named after Auto-Encoding Variational Bayes (Kingma & Welling 2013, arXiv 1312.6114).

    model = aevb.VAE(prior, encoder, decoder)                 # three conditional distributions
    for step in aevb.train(model, aevb.ELBO(), data): ...     # Algorithm 1
    aevb.evaluate(model, data)                                # ELBO, log p(x), active units

Names are imported when they are first used, so that `import aevb` is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "AevbError": "errors",
    "DataError": "errors",
    "RecipeError": "errors",
    "RunError": "errors",
    "ShapeError": "errors",
    "TrainingDiverged": "errors",
    "Bernoulli": "probability.families",
    "Categorical": "probability.families",
    "ContinuousBernoulli": "probability.families",
    "Delta": "probability.families",
    "DiscretizedLogistic": "probability.families",
    "Family": "probability.families",
    "FullNormal": "probability.families",
    "Laplace": "probability.families",
    "LowRankNormal": "probability.families",
    "Normal": "probability.families",
    "StudentT": "probability.families",
    "BetaBinomial": "probability.counts",
    "NegativeBinomial": "probability.counts",
    "Poisson": "probability.counts",
    "ZeroInflatedNegativeBinomial": "probability.counts",
    "IAF": "probability.flows",
    "Householder": "probability.flows",
    "Planar": "probability.flows",
    "Sylvester": "probability.flows",
    "LogisticMixture": "probability.mixtures",
    "HomoscedasticNormal": "probability.scales",
    "OptimalNormal": "probability.scales",
    "VonMises": "probability.circular",
    "FSQ": "probability.codes",
    "VQ": "probability.codes",
    "Concrete": "probability.codes",
    "OneHot": "probability.codes",
    "VonMisesFisher": "probability.sphere",
    "Beta": "probability.reparameterized",
    "Cauchy": "probability.reparameterized",
    "Dirichlet": "probability.reparameterized",
    "Gamma": "probability.reparameterized",
    "Gumbel": "probability.reparameterized",
    "Logistic": "probability.reparameterized",
    "LogNormal": "probability.reparameterized",
    "Uniform": "probability.reparameterized",
    "Weibull": "probability.reparameterized",
    "Chain": "models.chain",
    "Conditional": "models.conditional",
    "ConvDecoder": "models.networks",
    "ConvEncoder": "models.networks",
    "GatedMLP": "models.networks",
    "MLP": "models.networks",
    "ResidualDecoder": "models.residual",
    "ResidualEncoder": "models.residual",
    "Given": "models.given",
    "Ladder": "models.ladder",
    "Rung": "models.ladder",
    "image_ladder": "models.rungs",
    "vector_ladder": "models.rungs",
    "Known": "models.priors",
    "FlowPrior": "models.priors",
    "Mixture": "models.priors",
    "StandardNormal": "models.priors",
    "UniformConcrete": "models.priors",
    "UniformOverCodes": "models.priors",
    "VampPrior": "models.priors",
    "LatentModel": "models.trace",
    "Trace": "models.trace",
    "VAE": "models.vae",
    "ELBO": "objectives.bounds",
    "Objective": "objectives.bounds",
    "FullBayes": "objectives.full_bayes",
    "ImportanceWeighted": "objectives.importance",
    "MonteCarloEM": "objectives.monte_carlo_em",
    "M2": "objectives.semi_supervised",
    "WakeSleep": "objectives.wake_sleep",
    "DIP": "objectives.terms",
    "MMD": "objectives.terms",
    "Commitment": "objectives.terms",
    "DensityRatio": "objectives.terms",
    "Regularized": "objectives.terms",
    "TotalCorrelation": "objectives.terms",
    "Cosine": "objectives.schedules",
    "Cyclical": "objectives.schedules",
    "Exponential": "objectives.schedules",
    "Linear": "objectives.schedules",
    "Piecewise": "objectives.schedules",
    "Adagrad": "training.optimizers",
    "Adam": "training.optimizers",
    "SGD": "training.optimizers",
    "Learner": "training.train",
    "Step": "training.train",
    "Training": "training.train",
    "train": "training.train",
    "Annealing": "evaluation.annealing",
    "bidirectional": "evaluation.annealing",
    "log_marginal_ais": "evaluation.annealing",
    "disentanglement": "evaluation.disentanglement",
    "Evaluation": "evaluation.evaluate",
    "evaluate": "evaluation.evaluate",
    "fit_prior": "evaluation.ex_post",
    "surgery": "evaluation.surgery",
    "gradient_noise": "evaluation.gradient_noise",
    "generate": "evaluation.generation",
    "log_marginal": "evaluation.marginal",
    "log_marginal_hmc": "evaluation.reciprocal",
    "log_predictive": "evaluation.predictive",
    "authenticity": "evaluation.quality",
    "fidelity": "evaluation.quality",
    "mmd": "evaluation.quality",
    "Dataset": "data.dataset",
    "Split": "data.dataset",
    "Pairs": "data.labels",
    "hide_labels": "data.labels",
    "one_hot": "data.labels",
    "load_data": "data.sources",
    "factors_of": "data.sprites",
    "Recipe": "runs.recipe",
    "Run": "runs.store",
    "fit": "runs.fit",
    "load": "runs.store",
}
__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from aevb.data.dataset import Dataset, Split
    from aevb.data.labels import Pairs, hide_labels, one_hot
    from aevb.data.sources import load_data
    from aevb.data.sprites import factors_of
    from aevb.errors import AevbError, DataError, RecipeError, RunError, ShapeError, TrainingDiverged
    from aevb.evaluation.annealing import Annealing, bidirectional, log_marginal_ais
    from aevb.evaluation.disentanglement import disentanglement
    from aevb.evaluation.evaluate import Evaluation, evaluate
    from aevb.evaluation.ex_post import fit_prior
    from aevb.evaluation.generation import generate
    from aevb.evaluation.gradient_noise import gradient_noise
    from aevb.evaluation.marginal import log_marginal
    from aevb.evaluation.predictive import log_predictive
    from aevb.evaluation.quality import authenticity, fidelity, mmd
    from aevb.evaluation.reciprocal import log_marginal_hmc
    from aevb.evaluation.surgery import surgery
    from aevb.models.chain import Chain
    from aevb.models.conditional import Conditional
    from aevb.models.given import Given
    from aevb.models.ladder import Ladder, Rung
    from aevb.models.networks import MLP, ConvDecoder, ConvEncoder, GatedMLP
    from aevb.models.priors import FlowPrior, Known, Mixture, StandardNormal, UniformConcrete, UniformOverCodes, VampPrior
    from aevb.models.residual import ResidualDecoder, ResidualEncoder
    from aevb.models.rungs import image_ladder, vector_ladder
    from aevb.models.trace import LatentModel, Trace
    from aevb.models.vae import VAE
    from aevb.objectives.bounds import ELBO, Objective
    from aevb.objectives.full_bayes import FullBayes
    from aevb.objectives.importance import ImportanceWeighted
    from aevb.objectives.monte_carlo_em import MonteCarloEM
    from aevb.objectives.schedules import Cosine, Cyclical, Exponential, Linear, Piecewise
    from aevb.objectives.semi_supervised import M2
    from aevb.objectives.terms import DIP, MMD, Commitment, DensityRatio, Regularized, TotalCorrelation
    from aevb.objectives.wake_sleep import WakeSleep
    from aevb.probability.circular import VonMises
    from aevb.probability.codes import FSQ, VQ, Concrete, OneHot
    from aevb.probability.counts import BetaBinomial, NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
    from aevb.probability.families import (
        Bernoulli,
        Categorical,
        ContinuousBernoulli,
        Delta,
        DiscretizedLogistic,
        Family,
        FullNormal,
        Laplace,
        LowRankNormal,
        Normal,
        StudentT,
    )
    from aevb.probability.flows import IAF, Householder, Planar, Sylvester
    from aevb.probability.mixtures import LogisticMixture
    from aevb.probability.reparameterized import (
        Beta,
        Cauchy,
        Dirichlet,
        Gamma,
        Gumbel,
        Logistic,
        LogNormal,
        Uniform,
        Weibull,
    )
    from aevb.probability.scales import HomoscedasticNormal, OptimalNormal
    from aevb.probability.sphere import VonMisesFisher
    from aevb.runs.fit import fit
    from aevb.runs.recipe import Recipe
    from aevb.runs.store import Run, load
    from aevb.training.optimizers import SGD, Adagrad, Adam
    from aevb.training.train import Learner, Step, Training, train


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'aevb' has no attribute {name!r}")
    value = getattr(import_module(f"aevb.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

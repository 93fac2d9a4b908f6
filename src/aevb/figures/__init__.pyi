from .of_models import interpolations as interpolations
from .of_models import latent as latent
from .of_models import loss as loss
from .of_models import manifold as manifold
from .of_models import reconstructions as reconstructions
from .of_models import samples as samples
from .of_models import traversals as traversals
from .style import save as save

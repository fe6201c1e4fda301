"""The checks that every part must pass, for the tests of plug-in authors."""

from recbole_dtn.testing.balancers import check_balancer
from recbole_dtn.testing.domains import check_domain_model
from recbole_dtn.testing.equations import check_equation
from recbole_dtn.testing.interactions import check_interaction
from recbole_dtn.testing.losses import check_loss
from recbole_dtn.testing.metrics import check_metric
from recbole_dtn.testing.models import check_model
from recbole_dtn.testing.preprocess import check_preprocessor
from recbole_dtn.testing.xor import check_learns_xor

__all__ = [
    "check_balancer",
    "check_domain_model",
    "check_equation",
    "check_interaction",
    "check_learns_xor",
    "check_loss",
    "check_metric",
    "check_model",
    "check_preprocessor",
]

"""A smooth hinge loss."""

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from recbole_dtn.loss.base import TaskLoss
from recbole_dtn.registry import LOSSES


@LOSSES.register("shop_hinge", paper="an example")
class ShopHinge(TaskLoss):
    """Smooth hinge loss: ``softplus(m - (2 y - 1) z)``, z the logit."""

    def __init__(self, *, margin: Annotated[float, Field(ge=0, description="m")] = 0.5) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of every row."""
        return softplus(self.margin - (2 * labels - 1) * logits)

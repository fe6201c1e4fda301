"""A plug-in file as users write one."""

PLUGIN = """\
from torch import Tensor, nn
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.registry import INTERACTIONS

@INTERACTIONS.register("first_field_{name}")
class FirstField(FeatureInteraction):
    '''A linear map of the first field's embedding.'''
    def __init__(self, shape: FieldShape, output_dim: int) -> None:
        super().__init__(shape, output_dim)
        self.head = nn.Linear(shape.embedding_dim, output_dim)
    def forward(self, embeddings: Tensor, ids: Tensor, shared=None) -> Tensor:
        {fault}return self.head(embeddings[:, 0])
"""

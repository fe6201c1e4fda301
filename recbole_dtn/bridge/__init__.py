"""The only package that touches RecBole's Config, Dataset, Interaction and Trainer (``docs/recbole.md``).

:func:`recbole_config` makes a RecBole Config of our typed settings, without the stock class's side effects;
:class:`RecBoleTrainer` is RecBole's Trainer with checkpoints that can be loaded again.
:func:`translate` is called by a model that RecBole constructs. It finds the settings, builds the vocabularies from the
training Dataset and returns the :class:`Translator` that turns RecBole's batches into
:class:`~recbole_dtn.data.features.Features`.
"""

from recbole_dtn.bridge.config import RecBoleConfig
from recbole_dtn.bridge.evaluate import evaluate_tasks
from recbole_dtn.bridge.from_settings import recbole_config
from recbole_dtn.bridge.keys import SETTINGS_KEY
from recbole_dtn.bridge.trainer import RecBoleTrainer, load_data_and_model
from recbole_dtn.bridge.translate import translate
from recbole_dtn.bridge.translator import Translator

__all__ = [
    "SETTINGS_KEY",
    "RecBoleConfig",
    "RecBoleTrainer",
    "Translator",
    "evaluate_tasks",
    "load_data_and_model",
    "recbole_config",
    "translate",
]

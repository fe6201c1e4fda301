"""RecBole's Trainer with checkpoints of plain values, so that ``saved=True`` and ``load_best_model=True`` work.

RecBole pickles its Config into the checkpoint, which ``torch.load`` refuses by default since torch 2.6. Here the file
holds plain values and tensors only, and is read with ``weights_only=True``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.trainer import Trainer
from recbole.utils import get_model, init_seed

from recbole_dtn.bridge.config import REFUSED, RecBoleConfig
from recbole_dtn.bridge.keys import SETTINGS_KEY
from recbole_dtn.config.load import restore
from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import DataError
from recbole_dtn.plugins import PluginState, load_recorded, plugin_states
from recbole_dtn.registry import MODELS

__all__ = ["RecBoleTrainer", "load_data_and_model"]

FORMAT = "recbole_dtn bridge 1"


class RecBoleTrainer(Trainer):  # type: ignore[misc]
    """RecBole's Trainer, for our models and for RecBole's own; takes the same arguments.

    Only the checkpoint differs: it holds what RecBole's does, with the Config as plain values. :meth:`evaluate` and
    :meth:`resume_checkpoint` read it, and so does :func:`load_data_and_model`.
    """

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        # As in RecBole: of several processes the first one writes.
        if not self.config["single_spec"] and self.config["local_rank"] != 0:
            return
        file = kwargs.pop("saved_model_file", self.saved_model_file)
        carried = self.config[SETTINGS_KEY]
        content = {
            "format": FORMAT,
            "config": plain_config(self.config),
            "epoch": epoch,
            "cur_step": self.cur_step,
            "best_valid_score": float(self.best_valid_score),
            "state_dict": self.model.state_dict(),
            "other_parameter": self.model.other_parameter(),
            "optimizer": self.optimizer.state_dict(),
            "plugins": [] if carried is None else [asdict(state) for state in plugin_states(carried)],
        }
        torch.save(content, file)
        if verbose:
            self.logger.info(f"Saving current: {file}")

    def resume_checkpoint(self, resume_file: str | Path) -> None:
        """Go on from a checkpoint that this class wrote.

        Raises:
            DataError: for a file of another writer.
        """
        content = read(resume_file, self.device)
        self.saved_model_file = str(resume_file)
        self.start_epoch, self.cur_step = content["epoch"] + 1, content["cur_step"]
        self.best_valid_score = content["best_valid_score"]
        self._load(content)
        self.optimizer.load_state_dict(content["optimizer"])

    def evaluate(
        self,
        eval_data: Any,
        load_best_model: bool = True,
        model_file: str | Path | None = None,
        show_progress: bool = False,
    ) -> Any:
        """RecBole's evaluation; ``load_best_model`` loads the weights that :meth:`fit` saved, or ``model_file``.

        Raises:
            DataError: where there is no such file, or another writer's.
        """
        if load_best_model and eval_data:
            # The weights are loaded here, so that RecBole's torch.load of a pickle is not reached.
            self._load(read(model_file or self.saved_model_file, self.device))
        return super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)

    def _load(self, content: Mapping[str, Any]) -> None:
        self.model.load_state_dict(content["state_dict"])
        # After the weights; a model of ours compares the saved vocabularies with its own and refuses others.
        self.model.load_other_parameter(content["other_parameter"])


def load_data_and_model(
    model_file: str | Path, *, plugins: Sequence[str] = (), trust: bool = False
) -> tuple[RecBoleConfig, Any, Any, Any, Any, Any]:
    """The counterpart of ``recbole.quick_start.load_data_and_model``, for files that :class:`RecBoleTrainer` wrote.

    Args:
        model_file: the checkpoint. plugins, trust: which plug-in files that it names may be run, as in
            :func:`recbole_dtn.load`.

    Returns:
        Config, model, Dataset, and the loaders of training, validation and test, as RecBole returns them.

    Raises:
        DataError: where there is no such file, or another writer's.
        UsageError: for a plug-in file that is not named or is missing.
    """
    content = read(model_file, "cpu")
    if content["config"]["settings"] is not None:
        known = [PluginState(**state) for state in content.get("plugins", [])]
        recorded = known or [PluginState(path, None) for path in content["config"]["settings"]["plugins"]]
        content["config"]["settings"]["plugins"] = load_recorded(recorded, model_file, named=plugins, trust=trust)
    config, model_class = _restored(content["config"])
    # Seeded twice as RecBole does: for the split and the loaders, then for the model.
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    loaders = data_preparation(config, dataset)
    init_seed(config["seed"], config["reproducibility"])
    model = model_class(config, loaders[0].dataset).to(config["device"])
    model.load_state_dict(content["state_dict"])
    model.load_other_parameter(content["other_parameter"])
    return (config, model, dataset, *loaders)


def plain_config(config: Config) -> dict[str, Any]:
    """What makes the same config again, as plain values; keys that do harm are left out."""
    carried = config[SETTINGS_KEY]
    given = {key: value for key, value in config.external_config_dict.items() if key not in {*REFUSED, SETTINGS_KEY}}
    # RecBole appends the data set's name to data_path, and a stock Config has a path of its own for ml-100k.
    given["data_path"] = str(Path(config["data_path"]).parent)
    return {
        "model": config["model"],
        "stock_model": config.model_class.__module__.split(".")[0] == "recbole",
        "dataset": config["dataset"],
        "defaults": {key: value for key, value in config.internal_config_dict.items() if key != "MODEL_TYPE"},
        "given": given,
        "settings": carried.dump() if isinstance(carried, Settings) else None,
    }


def _restored(saved: Mapping[str, Any]) -> tuple[RecBoleConfig, Any]:
    """The config that :func:`plain_config` wrote down, and the model's class."""

    class Restored(RecBoleConfig):
        def _load_internal_config_dict(self, model: str, model_class: type, dataset: str) -> None:
            # RecBole's defaults as they were; MODEL_TYPE is an enum, which plain values leave out.
            self.internal_config_dict = {**saved["defaults"], "MODEL_TYPE": model_class.type}  # type: ignore[attr-defined]

    given, settings = dict(saved["given"]), saved["settings"]
    if settings is not None:
        given[SETTINGS_KEY] = restore(settings)
    model_class = get_model(saved["model"]) if saved["stock_model"] else MODELS.load(saved["model"])
    return Restored(model=model_class, dataset=saved["dataset"], config_dict=given), model_class


def read(file: str | Path, device: torch.device | str) -> dict[str, Any]:
    """The content of a checkpoint of :class:`RecBoleTrainer`, its tensors on ``device``.

    Raises:
        DataError: where there is no such file, or another writer's.
    """
    path = Path(file)
    if not path.is_file():
        raise DataError(f"no checkpoint at {path}: train with RecBoleTrainer.fit(..., saved=True) first")
    expected = "expected one that recbole_dtn.bridge.RecBoleTrainer wrote"
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not its own
        raise DataError(
            f"{path} is not a checkpoint of plain values; {expected} (RecBole's own Trainer pickles its Config)"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{path} is a checkpoint of another program or version; {expected}")
    return content

"""RecBole's Config without its side effects."""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np
import torch
import yaml
from recbole.config import Config

from recbole_dtn.errors import UsageError

__all__ = ["REFUSED", "RecBoleConfig"]

NUMPY_NAMES = {
    "bool": "bool_", "int": "int_", "float": "float64", "complex": "complex128", "object": "object_", "str": "str_",
    "long": "int_", "unicode": "str_", "float_": "float64", "complex_": "complex128", "unicode_": "str_",
}  # fmt: skip
"""Names that RecBole 1.2.1 uses and numpy has removed, with the names that replace them."""

REFUSED = {
    "gpu_id": "RecBole writes it into CUDA_VISIBLE_DEVICES: set that variable yourself, and use_gpu",
    "nproc": "RecBole's own processes are not supported: train with recbole_dtn and --devices",
    "local_rank": "RecBole's own processes are not supported: train with recbole_dtn and --devices",
    "save_dataset": "RecBole reuses the saved data set after files and settings have changed: leave it out",
    "save_dataloaders": "RecBole reuses the saved loaders after files and settings have changed: leave it out",
}
"""Keys of RecBole that do harm, and why."""


class _Loader(yaml.SafeLoader):
    """RecBole's YAML, in which ``1e-3`` is a number. A class of its own: stock RecBole patches yaml.FullLoader."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


class RecBoleConfig(Config):  # type: ignore[misc]
    """RecBole's Config without its side effects; takes the same arguments.

    The stock class reads sys.argv, evaluates strings as Python, overwrites CUDA_VISIBLE_DEVICES, patches
    yaml.FullLoader for the whole process, gives a class the YAML of the stock model that shares its name, fails
    under numpy 2, and reads a set named ``ml-100k`` from a folder of its own. This one does none of that.

    Raises:
        UsageError: for a key of :data:`REFUSED`.
    """

    def compatibility_settings(self) -> None:
        # Only what numpy no longer has: names that exist keep their meaning.
        for name, meaning in NUMPY_NAMES.items():
            if name not in vars(np):
                setattr(np, name, getattr(np, meaning))

    def _build_yaml_loader(self) -> type[yaml.SafeLoader]:
        return _Loader

    def _convert_config_dict(self, config_dict: dict[str, Any]) -> dict[str, Any]:
        return dict(config_dict)  # stock: eval() of every string

    def _load_cmd_line(self) -> dict[str, Any]:
        return {}  # stock: whatever sys.argv holds, over everything else

    def _load_internal_config_dict(self, model: str, model_class: type, dataset: str) -> None:
        for key, reason in REFUSED.items():
            if self.external_config_dict.get(key):
                raise UsageError(f"RecBole's {key}={self.external_config_dict[key]!r} is refused: {reason}")
        is_stock = model_class.__module__.split(".")[0] == "recbole"
        # An empty name keeps RecBole from loading the YAML of a stock model, or of a data set, of the same name.
        super()._load_internal_config_dict(model if is_stock else "", model_class, "")

    def _set_default_parameters(self) -> None:
        given = self.final_config_dict["data_path"]
        super()._set_default_parameters()
        folder = self.final_config_dict["checkpoint_dir"]
        # By default create_dataset and data_preparation unpickle any cache found in checkpoint_dir.
        never = os.path.join(folder, ".no-saved-data")
        self.final_config_dict.update(
            data_path=os.path.join(given, self.dataset), dataset_save_path=never, dataloaders_save_path=never
        )

    def _init_device(self) -> None:
        # Stock: writes gpu_id into CUDA_VISIBLE_DEVICES and starts torch.distributed.
        use_gpu = bool(self.final_config_dict["use_gpu"]) and torch.cuda.is_available()
        self.final_config_dict.update(
            gpu_id="", single_spec=True, local_rank=0, device=torch.device("cuda" if use_gpu else "cpu")
        )

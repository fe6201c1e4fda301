"""The other sides of the preprocessing benchmark; run by the interpreter of each peer, so it imports nothing of ours.

``python preprocess_peers.py SIDE FOLDER OUTPUT``: FOLDER holds data.csv and atomic/atomic.inter.
"""

import json
import sys
import time
from pathlib import Path

LABELS = ["click", "buy"]


def barest(folder: Path, output: Path, *, as_text: bool) -> float:
    """The least a script can do with Polars: read, count, threshold, map, write Parquet."""
    import polars as pl

    start = time.perf_counter()
    frame = pl.read_csv(folder / "data.csv", infer_schema=not as_text)
    made = []
    for name in frame.columns:
        if name in LABELS:
            made.append(frame[name])
            continue
        counts = frame[name].value_counts(sort=True).filter(pl.col("count") >= 1)
        ids = counts.with_row_index("id", offset=2).select(name, pl.col("id").cast(pl.Int32))
        joined = frame.select(name).join(ids, on=name, how="left", maintain_order="left")
        made.append(joined["id"].fill_null(1).alias(name))
    pl.DataFrame(made).write_parquet(output / "encoded.parquet")
    return time.perf_counter() - start


def pandas_encoder(folder: Path, output: Path, *, as_text: bool) -> float:
    """pandas and scikit-learn's LabelEncoder, as torch-rechub's examples do it; saved as one array.

    ``as_text`` keeps ids as they are spelled (``007`` and ``7`` are two); else pandas reads integers.
    """
    import numpy as np
    import pandas as pd
    from sklearn.preprocessing import LabelEncoder

    start = time.perf_counter()
    frame = pd.read_csv(folder / "data.csv", dtype=str if as_text else None)
    for name in frame.columns:
        if name not in LABELS:
            frame[name] = LabelEncoder().fit_transform(frame[name])
        elif as_text:
            frame[name] = frame[name].astype(int)
    np.save(output / "encoded.npy", frame.to_numpy())
    return time.perf_counter() - start


def fuxictr(folder: Path, output: Path) -> float:
    """FuxiCTR's FeatureProcessor and build_dataset: every column a categorical, one Parquet file."""
    from fuxictr.preprocess import FeatureProcessor, build_dataset

    with (folder / "data.csv").open() as file:
        names = [name for name in file.readline().strip().split(",") if name not in LABELS]
    start = time.perf_counter()
    processor = FeatureProcessor(
        feature_cols=[{"name": names, "active": True, "dtype": "str", "type": "categorical"}],
        label_col=[{"name": name, "dtype": "float"} for name in LABELS],
        dataset_id="encoded",
        data_root=str(output),
    )
    build_dataset(processor, train_data=str(folder / "data.csv"))
    return time.perf_counter() - start


def recbole(folder: Path, output: Path) -> float:
    """Stock RecBole: Config, create_dataset and data_preparation's split from the atomic file."""
    import logging

    sys.argv = sys.argv[:1]
    from recbole.config import Config
    from recbole.data import create_dataset

    logging.disable(logging.CRITICAL)
    start = time.perf_counter()
    config = Config(
        model="DeepFM",
        dataset="atomic",
        config_dict={
            "data_path": str(folder),
            "load_col": None,
            "LABEL_FIELD": "click",
            "USER_ID_FIELD": None,
            "ITEM_ID_FIELD": None,
            "numerical_features": [],
            "gpu_id": "",
            "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": None, "mode": "labeled"},
        },
    )
    create_dataset(config).build()
    return time.perf_counter() - start


SIDES = {
    "barest-integers": lambda folder, output: barest(folder, output, as_text=False),
    "barest-text": lambda folder, output: barest(folder, output, as_text=True),
    "pandas-integers": lambda folder, output: pandas_encoder(folder, output, as_text=False),
    "pandas-text": lambda folder, output: pandas_encoder(folder, output, as_text=True),
    "fuxictr": fuxictr,
    "recbole": recbole,
}

if __name__ == "__main__":
    side, folder, output = sys.argv[1:4]
    print(json.dumps({"seconds": SIDES[side](Path(folder), Path(output))}))

"""RecBole's names of settings: two are accepted, the others are refused with the name of ours.

Source: RecBole 1.2.1 ``properties/overall.yaml`` and ``properties/dataset/sample.yaml``, its ``run_recbole.py``.
"""

from __future__ import annotations

__all__ = ["ALIASES", "REFUSED"]

ALIASES = {"learning_rate": "optimizer.lr", "learner": "optimizer.name"}
"""Accepted: RecBole's name -> ours."""

REFUSED = {
    "gpu_id": "choose the device with accelerator (cpu, gpu) and devices",
    "use_gpu": "choose the device with accelerator (cpu, gpu)",
    "enable_amp": "set precision: 16-mixed or bf16-mixed",
    "enable_scaler": "precision: 16-mixed scales the loss by itself",
    "nproc": "the number of processes is devices",
    "world_size": "the number of processes is devices, times num_nodes",
    "group_offset": "the launcher numbers the processes; set devices and num_nodes",
    "ip": "the launcher sets MASTER_ADDR; set devices and num_nodes",
    "port": "the launcher sets MASTER_PORT; set devices and num_nodes",
    "worker": "the loader cuts batches without worker processes; CPU threads are threads",
    "state": "to see less, set quiet",
    "reproducibility": "runs repeat by seed and split_seed",
    "checkpoint_dir": "run folders go to output_dir",
    "show_progress": "it is progress",
    "save_dataset": "the encoded data is always cached; the folder is cache_dir",
    "dataset_save_path": "the folder of the encoded data is cache_dir",
    "save_dataloaders": "the encoded data is always cached; the folder is cache_dir",
    "dataloaders_save_path": "the folder of the encoded data is cache_dir",
    "log_wandb": "name wandb in loggers",
    "config_file_list": "it is config_files",
    "clip_grad_norm": "it is gradient_clip, the largest norm",
    "train_neg_sample_args": "rows are labelled, nothing is sampled; leave it out",
    "eval_args": "set split, split_ratio and split_seed",
    "metrics": "every metric is reported; the one that selects is valid_metric",
    "topk": "rows are labelled, nothing is ranked; leave it out",
    "valid_metric_bigger": "valid_metric knows its direction; leave it out",
    "benchmark_filename": "set split: given; the parts are train, valid and test",
    "load_col": "list the inputs in fields",
    "unload_col": "list the inputs in fields",
    "numerical_features": "give the field the type float in fields",
    "normalize_all": "floats are standardised or binned by encoding, per field in fields",
    "normalize_field": "floats are standardised or binned by encoding, per field in fields",
    "discretization": "give the field encoding: bins in fields",
    "LABEL_FIELD": "name the labels in tasks",
    "threshold": "give the task a condition in tasks, such as rating >= 4",
    "USER_ID_FIELD": "it is user_field; an input is named in fields",
    "ITEM_ID_FIELD": "name the input in fields",
    "TIME_FIELD": "it is time_field",
    "user_inter_num_interval": "rare tokens share one id by min_count",
    "item_inter_num_interval": "rare tokens share one id by min_count",
    "dropout_prob": "it is dropout",
}
"""Refused: RecBole's name -> what to do instead."""

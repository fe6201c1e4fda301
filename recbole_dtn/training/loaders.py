"""The loaders of a run: each process's share of every split, in an order of its own in every epoch."""

from __future__ import annotations

import pytorch_lightning as lightning

from recbole_dtn.config.settings import Settings
from recbole_dtn.data.loader import BatchLoader, rows_in_memory
from recbole_dtn.data.store import Split
from recbole_dtn.preprocess.prepare import PreparedData
from recbole_dtn.registry import MODELS
from recbole_dtn.training.profile import ProfiledLoader
from recbole_dtn.training.report import Report

__all__ = ["EpochOrder", "Loaders"]


class Loaders(lightning.LightningDataModule):
    """The loaders of this process: each rank's own share of the rows, known once the trainer is.

    A thread cuts two batches ahead, on a CPU too, where it costs no measurable time (docs/loader.md). For a GPU it also
    copies them into page-locked memory.
    """

    PREFETCH = 2

    def __init__(self, settings: Settings, prepared: PreparedData, report: Report) -> None:
        super().__init__()
        self.settings = settings
        self.prepared = prepared
        self.report = report
        self.start = (0, 0)
        """Epoch of the first iteration over the training rows, from 0, and batches to leave out at its start."""

    def _loader(self, split: str, batch_size: int, *, train: bool) -> BatchLoader:
        assert self.trainer is not None
        rows = self.prepared.splits[split]
        kind = ProfiledLoader if self.settings.profile else BatchLoader
        on_gpu = self.trainer.strategy.root_device.type == "cuda"
        return kind(
            rows,
            batch_size,
            shuffle=train,
            seed=self.settings.seed,
            # Each process reads its own rows, so Lightning's sampler is turned off (use_distributed_sampler). In
            # training uneven ends are dropped, as DDP needs as many steps on every process; in evaluation none are, so
            # that each row counts once.
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            drop_uneven=train,
            shuffle_rows=self._shuffle_rows(rows) if train else None,
            prefetch=self.PREFETCH,
            pin=on_gpu,
            least=MODELS.load(self.settings.model).min_batch_rows if train else 1,
        )

    def _shuffle_rows(self, rows: Split) -> int:
        """The setting, or what the first process finds: machines may differ, and all must visit one order."""
        assert self.trainer is not None
        # Every process calls broadcast, also one whose own value is not used.
        found: int = self.trainer.strategy.broadcast(self.settings.shuffle_rows or rows_in_memory(rows))
        if found < rows.rows:
            self.report.show(f"shuffled in blocks, {found:,} of {rows.rows:,} rows at a time (shuffle_rows)")
        return found

    def train_dataloader(self) -> BatchLoader:
        loader = self._loader("train", self.settings.train_batch_size, train=True)
        loader.set_epoch(*self.start)
        return loader

    def val_dataloader(self) -> BatchLoader:
        return self._loader("valid", self.settings.eval_batch_size, train=False)

    def test_dataloader(self) -> BatchLoader:
        return self._loader("test", self.settings.eval_batch_size, train=False)


class EpochOrder(lightning.Callback):
    """Sets the loader's epoch, so that every epoch has a different order."""

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        loader = trainer.train_dataloader
        assert isinstance(loader, BatchLoader)
        # The order depends on seed and epoch alone, not on the batches drawn before.
        loader.set_epoch(trainer.current_epoch)

"""The setting ``compile``: the training forward through ``torch.compile``, with the tables left outside.

One graph holds what follows the look-up, up to the logits. Outside of it stay, called as they are written:

* every module that owns a table (the embedding, MemoNet): its gradient is sparse and its sizes depend on the data (how
  many values a multi-valued field has, how many distinct codewords), which neither the compiler nor a CUDA graph takes;
* a batch of another size than ``train_batch_size`` (the last of an epoch), which would be compiled for itself;
* evaluation, ``load`` and ``predict``;
* losses, balancer and optimiser.

Parameters and their names stay those of the model: the compiled function is not a module. While
``torch.compiler.is_compiling()``, the layers use torch operations instead of their hand-written autograd Functions.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from recbole_dtn.config.settings import Settings
from recbole_dtn.data.features import Features
from recbole_dtn.errors import UsageError
from recbole_dtn.layers.stages import stage
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.model.front import Front

__all__ = ["CompiledForward", "check_compiler", "compiled_forward"]

BACKEND = "inductor"
"""What compiles; tests put one here that starts no C++ compiler."""

RECOMPILE_LIMIT = 64
"""Kinds of modules that share one line of a model's code (DTN's interactions) are compiled one by one; torch gives up
after 8."""


class CompiledForward:
    """Calls a model's forward: training batches of ``rows`` rows compiled, all others as they are.

    Args:
        model: the model, whose modules with tables are put outside of the graph for good. mode: one of torch's modes.
        rows: rows of a full training batch.
    """

    def __init__(self, model: MultiTaskRecommender, mode: str, rows: int) -> None:
        self.model, self.rows = model, rows
        _keep_outside(model)
        how: dict[str, Any] = {"backend": BACKEND}
        if BACKEND == "inductor":
            # The eager path's random numbers, so that a seed drops the same units; a mode is a set of options.
            how["options"] = {**_options(mode), "fallback_random": True}
        # Arguments of newer torch; without them DTN's interactions beyond the eighth kind run as they are.
        newer = {"recompile_limit": RECOMPILE_LIMIT, "isolate_recompiles": True}
        known = signature(torch.compile).parameters
        how |= {name: value for name, value in newer.items() if name in known}
        # dynamic=False: all compiled batches have ``rows`` rows, and a shape that is known gives faster code.
        self._forward: Callable[[Features], ModelOutput] = torch.compile(model.forward, dynamic=False, **how)

    def __call__(self, features: Features) -> ModelOutput:
        """As the model's own call."""
        # A graph is compiled for one mode and one size; any other call would be compiled anew.
        if not (self.model.training and torch.is_grad_enabled() and len(features) == self.rows):
            output: ModelOutput = self.model(features)
            return output
        # Outputs of the last step may be overwritten from here on.
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        with stage("forward"):
            return self._forward(features)


def compiled_forward(model: MultiTaskRecommender, settings: Settings) -> CompiledForward | None:
    """What the setting ``compile`` asks for; None for ``none``."""
    if settings.compile == "none":
        return None
    return CompiledForward(model, settings.compile, settings.train_batch_size)


def check_compiler(settings: Settings) -> None:
    """Refuse a ``compile`` that cannot work here, before any data is read. Takes some seconds the first time.

    Raises:
        UsageError: without a compiler, or for CUDA graphs without a GPU.
    """
    mode = settings.compile
    if mode == "none":
        return
    on_gpu = settings.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    if mode == "reduce-overhead" and not on_gpu:
        raise UsageError(
            "compile=reduce-overhead: it records CUDA graphs, and this run has no CUDA device "
            f"(accelerator={settings.accelerator}); use compile=default or none"
        )
    missing = None if BACKEND != "inductor" else _missing(on_gpu)
    if missing:
        raise UsageError(f"compile={mode}: {missing}; or use compile=none, which needs no compiler")
    try:
        # A small function needs the whole tool chain: compiler, linker and headers.
        torch.compile(_trial, backend=BACKEND)(torch.zeros(64, device="cuda" if on_gpu else "cpu"))
    except Exception as error:  # whatever the compiler, the linker or the system says
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:3]) or type(error).__name__  # the first says only which backend raised
        raise UsageError(
            f"compile={mode}: torch.compile failed on a trial of one line: {reason[:300]}\n"
            "It needs a C++ compiler and Python's headers (Debian, Ubuntu: apt install g++ python3-dev), on a GPU "
            "triton too; or use compile=none"
        ) from error


def _missing(on_gpu: bool) -> str | None:
    """What to install, if a missing package is detected before compiling; else None."""
    if on_gpu and find_spec("triton") is None:
        return "expected the package triton, which torch.compile needs on a GPU, found none: pip install triton"
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None and not sys.platform.startswith("win"):
        return (
            f"expected a C++ compiler, {compiler}, which torch.compile calls; it is not on the PATH: install it "
            "(Debian, Ubuntu: apt install g++ python3-dev) or name another in the environment variable CXX"
        )
    return None


def _trial(x: Tensor) -> Tensor:
    return torch.sin(x) + 1.0


def _options(mode: str) -> dict[str, Any]:
    found: dict[str, Any] = torch._inductor.list_mode_options(mode)
    return found


def _keep_outside(model: nn.Module) -> None:
    """Break the graph at every module that owns a table; at the table itself where the model is the owner.

    A break within a function that the model's forward calls ends a graph of its own. So the steps that only flatten the
    embeddings stay outside too.
    """
    for owner, table in list(_tables(model)):
        _disable(table if owner is model else owner, "forward", "prepare", "look_up")
    # A front without an interaction only flattens: compiled, it would be a graph of its own.
    flat = [front for front in model.modules() if isinstance(front, Front) and front.interaction is None]
    for front in flat:
        _disable(front, "forward")
    if getattr(model, "front", None) in flat:
        _disable(model, "input")


def _disable(part: nn.Module, *names: str) -> None:
    for name in names:
        if hasattr(part, name):
            setattr(part, name, torch.compiler.disable(getattr(part, name)))  # type: ignore[no-untyped-call]


def _tables(model: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Every module that looks rows up, after its owner; an owner comes once."""
    for owner in model.modules():
        tables = [child for child in owner.children() if isinstance(child, nn.Embedding | nn.EmbeddingBag)]
        for table in tables if owner is model else tables[:1]:
            yield owner, table

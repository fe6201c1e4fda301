"""Finding a tensor on the wrong device without a GPU: a part is run on torch's ``meta`` device, which has no values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["check_one_device"]

ACROSS = {"copy_", "_to_copy", "index", "index_put_", "_index_put_impl_"}
"""Operations that a GPU allows on tensors of two devices: copies, and looking up by an index on the CPU."""


class _OneDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every operation reads tensors of one device; a single number on the CPU goes with any."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        # Tensors in nested lists count too, such as those of torch.cat.
        leaves = tree_leaves((args, kwargs or {}))
        kinds = sorted({leaf.device.type for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim() > 0})
        name = func.overloadpacket.__name__
        if len(kinds) > 1 and name not in ACROSS:
            raise AssertionError(
                f"{name} reads tensors on {' and '.join(kinds)}: make each on the device of the input "
                "(device=x.device), or register it as a parameter or buffer"
            )
        return func(*args, **(kwargs or {}))


def check_one_device(what: str, run: Callable[[], Any]) -> None:
    """Call ``run``, whose inputs are on the meta device, and find operations that mix devices.

    An operation that has no rule for tensors without values (its result's size depends on the data, say) ends the
    check without a fault.

    Raises:
        AssertionError: ``what`` and the operation.

    >>> import torch
    >>> x = torch.ones(3, device="meta")
    >>> check_one_device("forward", lambda: x + torch.arange(3, device=x.device))
    >>> check_one_device("forward", lambda: x * torch.arange(3))
    Traceback (most recent call last):
    AssertionError: forward: mul reads tensors on cpu and meta: make each on the device of the input ...
    """
    try:
        with _OneDevice():  # type: ignore[no-untyped-call]
            run()
    # No rule for tensors without values: nothing can be said.
    except NotImplementedError:
        return
    except AssertionError as error:
        raise AssertionError(f"{what}: {error}") from error
    except RuntimeError as error:
        if "cannot be called on meta tensors" not in str(error):
            raise AssertionError(f"{what}: failed on the meta device: {error}") from error

"""Muon for the weights of convolutions too: each is stepped as the matrix that its kernels make."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class ConvolutionMuon(torch.optim.Muon):
    """``torch.optim.Muon``, which takes matrices only, for weights (out, in, ...) of any shape.

    A weight of more axes is stepped as (out, in · ...), and written back.

    Args:
        weights: of two axes or more.
        options: of ``torch.optim.Muon``.
    """

    def __init__(self, weights: Iterable[nn.Parameter], **options: Any) -> None:
        self.weights = list(weights)
        matrices = [nn.Parameter(weight.detach().flatten(1)) for weight in self.weights]
        super().__init__(matrices, **options)
        self.matrices = matrices

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step of every weight that has a gradient."""
        for weight, matrix in zip(self.weights, self.matrices, strict=True):
            matrix.data = weight.detach().flatten(1)  # where the model is now, and what it holds
            matrix.grad = None if weight.grad is None else weight.grad.flatten(1)
        super().step(closure)
        for weight, matrix in zip(self.weights, self.matrices, strict=True):
            weight.copy_(matrix.view(weight.shape))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the weights, and of the matrices made of them."""
        super().zero_grad(set_to_none)
        for weight in self.weights:
            weight.grad = None


def hidden_matrices(model: nn.Module, others: Iterable[str] = ()) -> list[str]:
    """Names of the weights that Muon steps well: with two axes or more, tables left out.

    Args:
        others: parts of names to leave out, such as those of first and last layers.
    """
    tables = {
        f"{name}.weight" for name, part in model.named_modules() if isinstance(part, nn.Embedding)
    }
    others = tuple(others)

    def is_hidden(name: str, weight: Tensor) -> bool:
        return weight.ndim > 1 and name not in tables and not any(part in name for part in others)

    return [name for name, weight in model.named_parameters() if is_hidden(name, weight)]

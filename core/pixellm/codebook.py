"""The segmentation codebook: L scales of N tokens that stand for one target (paper, section 3).

Token i = l·N + n belongs to scale l, 0 the deepest, and is written "[SEGi]". A target is one group
of all L·N tokens in a row. Its mask is made from the hidden states that *predict* these tokens:
those at the positions before them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.pixellm.config import PixelLMConfig

IMAGE_TOKEN = -200  # stands for the picture in a list of token ids; in no vocabulary


@dataclass(frozen=True)
class Codebook:
    """Ids of the codebook tokens.

    Args:
        ids: L·N vocabulary ids, in the order of scales.
        scales: L.
        blanks: ids of bare white space, which some tokenizers put between codebook tokens; they
            do not break a group.
    """

    ids: tuple[int, ...]
    scales: int
    blanks: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if len(set(self.ids)) < len(self.ids) or len(self.ids) % self.scales:
            raise ValueError(
                f"codebook ids {self.ids} are not distinct ones of {self.scales} scales"
            )

    def __len__(self) -> int:
        return len(self.ids)


def token_names(config: PixelLMConfig) -> tuple[str, ...]:
    """The strings of the codebook tokens in a vocabulary."""
    count = config.scales * config.tokens_per_scale
    return ("[SEG]",) if count == 1 else tuple(f"[SEG{index}]" for index in range(count))


@dataclass(frozen=True)
class Groups:
    """Where codebook tokens stand in a list of ids.

    Args:
        complete: for each target the indices of its L·N tokens.
        broken: for each run of codebook tokens that is no target, its indices.
    """

    complete: tuple[tuple[int, ...], ...] = ()
    broken: tuple[tuple[int, ...], ...] = ()


class GroupReader:
    """Read groups from tokens as they come; ``complete`` and ``broken`` grow as in ``Groups``."""

    def __init__(self, codebook: Codebook) -> None:
        self._codebook = codebook
        self._open: list[int] = []
        self._next = 0  # index of the token that comes
        self.complete: list[tuple[int, ...]] = []
        self.broken: list[tuple[int, ...]] = []

    def read(self, token: int) -> tuple[int, ...] | None:
        """Take the next token; returns the indices of a group that it completes, else None."""
        ids = self._codebook.ids
        index, self._next = self._next, self._next + 1
        if self._open and token in self._codebook.blanks:
            return None
        if token != ids[len(self._open)]:
            self.end()
            if token not in ids:
                return None
            if token != ids[0]:
                self._add_broken(index)
                return None
        self._open.append(index)
        if len(self._open) < len(ids):
            return None
        group, self._open = tuple(self._open), []
        self.complete.append(group)
        return group

    def end(self) -> None:
        """Close a group that has begun and does not go on."""
        if self._open:
            self.broken.append(tuple(self._open))
            self._open = []

    def _add_broken(self, index: int) -> None:
        """Count a stray token to the broken run that it continues."""
        if self.broken and self.broken[-1][-1] == index - 1:
            self.broken[-1] += (index,)
        else:
            self.broken.append((index,))


def find_groups(ids: Iterable[int], codebook: Codebook, *, unchecked: bool = False) -> Groups:
    """Find the groups of codebook tokens in a list of ids.

    Args:
        unchecked: as the published code does: any codebook tokens, in whatever order, make groups
            as they come, and there is no group at all unless their number is a multiple of L·N.
    """
    if unchecked:
        return _find_unchecked(ids, codebook)
    reader = GroupReader(codebook)
    for token in ids:
        reader.read(token)
    reader.end()
    return Groups(tuple(reader.complete), tuple(reader.broken))


def state_positions(
    groups: Groups, ids: Sequence[int], codebook: Codebook, image_tokens: int
) -> Tensor:
    """Positions of the hidden states that make each target, in the expanded sequence.

    There each ``IMAGE_TOKEN`` takes ``image_tokens`` positions, so that what comes after it is
    shifted; a token's state is the one before it.

    Returns:
        int64 (K, L·N).
    """
    shift, expanded = 0, []
    for index, token in enumerate(ids):
        expanded.append(index + shift)
        shift += image_tokens - 1 if token == IMAGE_TOKEN else 0
    rows = [[expanded[index] - 1 for index in group] for group in groups.complete]
    return torch.tensor(rows, dtype=torch.long).reshape(-1, len(codebook))


class Fusion(nn.Module):
    """Weights of the tokens of a scale and of the scales' masks.

    Published: constants 1/(L·N) for each of the N tokens, which makes half of their mean with
    L = 2, and 1/L for each scale; one token alone is taken as it is. With ``learned_fusion``
    they are parameters, the scales' a softmax, so that they add up to 1 as in the paper.
    """

    def __init__(self, config: PixelLMConfig) -> None:
        super().__init__()
        scales, tokens = config.scales, config.tokens_per_scale
        self.learned = config.learned_fusion
        self.scales = scales
        self.token_weight = 1.0 if tokens == 1 else 1.0 / (scales * tokens)
        if self.learned:
            self.token_weights = nn.Parameter(torch.full((scales, tokens), self.token_weight))
            self.scale_logits = nn.Parameter(torch.zeros(scales))

    def fuse_tokens(self, vectors: Tensor) -> Tensor:
        """Fuse codebook vectors (K, L, N, C) to one prompt for each scale, (K, L, C)."""
        if self.learned:
            return torch.einsum("klnc,ln->klc", vectors, self.token_weights)
        return vectors.sum(dim=2) * self.token_weight

    def scale_weights(self, device: torch.device) -> Tensor:
        """γ of the scales, (L,)."""
        if self.learned:
            return self.scale_logits.softmax(0)
        return torch.full((self.scales,), 1.0 / self.scales, device=device)


def _find_unchecked(ids: Iterable[int], codebook: Codebook) -> Groups:
    found = [index for index, token in enumerate(ids) if token in codebook.ids]
    size = len(codebook)
    if len(found) % size:
        return Groups((), (tuple(found),))
    return Groups(tuple(tuple(found[k : k + size]) for k in range(0, len(found), size)))

"""Construct a RobustSAM of any configuration, from published checkpoints or from our own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from segment_anything.modeling import Sam
from torch import Tensor

from core.errors import ModelUnavailable
from core.models.catalogue import catalogue
from core.models.loading import file_sha256, read_state_dict
from core.robustsam.config import RobustSamConfig
from core.robustsam.decoder import RobustMaskDecoder
from core.sam.build import build_sam, fill
from core.sam.config import SamConfig

if TYPE_CHECKING:
    from core.models.catalogue import Entry

PUBLISHED = {768: SamConfig.vit_b(), 1024: SamConfig.vit_l(), 1280: SamConfig.vit_h()}


def build_robust_sam(config: RobustSamConfig) -> Sam:
    """Build a SAM whose mask decoder has the robust path, with freshly initialised weights."""
    decoder = partial(
        RobustMaskDecoder,
        early_dim=config.early_dim,
        norm_stats=config.norm_stats,
        multimask=config.multimask,
    )
    return build_sam(config.sam, decoder)


def build_from_entry(entry: Entry, state_dict: dict[str, Tensor]) -> Sam:
    """Build the catalogue's ``entry`` and fill in its weights (eval mode, CPU, frozen).

    An entry whose configuration names a ``base`` holds the added parameters only; the rest comes
    from that SAM of the catalogue, on which they were trained.

    Raises:
        ModelUnavailable: names or shapes do not fit, or the base is another one by now.
    """
    values = dict(entry.config)
    values.pop("compare_with", None)
    if base := values.pop("base", None):
        state_dict = add_to_base(state_dict, base, values.pop("base_sha256"))
        values["sam"] = catalogue()[base].config
    else:
        state_dict = strip_wrapper(state_dict)
    config = RobustSamConfig.from_dict(values)
    return fill(lambda: build_robust_sam(config), state_dict, name=entry.id)


def compared_sam(entry: Entry) -> str:
    """Id of the SAM that a RobustSAM of the catalogue is compared with: the one inside it.

    A published file has a SAM of its own inside, whose decoder its training moved; the fair
    comparison is with the SAM that was published as such.
    """
    return entry.config.get("base") or entry.config["compare_with"]


def add_to_base(added: dict[str, Tensor], base: str, sha256: str) -> dict[str, Tensor]:
    """Join the decoder's added parameters with the weights of a SAM of the catalogue."""
    path = Path(catalogue()[base].file)
    if not path.is_file():
        raise ModelUnavailable(f"The weights of {base} are missing: restore assets/models.")
    if file_sha256(path) != sha256:
        raise ModelUnavailable(
            f"RobustSAM was trained on other weights of {base} than are here: train it again with "
            "`python -m core.training robustsam`."
        )
    return read_state_dict(path) | {f"mask_decoder.{name}": value for name, value in added.items()}


def strip_wrapper(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Undo what data-parallel training puts before each name."""
    return {name.removeprefix("module."): value for name, value in state_dict.items()}


def published_config(state_dict: dict[str, Tensor]) -> RobustSamConfig:
    """Tell ViT-B, L and H apart by the width of their position embedding.

    Raises ModelUnavailable if it is none of them.
    """
    positions = strip_wrapper(state_dict).get("image_encoder.pos_embed")
    width = None if positions is None else positions.shape[-1]
    if width not in PUBLISHED:
        raise ModelUnavailable(
            f"These weights are of no published RobustSAM: the encoder's width is {width}, not one "
            f"of {', '.join(map(str, PUBLISHED))}. Get robustsam_checkpoint_b, _l or _h."
        )
    return RobustSamConfig.published(PUBLISHED[width])

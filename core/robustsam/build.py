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

if TYPE_CHECKING:
    from core.models.catalogue import Entry

SIZES = {768: "ViT-B", 1024: "ViT-L", 1280: "ViT-H"}  # by the encoder's width
POSITIONS = "image_encoder.pos_embed"


def build_robust_sam(config: RobustSamConfig) -> Sam:
    """Build a SAM whose mask decoder has the robust path, with freshly initialised weights."""
    decoder = partial(
        RobustMaskDecoder,
        early_dim=config.early_dim,
        last_dim=config.last_dim,
        norm_stats=config.norm_stats,
        multimask=config.multimask,
    )
    return build_sam(config.sam, decoder)


def build_from_entry(entry: Entry, state_dict: dict[str, Tensor]) -> Sam:
    """Build the catalogue's ``entry`` and fill in its weights (eval mode, CPU, frozen).

    An entry whose configuration names a ``base`` holds the added parameters only; the rest comes
    from that SAM of the catalogue, on which they were trained.

    Raises:
        ModelUnavailable: names or shapes do not fit, the file is of another size than the entry,
            or the base is another one by now.
    """
    values = dict(entry.config)
    values.pop("compare_with", None)
    if base := values.pop("base", None):
        state_dict = add_to_base(state_dict, base, values.pop("base_sha256"))
        values["sam"] = catalogue()[base].config
    else:
        check_size(entry, state_dict)
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


def check_size(entry: Entry, state_dict: dict[str, Tensor]) -> None:
    """See that a published file is of the entry's size, which its position embedding tells.

    Raises ModelUnavailable if it is another RobustSAM's, or none's.
    """
    positions = state_dict.get(POSITIONS)
    width = None if positions is None else positions.shape[-1]
    wanted = entry.config["sam"]["embed_dim"]
    if width != wanted:
        raise ModelUnavailable(
            f"{entry.file_name} is not {entry.title}, whose encoder is {wanted} wide: "
            f"{_say_width(width)}. Get the file that its publisher names so."
        )


def _say_width(width: int | None) -> str:
    if width is None:
        return "it has no image encoder"
    size = SIZES.get(width)
    return f"it is {width} wide" + (f", as that of {size}" if size else "")

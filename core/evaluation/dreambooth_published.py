"""Published figures of subject-driven generation, to stand beside ours.

From the DreamBooth paper's tables (30 subjects, 25 prompts, 4 pictures each) and from later papers'
comparisons. PerSAM's paper shows pictures of its DreamBooth only and gives no figure, so there is
no published figure of the masked training.
"""

from __future__ import annotations

from typing import Any


def _row(source: str, dino: float, clip_i: float, clip_t: float | None) -> dict[str, Any]:
    values = {"dino": dino, "clip_i": clip_i, "clip_t": clip_t}
    return {key: value for key, value in values.items() if value is not None} | {"source": source}


PAPER, LATER = "DreamBooth, table 1", "comparison table of DreamCache, on SD 1.5"
METHODS: dict[str, dict[str, Any]] = {
    "real_photographs": _row(PAPER, 0.774, 0.885, None),
    "dreambooth_imagen": _row(PAPER, 0.696, 0.812, 0.306),
    "dreambooth_stable_diffusion": _row(PAPER, 0.668, 0.803, 0.305),
    "textual_inversion_stable_diffusion": _row(PAPER, 0.569, 0.780, 0.255),
    "custom_diffusion": _row(LATER, 0.643, 0.790, 0.305),
    "blip_diffusion_fine_tuned": _row(LATER, 0.670, 0.805, 0.302),
}
PRIOR: dict[str, dict[str, float]] = {  # Imagen, 15 subjects
    "with_prior": {"pres": 0.493, "div": 0.391, "dino": 0.684, "clip_i": 0.815, "clip_t": 0.308},
    "without_prior": {"pres": 0.664, "div": 0.371, "dino": 0.712, "clip_i": 0.828, "clip_t": 0.306},
}
CLASS_NOUN: dict[str, dict[str, float]] = {  # Imagen
    "correct": {"dino": 0.744, "clip_i": 0.853},
    "none": {"dino": 0.303, "clip_i": 0.607},
    "wrong": {"dino": 0.454, "clip_i": 0.728},
}
REMARKS = (
    "DINO and CLIP-I of whole pictures reward a copied background, which the mask is to prevent; "
    "our subject fidelity is of pictures cut to the subject, and the whole pictures' stands apart.",
    "On the sticker world features are the embedded CLIP's: figures there compare our own runs "
    "with each other, not with these.",
    "Differences of about 0.1 in DINO and 0.05 in CLIP-T are called significant.",
)
PUBLISHED: dict[str, Any] = {
    "methods": METHODS,
    "prior_preservation": PRIOR,
    "class_noun": CLASS_NOUN,
    "remarks": list(REMARKS),
}
COLUMNS = ("dino", "clip_i", "clip_t")


def table(ours: dict[str, dict[str, float]] | None = None) -> str:
    """Write the published figures for a terminal, ours by way of training before them.

    Args:
        ours: columns of each way; only what was measured by the same encoders belongs here.
    """
    rows = {f"this run, {way}": row for way, row in (ours or {}).items()} | METHODS
    width = max(map(len, rows))
    lines = [f"  {'':<{width}}" + "".join(f"  {column:>7}" for column in COLUMNS)]
    for name, row in rows.items():
        cells = (f"{row[column]:.3f}" if column in row else "-" for column in COLUMNS)
        lines.append(f"  {name:<{width}}" + "".join(f"  {cell:>7}" for cell in cells))
    head = "Published on google/dreambooth" + ("" if ours else " (other data than ours)")
    return "\n".join([head, *lines])

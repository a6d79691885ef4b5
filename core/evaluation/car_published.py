"""Published figures of CaR and of what it is compared with, to stand beside ours.

The paper's own tables could not be read: figures come from its abstract and from secondary
sources, which ``SOURCES`` names by letter. Mean IoU as fractions, background included unless said.
"""

from __future__ import annotations

from typing import Any

SOURCES = {
    "A": "the paper's abstract (the others' figures follow from the gains that it states)",
    "B": "a review of the paper's third version on arXiv, in a public repository",
    "C": "the comparison table of a later paper (ComCD)",
    "D": "an index of benchmark results",
}
NOT_THE_PAPERS = (
    "None is read from the paper's own tables; comparators' settings and backbones are not known."
)


def _row(sources: str, training: str = "none", **values: float) -> dict[str, Any]:
    """One method: training data beyond CLIP, mean IoU by data set, letters of the sources."""
    return {"training": training, "source": sources, **values}


# Mean IoU on VOC-21, COCO-Object (81 classes) and Context-60.
SEMANTIC: dict[str, dict[str, Any]] = {
    "car": _row("ABCD", voc=0.676, coco_object=0.366, context=0.305),
    "car_sam": _row("B", voc=0.702, context=0.311),
    "maskclip": _row("ABC", voc=0.388, coco_object=0.206, context=0.236),
    "reco": _row("C; VOC also B", voc=0.251, coco_object=0.157, context=0.199),
    "groupvit": _row("B", "26M pairs", voc=0.523),
    "segclip": _row("C; VOC also B", "3.4M pairs", voc=0.526, coco_object=0.265, context=0.247),
    "viewco": _row("C", "yes", voc=0.524, coco_object=0.235, context=0.230),
    "ovsegmentor": _row("C", "yes", voc=0.538, coco_object=0.251, context=0.204),
    "clippy": _row("C; COCO also B", "134M pairs", voc=0.522, coco_object=0.320),
    "tcl": _row("C", "15M pairs", voc=0.512, coco_object=0.304, context=0.243),
    "tcl_as_reviewed": _row("B", "15M pairs", voc=0.550, context=0.304),
    "sam_clip": _row(
        "C; VOC, Context also B", "41M pairs", voc=0.606, coco_object=0.315, context=0.292
    ),
    "tagclip_later": _row("C", voc=0.648),
    "diffsegmenter_later": _row("C", voc=0.601, coco_object=0.379, context=0.275),
    "proxyclip_later": _row("C", voc=0.613, coco_object=0.375, context=0.353),
    "resclip_later": _row("C", voc=0.611, coco_object=0.350, context=0.335),
    "iseg_later": _row("C", voc=0.682, coco_object=0.384, context=0.309),
    "cass_later": _row("C", voc=0.658, coco_object=0.378, context=0.367),
    "lposs_later": _row(
        "C", "listed with the trained ones", voc=0.624, coco_object=0.354, context=0.343
    ),
}

# Mean IoU of CaR (and ReCo) on further sets.
FURTHER: dict[str, dict[str, Any]] = {
    "car": _row("BD", ade20k=0.177),
    "reco": _row("B", ade20k=0.112),
    "car_without_background": _row("D", voc_20=0.914, context_59=0.395),
    "car_many_classes": _row("D", ade_847=0.054, perhaps_pascal_459=0.184),
}

# Mean IoU over objects; Ref-DAVIS 2017 is J&F.
REFERRING: dict[str, dict[str, Any]] = {
    "car": _row(
        "B",
        refcoco_val=0.3357,
        refcoco_testA=0.3536,
        refcoco_plus_testA=0.3603,
        refcocog_google_val=0.3663,
        ref_davis=0.3034,
    ),
    "global_local_clip": _row(
        "B",
        refcoco_val=0.2620,
        refcoco_testA=0.2494,
        refcoco_plus_testA=0.2564,
        refcocog_google_val=0.3361,
    ),
}

# Mean IoU on VOC-21.
ABLATIONS: dict[str, dict[str, Any]] = {
    "recurrence_and_refinement": _row("B", voc=0.676),
    "refinement_without_recurrence": _row("B", voc=0.152),
    "recurrence_without_refinement": _row("B", voc=0.411),
    "three_groups_of_background_words": _row("B", voc=0.676),
}
# With image-level labels given, on VOC's training pictures.
CLIP_ES = {"cam_voc_train": 0.708, "cam_and_crf_voc_train": 0.750, "source": "its own README"}

REMARKS = (
    NOT_THE_PAPERS,
    "TCL: B and C differ; B's look like the variant with a further mask refinement (not verified).",
    "Ref-DAVIS is printed as “J, F”, taken as the mean of both (not verified); no code for video "
    "was published.",
    "0.184 is listed by D as Context-59, where 0.395 is listed too; probably Pascal-459.",
    "A classifier ViT-L/14 in place of ViT-B/16 is worth about 0.135 on VOC; the best visual "
    "prompt is circle and blur (B).",
    "CLIP-ES: a user measured 0.7071 with the same code and its author 0.7082, so versions of "
    "packages move it by about 0.001.",
    "The figures come from the code as far as can be told, which differs from the paper: scores "
    "from the classifier's last block but one, ViT-B/16 as classifier on RefCOCO, θ of 0.25 "
    "instead of 0.2 on Context, the 23 background words instead of stuff names for things.",
    "SAM's figures cannot be reproduced with the released code; IoU 0.7 and IoM 0.7 in the paper.",
    "The data notes say that all sets count background; ADE20K's settings leave it out.",
)

PUBLISHED: dict[str, Any] = {
    "semantic": SEMANTIC,
    "further": FURTHER,
    "referring": REFERRING,
    "ablations": ABLATIONS,
    "clip_es": CLIP_ES,
    "sources": SOURCES,
    "remarks": list(REMARKS),
}


def beside(column: str, ours: float) -> list[dict[str, Any]]:
    """All published figures of one data set with ours among them, the best first.

    Args:
        column: name of the data set as the tables here have it.
        ours: in [0, 1].

    Returns:
        Rows of ``method``, ``value`` and ``source``; only ours where nothing was published.
    """
    rows = [{"method": "this run", "value": ours, "source": "-"}]
    for table in (SEMANTIC, FURTHER, REFERRING):
        rows += [
            {"method": method, "value": row[column], "source": row["source"]}
            for method, row in table.items()
            if column in row
        ]
    return sorted(rows, key=lambda row: -row["value"])


def table(rows: list[dict[str, Any]]) -> str:
    """Write what ``beside`` returns for a terminal."""
    width = max(len(row["method"]) for row in rows)
    lines = [f"  {row['method']:<{width}}  {row['value']:.3f}  {row['source']}" for row in rows]
    return "\n".join(["Published beside ours (for the sources see the report)", *lines])


def semantic_table() -> str:
    """Write the published mean IoUs on the three main data sets for a terminal."""
    columns, width = ("voc", "coco_object", "context"), max(map(len, SEMANTIC))
    lines = [f"  {'':<{width}}" + "".join(f"  {column:>11}" for column in columns)]
    for method, row in SEMANTIC.items():
        cells = (f"{row[column]:.3f}" if column in row else "-" for column in columns)
        lines.append(f"  {method:<{width}}" + "".join(f"  {cell:>11}" for cell in cells))
    return "\n".join(["Published on other data (for the sources see the report)", *lines])

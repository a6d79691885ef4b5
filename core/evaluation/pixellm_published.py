"""Published figures of PixelLM and of what it is compared with, to stand beside ours.

The paper's own tables (MUSE, multi-RefCOCO, its ablations) could not be read; what is here comes
from other papers and from LISA's repository, as ``SOURCES`` says. Fractions.
"""

from __future__ import annotations

from typing import Any

SOURCES = {
    "A": "tables of later papers, which agree but for the backbone's name",
    "B": "the results table in LISA's repository",
    "C": "measured by a later paper (ConSeg); which split is not stated",
    "D": "zero-shot runs of the released weights in later papers",
    "E": "the paper's abstract and summaries of it",
}


def _row(source: str, **values: float) -> dict[str, Any]:
    return {"source": source, **values}


# cIoU on referring expressions, the answer's tokens given.
REFERRING: dict[str, dict[str, Any]] = {
    "pixellm_7b": _row(
        "A",
        refcoco_val=0.730,
        refcoco_testA=0.765,
        refcoco_testB=0.682,
        refcoco_plus_val=0.663,
        refcoco_plus_testA=0.717,
        refcoco_plus_testB=0.583,
        refcocog_umd_val=0.693,
        refcocog_umd_test=0.705,
    ),
    "lisa_7b": _row("A", refcoco_val=0.741, refcoco_plus_val=0.624, refcocog_umd_val=0.664),
    "lisa_7b_tuned": _row(
        "A",
        refcoco_val=0.749,
        refcoco_testA=0.791,
        refcoco_testB=0.723,
        refcoco_plus_val=0.651,
        refcoco_plus_testA=0.708,
        refcoco_plus_testB=0.581,
        refcocog_umd_val=0.679,
        refcocog_umd_test=0.706,
    ),
    "glamm_7b": _row(
        "A",
        refcoco_val=0.795,
        refcoco_testA=0.832,
        refcoco_testB=0.769,
        refcoco_plus_val=0.726,
        refcoco_plus_testA=0.787,
        refcoco_plus_testB=0.646,
        refcocog_umd_val=0.742,
        refcocog_umd_test=0.749,
    ),
}

# gIoU and cIoU on ReasonSeg, validation and test.
REASONING: dict[str, dict[str, Any]] = {
    "lisa_7b": _row(
        "B",
        reasonseg_val=0.444,
        reasonseg_val_ciou=0.460,
        reasonseg_test=0.368,
        reasonseg_test_ciou=0.341,
    ),
    "lisa_7b_tuned": _row(
        "B",
        reasonseg_val=0.529,
        reasonseg_val_ciou=0.540,
        reasonseg_test=0.473,
        reasonseg_test_ciou=0.484,
    ),
    "lisa_13b": _row(
        "B",
        reasonseg_val=0.489,
        reasonseg_val_ciou=0.469,
        reasonseg_test=0.448,
        reasonseg_test_ciou=0.458,
    ),
    "lisa_13b_tuned": _row(
        "B",
        reasonseg_val=0.562,
        reasonseg_val_ciou=0.629,
        reasonseg_test=0.517,
        reasonseg_test_ciou=0.511,
    ),
    "lisa_llama2_13b_tuned": _row(
        "B",
        reasonseg_val=0.600,
        reasonseg_val_ciou=0.678,
        reasonseg_test=0.515,
        reasonseg_test_ciou=0.513,
    ),
    "seem": _row(
        "B",
        reasonseg_val=0.255,
        reasonseg_val_ciou=0.212,
        reasonseg_test=0.243,
        reasonseg_test_ciou=0.187,
    ),
    "pixellm": _row("C", reasonseg_some_split=0.560, reasonseg_some_split_ciou=0.614),
}

FURTHER = {
    "panoptic_narrative_grounding": 0.431,
    "lasers_13b_giou": 0.299,
    "lasers_13b_ciou": 0.294,
    "source": "D",
}

REMARKS = (
    "No figure of MUSE or multi-RefCOCO is at hand; the paper's use GPT-3.5 as a judge, so figures "
    "with words here could not be put beside them in any case.",
    "Published referring figures are measured with the answer's tokens given; here every answer is "
    "generated. Users who generated reported far less than the published figures.",
    "The cost is said to be up to 50 % below that of models with SAM (E).",
    "The ablations of the paper are over scales, tokens a scale, token fusion, the refinement loss "
    "and the data (E); their values are not at hand.",
)

PUBLISHED: dict[str, Any] = {
    "referring_ciou": REFERRING,
    "reasonseg": REASONING,
    "further": FURTHER,
    "sources": SOURCES,
    "remarks": list(REMARKS),
}


def beside(column: str, ours: float) -> list[dict[str, Any]]:
    """All published figures of one data set with ours among them, the best first.

    Args:
        column: name of the data set and split as the tables here have it.
        ours: in [0, 1].

    Returns:
        Rows of ``method``, ``value`` and ``source``; only ours where nothing was published.
    """
    rows = [{"method": "this run", "value": ours, "source": "-"}]
    for table in (REFERRING, REASONING):
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


def all_tables() -> str:
    """Write all published tables for a terminal."""
    lines = ["Published on other data (for the sources see the report)"]
    for title, rows in (("cIoU", REFERRING), ("gIoU and cIoU", REASONING)):
        lines.append(f" {title}")
        for method, row in rows.items():
            cells = (f"{k} {v:.3f}" for k, v in row.items() if k != "source")
            lines.append(f"  {method:<21}  {', '.join(cells)}")
    return "\n".join(lines)

"""Degraded pictures: SAM, RobustSAM, and SAM after a classical restoration, on the same prompts.

Protocol as in RobustSAM's paper (Chen et al., CVPR 2024, section 4), which published no code of
it: every picture clear and under each degradation; IoU, Dice and pixel accuracy are means over a
picture's masks, then over pictures. A point is the one farthest from the mask's edge and a box is
the mask's own, the same for all models. Ours beyond the paper: five severities in place of one
range, and masks that follow where a degradation moves the pixels.

Each model answers every prompt by its single mask, the only one that the published RobustSAM has.
SAM's own advice for a single click is another: the mask of the highest predicted IoU of three.
That way is measured beside it for both models ("three"), and the better way of each against the
better way of the other ("best_ways"), so that nobody has to trust this choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core import masks as mask_ops
from core.degradations import DEGRADATIONS, SEVERITIES, degrade
from core.errors import ImageError
from core.evaluation.data import Example
from core.evaluation.layouts import DegradedExample
from core.evaluation.metrics import bootstrap_interval, mask_scores
from core.images import load
from core.robustsam.predictor import RobustPredictor
from core.robustsam.restoration import restore
from core.sam.predictor import ImageEmbedding, Predictor

CLEAR = "clear"
AS_TAKEN = "as_taken"  # a picture whose conditions were bad already
HARSH = (3, 4, 5, None)  # severities that the figures speak of; None: the published ranges
PROMPTS = ("points", "boxes")
METRICS = ("iou", "dice", "pixel_accuracy")
WAYS = {"": False, "_three": True}  # suffix: by the best of three masks
# Who answers: SAM, RobustSAM, SAM after restoration; to which prompt; in which way.
COLUMNS = tuple(
    f"{model}_{prompt}{way}"
    for prompt in PROMPTS
    for way in WAYS
    for model in ("sam", "robust", "restored")
)

Image = NDArray[np.uint8]
Masks = NDArray[np.bool_]
Prompts = dict[str, Any]  # arguments of Predictor.predict_batch


class Version(NamedTuple):
    """One way in which each picture is shown."""

    kind: str
    severity: int | None


@dataclass(frozen=True)
class Plan:
    """What is measured on each picture.

    Args:
        kinds: degradations to make; none: pictures are taken as they are.
        severities: None stands for the published ranges.
        move_masks: let masks follow the pixels; published figures leave them where they were.
        published_jpeg: save each degraded picture as the published script does.
        three: ask each model for the best of three masks, too; at severities of ``HARSH`` and on
            clear pictures.
        restored: SAM after restoration, at severities of ``HARSH`` and on clear pictures.
    """

    kinds: tuple[str, ...] = DEGRADATIONS
    severities: tuple[int | None, ...] = SEVERITIES
    move_masks: bool = True
    published_jpeg: bool = False
    three: bool = True
    restored: bool = True

    def versions(self, example: Example) -> list[Version]:
        """All versions of a picture: the clear one, then kind by kind."""
        if isinstance(example, DegradedExample):
            return [Version(CLEAR, None), *(Version(kind, None) for kind in example.degraded)]
        if not self.kinds:
            return [Version(AS_TAKEN, None)]
        made = [Version(kind, severity) for kind in self.kinds for severity in self.severities]
        return [Version(CLEAR, None), *made]

    def show(self, example: Example, version: Version, seed: int) -> tuple[Image, Masks]:
        """The picture in a version, and its masks (N, H, W); masks that left the frame are gone."""
        if version.kind in (CLEAR, AS_TAKEN):
            return example.image, example.masks
        if isinstance(example, DegradedExample):
            return load(example.degraded[version.kind]).image, example.masks
        degraded = degrade(
            example.image,
            version.kind,
            severity=version.severity,
            seed=seed,
            published_jpeg=self.published_jpeg,
        )
        masks = example.masks
        if self.move_masks and degraded.moves_pixels:
            masks = np.stack([degraded.displace_mask(mask) for mask in masks])
            masks = masks[masks.any(axis=(1, 2))]
        return degraded.image, masks


@dataclass(frozen=True)
class RobustScores:
    """Means over the masks of every picture, in every version, by everyone who answered.

    Args:
        versions: V of them.
        values: (pictures, V, columns, metrics) in [0, 1]; NaN where nothing was asked.
    """

    versions: list[Version]
    values: NDArray[np.float64]

    def select(self, choose: Callable[[Version], bool]) -> NDArray[np.intp]:
        return np.flatnonzero([choose(version) for version in self.versions])

    def harsh(self, kinds: Sequence[str] | None = None) -> NDArray[np.intp]:
        """Versions at severities 3 to 5, or in the published ranges, of all kinds or of some."""
        return self.select(
            lambda v: v.kind != CLEAR and v.severity in HARSH and (kinds is None or v.kind in kinds)
        )

    def clear(self) -> NDArray[np.intp]:
        return self.select(lambda v: v.kind == CLEAR)

    def mean(self, column: str, versions: NDArray[np.intp], metric: str = "iou") -> float:
        """Mean over pictures, then over versions; NaN if nothing was asked."""
        return _mean(_mean_rows(self._of(column, versions, metric)))

    def gains(self, versions: NDArray[np.intp], prompt: str) -> NDArray[np.float64]:
        """RobustSAM's mean IoU less SAM's on every picture: (pictures,)."""
        robust, sam = (self._of(f"{model}_{prompt}", versions) for model in ("robust", "sam"))
        return _mean_rows((robust - sam).T)

    def gain(self, versions: NDArray[np.intp], prompt: str) -> float:
        """RobustSAM's mean IoU less SAM's."""
        return self.mean(f"robust_{prompt}", versions) - self.mean(f"sam_{prompt}", versions)

    def kinds(self) -> list[str]:
        return list(dict.fromkeys(v.kind for v in self.versions if v.kind != CLEAR))

    def kind_gains(self, prompt: str) -> dict[str, float]:
        """The gain under each degradation at severities 3 to 5."""
        return {kind: self.gain(self.harsh([kind]), prompt) for kind in self.kinds()}

    def figures(self, unseen: Sequence[str] = ()) -> dict[str, float]:
        """Everyone's means over all degradations at severities 3 to 5, and RobustSAM's gains.

        Args:
            unseen: kinds that RobustSAM was never trained on.
        """
        figures: dict[str, float] = {}
        for prompt in PROMPTS:
            figures |= self._gain_figures(prompt, unseen) | self._own_figures(prompt)
        return {name: value for name, value in figures.items() if not np.isnan(value)}

    def _gain_figures(self, prompt: str, unseen: Sequence[str]) -> dict[str, float]:
        harsh, suffix = self.harsh(), "" if prompt == "points" else f"_{prompt}"
        best_ways = self.best_way("robust", prompt) - self.best_way("sam", prompt)
        over_restored = self.mean(f"robust_{prompt}", harsh) - self.mean(
            f"restored_{prompt}", harsh
        )
        return {
            f"gain_{prompt}": self.gain(harsh, prompt),
            f"gain_{prompt}_three": self.gain(harsh, f"{prompt}_three"),
            f"gain_{prompt}_best_ways": best_ways,
            f"gain_over_restored{suffix}": over_restored,
            f"worst_gain{suffix}": min(self.kind_gains(prompt).values(), default=float("nan")),
            f"gain_clear{suffix}": self.gain(self.clear(), prompt),
            f"gain_clear_{prompt}_three": self.gain(self.clear(), f"{prompt}_three"),
            f"gain_unseen{suffix}": self.gain(self.harsh(unseen), prompt),
        }

    def _own_figures(self, prompt: str) -> dict[str, float]:
        harsh = self.harsh()
        figures: dict[str, float] = {}
        for model in ("sam", "robust", "restored"):
            column = f"{model}_{prompt}"
            figures |= {
                f"{column}_miou": self.mean(column, harsh),
                f"{column}_three_miou": self.mean(f"{column}_three", harsh),
                f"{column}_dice": self.mean(column, harsh, "dice"),
                f"{column}_pixel_accuracy": self.mean(column, harsh, "pixel_accuracy"),
                f"{model}_clear_{prompt}_miou": self.mean(column, self.clear()),
            }
        return figures

    def best_way(self, model: str, prompt: str) -> float:
        """The better of a model's two ways to answer, over all degradations at once."""
        values = [self.mean(f"{model}_{prompt}{way}", self.harsh()) for way in WAYS]
        return max((value for value in values if not np.isnan(value)), default=float("nan"))

    def published_average(self) -> dict[str, float]:
        """Degrade, Clear and Average as the paper's tables 2 to 4 have them: (15 D + C) / 16."""
        count = len(self.harsh())
        figures = {}
        for column in ("sam_points", "robust_points", "sam_boxes", "robust_boxes"):
            for metric in METRICS:
                degrade_, clear = (
                    self.mean(column, versions, metric) for versions in (self.harsh(), self.clear())
                )
                figures[f"{column}_average_{metric}"] = (count * degrade_ + clear) / (count + 1)
        return {name: value for name, value in figures.items() if not np.isnan(value)}

    def details(self, unseen: Sequence[str] = ()) -> dict[str, Any]:
        """The whole table, gains by kind, and 95 % bootstrap intervals over pictures."""
        groups = {
            "gain": self.harsh(),
            "gain_clear": self.clear(),
            "gain_unseen": self.harsh(unseen),
        }
        intervals = {
            f"{name}_{prompt}": _interval(self.gains(versions, prompt))
            for name, versions in groups.items()
            for prompt in PROMPTS
        }
        return {
            "scored_pictures": len(self.values),
            "table": self.table(),
            "gain_by_kind": {prompt: self.kind_gains(prompt) for prompt in PROMPTS},
            "interval_95": {name: value for name, value in intervals.items() if value},
            "unseen_kinds": list(unseen),
        }

    def table(self) -> list[dict[str, Any]]:
        """One row a version: everyone's IoU, Dice and pixel accuracy."""
        rows = []
        for index, version in enumerate(self.versions):
            row: dict[str, Any] = {"kind": version.kind, "severity": version.severity}
            for column in COLUMNS:
                values = [self.mean(column, np.array([index]), metric) for metric in METRICS]
                if not np.isnan(values[0]):
                    row[column] = dict(zip(METRICS, (round(v, 4) for v in values), strict=True))
            rows.append(row)
        return rows

    def _of(
        self, column: str, versions: NDArray[np.intp], metric: str = "iou"
    ) -> NDArray[np.float64]:
        """(versions, pictures)."""
        return self.values[:, versions, COLUMNS.index(column), METRICS.index(metric)].T


def gain_table(rows: Sequence[dict[str, Any]]) -> str:
    """Write RobustSAM's mean IoU less SAM's, kinds by severities, for a terminal.

    Args:
        rows: as ``RobustScores.table`` returns them.
    """
    gains = {
        (row["kind"], row["severity"], prompt): row[f"robust_{prompt}"]["iou"]
        - row[f"sam_{prompt}"]["iou"]
        for row in rows
        for prompt in PROMPTS
        if f"robust_{prompt}" in row and f"sam_{prompt}" in row
    }
    kinds = list(dict.fromkeys(row["kind"] for row in rows if row["kind"] != CLEAR))
    severities = list(dict.fromkeys(row["severity"] for row in rows if row["kind"] != CLEAR))
    columns = [(severity, prompt) for prompt in PROMPTS for severity in severities]
    width = max(map(len, [*kinds, CLEAR]), default=0)
    names = ["all" if severity is None else str(severity) for severity, _ in columns]
    groups = "".join(f"  {prompt:<{7 * len(severities) - 2}}" for prompt in PROMPTS)
    lines = [f"  {'':<{width}}{groups}".rstrip(), _line("severity", names, width)]
    for kind in kinds:
        lines.append(_line(kind, [_say_gain(gains.get((kind, *at))) for at in columns], width))
    clear = {prompt: gains[at] for prompt in PROMPTS if (at := (CLEAR, None, prompt)) in gains}
    if clear:
        said = ", ".join(f"{prompt} {_say_gain(gain)}" for prompt, gain in clear.items())
        lines.append(f"  {CLEAR:<{width}}  {said}")
    return "\n".join(["RobustSAM - SAM, mean IoU", *lines])


def _line(name: str, cells: Sequence[str], width: int) -> str:
    return f"  {name:<{width}}" + "".join(f"{cell:>7}" for cell in cells)


def _say_gain(gain: float | None) -> str:
    return "-" if gain is None else f"{gain:+.3f}"


def evaluate(
    sam: Predictor, robust: RobustPredictor, examples: Iterable[Example], plan: Plan
) -> RobustScores:
    """Score both models on every version of every example.

    Args:
        sam: may take its embeddings from ``robust`` (``SharedEncoding``).

    Raises:
        ImageError: there is no example, or they come in different versions.
    """
    versions: list[Version] = []
    pictures = []
    for seed, example in enumerate(examples):
        shown = plan.versions(example)
        versions = versions or shown
        if shown != versions:
            raise ImageError(f"{example.name} comes in other degradations than the first picture.")
        rows = [
            score_version(sam, robust, *plan.show(example, version, seed), version, plan)
            for version in versions
        ]
        pictures.append(np.stack(rows))
    if not pictures:
        raise ImageError("There is no picture with a mask to evaluate on.")
    return RobustScores(versions, np.stack(pictures))


def score_version(
    sam: Predictor,
    robust: RobustPredictor,
    image: Image,
    masks: Masks,
    version: Version,
    plan: Plan,
) -> NDArray[np.float64]:
    """Everyone's means over the masks of one picture: (columns, metrics), NaN where not asked."""
    scores = np.full((len(COLUMNS), len(METRICS)), np.nan)
    if not len(masks):
        return scores
    prompts = make_prompts(masks)
    ways = WAYS if plan.three and version.severity in HARSH else {"": False}
    answering: list[tuple[str, Predictor, ImageEmbedding]] = [
        ("sam", sam, sam.encode(image)),
        ("robust", robust, robust.encode(image)),
    ]
    if plan.restored and version.severity in HARSH:
        plain = Predictor(sam.sam, model_id=sam.model_id)  # without RobustSAM's features
        answering.append(("restored", plain, plain.encode(restore(image).image)))
    for model, predictor, embedding in answering:
        for prompt, arguments in prompts.items():
            for way, multimask in ways.items():
                found = answer(predictor, embedding, arguments, multimask=multimask)
                row = COLUMNS.index(f"{model}_{prompt}{way}")
                scores[row] = mask_scores(found, masks).mean(axis=0)
    return scores


def make_prompts(masks: Masks) -> dict[str, Prompts]:
    """One point and one box for each mask (N, H, W), as ``predict_batch`` takes them."""
    points = np.array([[mask_ops.farthest_point(mask)] for mask in masks], np.float32)
    boxes = np.stack([mask_ops.mask_to_box(mask) for mask in masks]).astype(np.float32)
    labels = np.ones(points.shape[:2], np.float32)
    return {"points": {"point_coords": points, "point_labels": labels}, "boxes": {"boxes": boxes}}


def answer(
    predictor: Predictor,
    embedding: ImageEmbedding,
    prompts: Prompts,
    *,
    multimask: bool,
) -> Masks:
    """One mask (N, H, W) for each prompt: of three the one of the highest predicted IoU."""
    prediction = predictor.predict_batch(
        embedding, **prompts, multimask_output=multimask and predictor.multimask
    )
    return prediction.select(prediction.best()).masks()[:, 0]


def _interval(values: NDArray[np.float64]) -> tuple[float, float] | None:
    values = values[~np.isnan(values)]
    return bootstrap_interval(values) if len(values) else None


def _mean_rows(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of each row of (rows, N) over what is not NaN; NaN for a row without any."""
    return np.array([_mean(row) for row in values])


def _mean(values: NDArray[np.float64]) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")

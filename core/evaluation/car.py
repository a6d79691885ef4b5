"""Text queries: which words are in a picture and where (CaR, section 4.1), and what phrases mean.

As in the published evaluation of label maps, intersections and unions of a class are summed over
all pictures before they are divided, background is a class, and the mean goes over the classes
that some picture shows. Beyond that: precision, recall and F1 of the words that a picture was said
to have. Phrases are counted by object (mean and overall IoU), in clips by J and F.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.car.config import CarConfig, SamMatching, VisualPrompt
from core.car.pipeline import (
    merged_mask,
    prepare,
    segment_phrases,
    segment_text,
    segment_things_and_stuff,
)
from core.car.presets import Preset
from core.car.results import CarResult, Picture
from core.car.sam_ensemble import snap_masks
from core.clip.model import ClipModel
from core.errors import ImageError
from core.evaluation.car_data import IGNORED, PhraseClip, PhraseScene, WordScene
from core.evaluation.metrics import bootstrap_interval
from core.evaluation.persam_davis import boundary_f
from core.masks import iou

BACKGROUND = "background"
PRECISION_AT = (0.5, 0.6, 0.7, 0.8, 0.9)
SamMasks = Callable[[NDArray[np.uint8]], NDArray[np.bool_]]  # everything mode of a picture
PROMPTS: dict[str, tuple[VisualPrompt, ...]] = {
    "circle": ("circle",),
    "rectangle": ("rectangle",),
    "contour": ("contour",),
    "blur": ("blur",),
    "gray": ("gray",),
    "black": ("black",),
    "blur_gray": ("blur", "gray"),
    "circle_blur": ("circle", "blur"),
}


@dataclass(frozen=True, eq=False)
class Answer:
    """What a picture was said to show of N words.

    Args:
        masks: bool (N, H, W), which may overlap; empty for a dropped word.
        scores: (N,).
        on_top: bool (N,), words that always cover the others: things over stuff.
        steps: of the recurrence.
    """

    masks: NDArray[np.bool_]
    scores: NDArray[np.float32]
    on_top: NDArray[np.bool_]
    steps: int

    def labels(self) -> NDArray[np.uint8]:
        """One number a pixel (H, W), 0 background: of several words the one of highest score."""
        labels = np.zeros(self.masks.shape[1:], np.uint8)
        for k in np.lexsort((self.scores, self.on_top)):
            if self.scores[k] > 0:
                labels[self.masks[k]] = k + 1
        return labels

    def snapped(self, sam_masks: NDArray[np.bool_], config: SamMatching) -> Answer:
        """The same with SAM's masks (M, H, W) in the place of those that match them."""
        masks, filled = self.masks.copy(), self.masks.any(axis=(1, 2))
        masks[filled] = snap_masks(masks[filled], sam_masks, config)
        return replace(self, masks=masks)


@dataclass
class WordScores:
    """Sums over pictures by class name, and words that were rightly or wrongly said to be there.

    Args:
        count_background: background is a class. Else pixels that are background, in the truth or
            in the answer, do not count, as published for ADE20K.
    """

    count_background: bool = True
    intersection: dict[str, int] = field(default_factory=dict)
    union: dict[str, int] = field(default_factory=dict)
    present: dict[str, int] = field(default_factory=dict)
    found: int = 0
    invented: int = 0
    missed: int = 0
    steps: list[int] = field(default_factory=list)

    def add(self, scene: WordScene, labels: NDArray[np.uint8], steps: int) -> None:
        """Count a picture.

        Args:
            labels: (H, W), as ``Answer.labels``.
            steps: of the recurrence.
        """
        counts = confusion(scene.labels, labels, len(scene.words))
        names = (BACKGROUND, *scene.words)
        said = {names[k] for k in np.flatnonzero(counts.sum(axis=0)) if k > 0}
        true = set(scene.true_words)
        self.found += len(said & true)
        self.invented += len(said - true)
        self.missed += len(true - said)
        self.steps.append(steps)
        truth = counts.sum(axis=1)
        if not self.count_background:
            counts, names, truth = counts[1:, 1:], names[1:], truth[1:]
        own = counts.diagonal()
        either = counts.sum(axis=0) + counts.sum(axis=1) - own
        for sums, values in ((self.intersection, own), (self.union, either), (self.present, truth)):
            for name, value in zip(names, values.tolist(), strict=True):
                sums[name] = sums.get(name, 0) + value

    @property
    def precision(self) -> float:
        return self.found / max(1, self.found + self.invented)

    @property
    def recall(self) -> float:
        return self.found / max(1, self.found + self.missed)

    def class_ious(self, *, invented: bool = False) -> dict[str, float]:
        """IoU of every class that a picture shows.

        Args:
            invented: those too that no picture shows and some was said to: 0 each.
        """
        classes = self.union if invented else self.present
        return {
            name: self.intersection[name] / max(1, self.union[name])
            for name, pixels in classes.items()
            if pixels
        }

    def figures(self) -> dict[str, float]:
        precision, recall = self.precision, self.recall
        return {
            "miou": _mean(self.class_ious().values()),
            "miou_with_invented": _mean(self.class_ious(invented=True).values()),
            "background_iou": self.class_ious().get(BACKGROUND, float("nan")),
            "word_precision": precision,
            "word_recall": recall,
            "word_f1": 2 * precision * recall / max(precision + recall, 1e-9),
            "mean_steps": _mean(self.steps),
        }


def confusion(truth: NDArray[np.uint8], labels: NDArray[np.uint8], words: int) -> NDArray[np.int64]:
    """Pixels by true and by said label, (words + 1, words + 1), without IGNORED ones."""
    counted = truth != IGNORED
    classes = words + 1
    pairs = truth[counted].astype(np.int64) * classes + labels[counted]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def ablations(config: CarConfig) -> dict[str, CarConfig]:
    """The same settings with one part switched off, or another visual prompt."""
    changed = {
        "no_recurrence": replace(config, recurrence=False),
        "no_background": replace(config, background_queries=()),
        "no_refinement": replace(config, refine=False),
        "no_crf": replace(config, use_crf=False),
    }
    return changed | {
        f"prompt_{name}": replace(config, visual_prompts=prompts)
        for name, prompts in PROMPTS.items()
    }


def evaluate_words(
    generator: ClipModel,
    classifier: ClipModel,
    scenes: Iterable[WordScene],
    configs: dict[str, CarConfig],
    sam_masks: SamMasks | None = None,
    *,
    preset: Preset | None = None,
) -> dict[str, WordScores]:
    """Ask for every scene's words under each of some settings; the picture is encoded once.

    Args:
        configs: by name; those of one ``max_side`` and ``max_tokens``.
        sam_masks: SAM's masks of a picture, for the additional name "sam": the first settings
            with SAM's masks to snap to.
        preset: of a data set, for its stuff and whether background counts; its pictures are
            encoded for each settings if there is stuff.

    Raises:
        ImageError: there is no scene.
    """
    first = next(iter(configs))
    background = preset is None or not preset.ignore_background
    scores = {name: WordScores(background) for name in (*configs, *(["sam"] if sam_masks else []))}
    for scene in scenes:
        stuff = preset is not None and bool(preset.stuff)
        picture = scene.image if stuff else prepare(generator, scene.image, configs[first])
        for name, config in configs.items():
            answer = answer_words(generator, classifier, picture, scene, config, preset)
            scores[name].add(scene, answer.labels(), answer.steps)
            if name == first and sam_masks is not None:
                snapped = answer.snapped(sam_masks(scene.image), config.sam)
                scores["sam"].add(scene, snapped.labels(), answer.steps)
    if not scores[first].steps:
        raise ImageError("There is no picture with words to evaluate on.")
    return scores


def answer_words(
    generator: ClipModel,
    classifier: ClipModel,
    picture: NDArray[np.uint8] | Picture,
    scene: WordScene,
    config: CarConfig,
    preset: Preset | None = None,
) -> Answer:
    """Look for a scene's words, in two passes where a preset has stuff.

    Args:
        picture: the scene's, RGB uint8 (H, W, 3); in one pass also what ``prepare`` made of it.
    """
    if preset is None or not preset.stuff:
        result = segment_text(generator, classifier, picture, scene.words, config)
        everything = np.ones(len(scene.words), bool)
        return _answer([result], [everything], everything)
    assert not isinstance(picture, Picture)
    on_top = np.array([word not in preset.stuff for word in scene.words])
    words = np.array(scene.words)
    passes = segment_things_and_stuff(
        generator,
        classifier,
        picture,
        words[on_top].tolist(),
        words[~on_top].tolist(),
        config,
        stuff_prompts=preset.stuff_prompts,
    )
    return _answer([passes.things, passes.stuff], [on_top, ~on_top], on_top)


def _answer(
    results: Sequence[CarResult], places: Sequence[NDArray[np.bool_]], on_top: NDArray[np.bool_]
) -> Answer:
    """Put the words of each result into their places among all words."""
    size = results[0].segmentation.size
    masks = np.zeros((len(on_top), *size), bool)
    scores = np.zeros(len(on_top), np.float32)
    for result, place in zip(results, places, strict=True):
        masks[place], scores[place] = result.masks_of_queries(), result.scores_of_queries()
    return Answer(masks, scores, on_top, max(len(result.steps) for result in results))


def word_figures(scores: dict[str, WordScores]) -> dict[str, float]:
    """The first settings' figures, what each part is worth, and each variant's mean IoU."""
    first, *others = scores
    figures = scores[first].figures()
    for name in others:
        figures[f"{name}_miou"] = scores[name].figures()["miou"]
    if "no_recurrence" in scores:
        figures["recurrence_gain"] = figures["miou"] - figures["no_recurrence_miou"]
        figures["no_recurrence_word_f1"] = scores["no_recurrence"].figures()["word_f1"]
    if "sam" in scores:
        figures["sam_gain"] = figures["sam_miou"] - figures["miou"]
    return {name: value for name, value in figures.items() if not np.isnan(value)}


def word_details(scores: dict[str, WordScores]) -> dict[str, Any]:
    """IoU of every class under the first settings, the worst first; words found and missed."""
    first = next(iter(scores.values()))
    words = {"found": first.found, "invented": first.invented, "missed": first.missed}
    ious = dict(sorted(first.class_ious().items(), key=lambda pair: pair[1]))
    return {"class_ious": ious, "words": words, "scored_pictures": len(first.steps)}


@dataclass
class PhraseScores:
    """Pixels that each object's mask shares with the truth, and has together with it."""

    intersections: list[int] = field(default_factory=list)
    unions: list[int] = field(default_factory=list)

    def add(self, mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
        self.intersections.append(int((mask & truth).sum()))
        self.unions.append(int((mask | truth).sum()))

    def ious(self) -> NDArray[np.float64]:
        """IoU of each object; 0 where neither has a pixel."""
        return np.array(self.intersections) / np.maximum(self.unions, 1)

    def figures(self) -> dict[str, float]:
        """Mean and overall IoU, and the share of objects above some IoUs."""
        ious = self.ious()
        figures = {
            "referring_iou": float(ious.mean()),
            "referring_overall_iou": sum(self.intersections) / max(1, sum(self.unions)),
        }
        return figures | {
            f"referring_precision_{round(100 * least)}": float((ious > least).mean())
            for least in PRECISION_AT
        }

    def details(self) -> dict[str, Any]:
        ious = self.ious()
        return {"objects": len(ious), "interval_95_referring_iou": bootstrap_interval(ious)}


def evaluate_phrases(
    generator: ClipModel, classifier: ClipModel, scenes: Iterable[PhraseScene], config: CarConfig
) -> PhraseScores:
    """Find each scene's object by all of its phrases together, one merged mask for them.

    Args:
        scenes: neighbours may show one picture (the same array), which is encoded once then.

    Raises:
        ImageError: there is no scene.
    """
    scores = PhraseScores()
    image: NDArray[np.uint8] | None = None
    for scene in scenes:
        if scene.image is not image:
            image, picture = scene.image, prepare(generator, scene.image, config)
        result = segment_phrases(generator, classifier, picture, scene.phrases, config)
        scores.add(merged_mask(result), scene.mask)
    if not scores.unions:
        raise ImageError("There is no picture with a phrase to evaluate on.")
    return scores


def evaluate_clips(
    generator: ClipModel, classifier: ClipModel, clips: Iterable[PhraseClip], config: CarConfig
) -> tuple[dict[str, float], dict[str, Any]]:
    """Find each object of some clips by its phrase, frame by frame and phrase by phrase.

    No frame is given, so all frames count (DAVIS leaves out the first and the last one where the
    first is given). Means are over frames, then over objects of all annotators.

    Returns:
        ``j_and_f``, ``j_mean`` and ``f_mean``; and the rows of each object and annotator.

    Raises:
        ImageError: there is no clip.
    """
    values: dict[str, list[tuple[float, float]]] = {}
    for clip in clips:
        for frame, truth in zip(clip.sequence.frames, clip.sequence.labels, strict=True):
            picture = prepare(generator, frame, config)
            for annotator, phrases in clip.phrases.items():
                for number, phrase in phrases.items():
                    result = segment_phrases(generator, classifier, picture, [phrase], config)
                    mask, meant = merged_mask(result), truth == number
                    row = values.setdefault(f"{clip.sequence.name}_{number}_{annotator}", [])
                    row.append((iou(mask, meant), boundary_f(meant, mask)))
    if not values:
        raise ImageError("There is no clip with a phrase to evaluate on.")
    rows = {name: np.mean(row, axis=0).tolist() for name, row in values.items()}
    j_mean, f_mean = np.mean(list(rows.values()), axis=0).tolist()
    figures = {"j_and_f": (j_mean + f_mean) / 2, "j_mean": j_mean, "f_mean": f_mean}
    objects = {name: {"j": j, "f": f} for name, (j, f) in rows.items()}
    return figures, {"objects": objects}


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return float(np.mean(values)) if values else float("nan")

"""Words to SAM's masks: the crop of each mask against the words (SAM paper, section 7.5, without
its training). The plain way beside CaR: it finds only what SAM cuts out by itself.

Letters: n words, M masks, B background words, E embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from core.car.classifier import encode_pictures
from core.car.config import BACKGROUND_QUERIES, CAM_TEMPLATE, EMBEDDED_BACKGROUND, CarConfig
from core.car.queries import Queries, Words, length_warnings, without_asked
from core.car.recurrence import Progress
from core.clip.build import with_tokenizer
from core.clip.model import ClipModel
from core.clip.text import encode_templates
from core.engine.timing import StageTimer
from core.masks import mask_to_box
from core.models.catalogue import ModelSet
from core.models.presets import EverythingConfig
from core.results import Dropped, Segmentation
from core.sam.pipeline import segment_all

if TYPE_CHECKING:
    from core.engine.cancellation import CancelToken
    from core.engine.engine import Engine

# The CLIP of each set that looks at the crops.
CLASSIFIERS = {"embedded": "clip_embedded", "full": "clip_vit_l_14"}


@dataclass(frozen=True, kw_only=True)
class RankingConfig:
    """Settings of a ranking.

    Args:
        threshold: least probability of a word, among it and the background words, for a mask to
            be taken. (A softmax over the masks would let one win where the word is absent.)
        template: wraps words and background words.
        query_batch: crops encoded at once, which bounds the memory.
    """

    threshold: float = 0.5
    background_queries: tuple[str, ...] = BACKGROUND_QUERIES
    template: str = CAM_TEMPLATE
    query_batch: int = 16

    @classmethod
    def of_set(cls, model_set: ModelSet) -> RankingConfig:
        """What suits the CLIP of a set: ours knows other backgrounds than published ones."""
        if model_set == "full":
            return cls()
        return cls(background_queries=EMBEDDED_BACKGROUND)


def search_masks(
    engine: Engine,
    sam: str,
    image: NDArray[np.uint8],
    queries: Words,
    config: RankingConfig | None = None,
    *,
    everything: EverythingConfig | None = None,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> Segmentation:
    """Cut everything out with SAM, and keep the masks that show one of the words.

    Args:
        sam: a SAM of the catalogue; CLIP is that of its set.
        image: RGB uint8 (H, W, 3).
        config, everything: None: what suits the models.

    Raises:
        PromptError: there is no word, or one is empty.
        NothingFound: SAM finds no mask at all.
        ModelUnavailable: a model is not here.
        Cancelled: on request.
    """
    words, model_set = Queries.parse(queries), engine.entry(sam).set
    config, classifier_id = config or RankingConfig.of_set(model_set), CLASSIFIERS[model_set]
    found = segment_all(engine, sam, image, everything, cancel=cancel, progress=progress)
    timer = StageTimer(engine.device)
    with engine.model(classifier_id, cancel, progress) as clip, timer.stage("rank"):
        if progress is not None:
            progress(0.95, f"comparing {len(found)} masks with the words")
        classifier = with_tokenizer(engine.entry(classifier_id), clip)
        ranked = rank_masks(classifier, image, found, words.words, config, cancel=cancel)
    seconds = {**found.seconds, **timer.seconds}
    seconds["total"] = found.seconds["total"] + timer.seconds["total"]
    return replace(ranked, seconds=seconds, warnings=(*ranked.warnings, *words.warnings))


def score_masks(
    classifier: ClipModel,
    image: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    words: tuple[str, ...],
    config: RankingConfig,
    cancel: CancelToken | None = None,
) -> NDArray[np.float32]:
    """Compare each mask's crop with each word.

    The mean of two crops: of the picture, and of the mask on black.

    Args:
        image: RGB uint8 (H, W, 3); masks: (M, H, W), none of them empty.

    Returns:
        Probabilities float32 (n, M), each of one word against the background words.

    Raises:
        Cancelled: on request, between batches of crops.
    """
    if not len(masks):
        return np.zeros((len(words), 0), np.float32)
    encoding = CarConfig(query_batch=config.query_batch, skip_last_block=False)
    features = encode_pictures(classifier, _crops(image, masks), encoding, cancel)  # (2M, E)
    background = without_asked(config.background_queries, words)
    own = encode_templates(classifier, words, (config.template,))[0]  # (n, E)
    other = encode_templates(classifier, background, (config.template,))[0]  # (B, E)
    logits = classifier.scale * features @ own.T  # (2M, n)
    rest = torch.logsumexp(classifier.scale * features @ other.T, dim=1, keepdim=True)
    probabilities = torch.sigmoid(logits - rest)  # a softmax over one word and B others
    return probabilities.unflatten(0, (-1, 2)).mean(dim=1).T.cpu().numpy()


def rank_masks(
    classifier: ClipModel,
    image: NDArray[np.uint8],
    found: Segmentation,
    queries: Words,
    config: RankingConfig | None = None,
    *,
    cancel: CancelToken | None = None,
) -> Segmentation:
    """Keep those of SAM's masks that show one of the words, each with its best word.

    Args:
        image: RGB uint8 (H, W, 3).
        found: of SAM's everything mode on that picture.

    Returns:
        ``found`` less the other masks; words without a mask are ``dropped`` with the best score
        that they reached.

    Raises:
        PromptError: there is no word, or one is empty.
        Cancelled: on request.
    """
    config = config or RankingConfig()
    words = Queries.parse(queries).words
    scores = score_masks(classifier, image, found.masks, words, config, cancel)  # (n, M)
    best = scores.argmax(axis=0)  # (M,)
    reached = scores.max(axis=0)
    kept = [index for index in np.argsort(-reached) if reached[index] > config.threshold]
    chosen = {int(best[index]) for index in kept}
    dropped = [
        Dropped(
            word,
            float(scores[row].max()) if scores.shape[1] else None,
            f"no mask shows it: more than {config.threshold:.2f} is needed",
        )
        for row, word in enumerate(words)
        if row not in chosen
    ]
    return Segmentation(
        method="sam_text",
        model=found.model,
        model_set=found.model_set,
        size=found.size,
        masks=found.masks[kept],
        labels=tuple(words[best[index]] for index in kept),
        scores=reached[kept].astype(np.float32),
        score_kind="clip_similarity",
        dropped=tuple(dropped),
        warnings=(
            *found.warnings,
            *length_warnings(words, [(classifier, config.template)]),
        ),
        parameters={
            **found.parameters,
            "queries": list(words),
            "classifier": classifier.id,
            "threshold": config.threshold,
            "background_queries": list(config.background_queries),
            "template": config.template,
        },
        seconds=found.seconds,
    )


def _crops(image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> Iterator[NDArray[np.uint8]]:
    """Each mask's box of the picture, then the same on black."""
    for mask in masks:
        x0, y0, x1, y1 = mask_to_box(mask)
        crop = np.ascontiguousarray(image[y0:y1, x0:x1])
        yield crop
        yield np.where(mask[y0:y1, x0:x1, None], crop, np.uint8(0))

"""SAM's masks ranked by words."""

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from core.car import ranking
from core.car.ranking import RankingConfig, rank_masks, score_masks
from core.clip.text import encode_templates
from core.engine import CancelToken
from core.errors import Cancelled, PromptError
from core.results import Segmentation
from tests.core.car.conftest import table_model

CONFIG = RankingConfig(background_queries=("sky", "sea"), template="{}")


@pytest.fixture
def masks():
    masks = np.zeros((3, 90, 132), bool)
    masks[0, 10:50, 20:40] = masks[1, :80, 100:] = masks[2, 85:, :9] = True
    return masks


def everything(masks):
    return Segmentation(
        method="sam_everything",
        model="sam",
        model_set="embedded",
        size=masks.shape[1:],
        masks=masks,
        labels=("",) * len(masks),
        scores=np.full(len(masks), 0.9, np.float32),
        seconds={"predict": 1.0, "total": 2.0},
        ids=tuple(range(5, 5 + len(masks))),
    )


def test_scores_are_softmaxes_over_one_word_and_the_background(any_words, picture, masks):
    _, classifier = any_words
    scores = score_masks(classifier, picture, masks, ("cat", "boat"), CONFIG)
    assert scores.shape == (2, 3)
    crops = list(ranking._crops(picture, masks))
    assert crops[2].shape == (80, 32, 3) and crops[3].shape == crops[2].shape
    features = ranking.encode_pictures(classifier, crops, ranking.CarConfig(skip_last_block=False))
    texts = encode_templates(classifier, ["cat", "sky", "sea"], ["{}"])[0]
    rows = torch.softmax(classifier.scale * features @ texts.T, dim=1)[:, 0]
    assert_allclose(scores[0], rows.view(3, 2).mean(dim=1), atol=1e-6)
    swapped = score_masks(classifier, picture, masks, ("boat", "cat"), CONFIG)
    assert_allclose(swapped[::-1], scores, atol=1e-6)
    assert score_masks(classifier, picture, masks[:0], ("cat",), CONFIG).shape == (1, 0)


def test_masks_get_their_word_and_the_others_go(classifier_model, any_words, picture, masks):
    _, classifier = any_words
    feature = ranking.encode_pictures(
        classifier, list(ranking._crops(picture, masks))[2:3], ranking.CarConfig()
    )[0].numpy()
    table = {"this": feature, "not this": -feature, "sky": -feature, "sea": -feature}
    known = table_model(classifier_model.visual, 20.0, table, "classifier")
    found = rank_masks(known, picture, everything(masks), ["this", "not this"], CONFIG)
    assert found.method == "sam_text" and set(found.labels) == {"this"}
    assert (found.scores > 0.5).all() and (np.diff(found.scores) <= 0).all()
    assert any((mask == masks[1]).all() for mask in found.masks)
    (dropped,) = found.dropped
    assert dropped.label == "not this" and dropped.score < 0.5
    assert found.parameters["queries"] == ["this", "not this"]
    none = rank_masks(known, picture, everything(masks[:0]), ["this"], CONFIG)
    assert len(none) == 0 and none.dropped[0].score is None


def test_nothing_asked_and_stopping(any_words, picture, masks):
    _, classifier = any_words
    with pytest.raises(PromptError, match="There is no query"):
        rank_masks(classifier, picture, everything(masks), [], CONFIG)
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        rank_masks(classifier, picture, everything(masks), ["cat"], CONFIG, cancel=token)


class Lender:
    """An engine that lends one classifier under the embedded CLIP's id."""

    device = torch.device("cpu")

    def __init__(self, classifier):
        self.classifier = classifier

    def entry(self, model_id):
        assert model_id in ("sam", "clip_embedded")
        return SimpleNamespace(id=model_id, set="embedded")

    @contextmanager
    def model(self, model_id, cancel=None, progress=None):
        assert model_id == "clip_embedded"
        yield self.classifier.clip


def test_searching_cuts_out_first_and_counts_both_times(any_words, picture, masks, monkeypatch):
    _, classifier = any_words
    asked, said = [], []
    monkeypatch.setattr(
        ranking,
        "segment_all",
        lambda *values, **more: asked.append((values, more)) or everything(masks),
    )
    monkeypatch.setattr(ranking, "with_tokenizer", lambda entry, clip: classifier)
    found = ranking.search_masks(
        Lender(classifier),
        "sam",
        picture,
        ["cat", "boat", "Cat"],
        replace(CONFIG, threshold=0.0),
        progress=lambda fraction, text: said.append(text),
    )
    expected = rank_masks(
        classifier, picture, everything(masks), ["cat", "boat"], replace(CONFIG, threshold=0.0)
    )
    assert asked[0][0][1:3] == ("sam", picture)
    assert found.labels == expected.labels and found.ids == expected.ids
    assert said == ["comparing 3 masks with the words"]
    assert set(found.seconds) >= {"rank", "total"}
    assert found.warnings == ("“cat” was given 2 times and is looked for once.",)
    with pytest.raises(PromptError, match="no query"):
        ranking.search_masks(Lender(classifier), "sam", picture, [])
    assert len(asked) == 1, "nothing is cut out for no words"

import numpy as np
import pytest

from core.engine.cancellation import CancelToken
from core.errors import Cancelled, PromptError
from core.sam.proposals import ProposalConfig, propose_objects


def test_proposals_are_ranked_and_cut(golden, predictor):
    embedding = predictor.encode(golden["in:image"])
    config = ProposalConfig(points_per_side=5, box_nms_thresh=1.0)
    proposals = propose_objects(predictor, embedding, config)
    means = [(p.predicted_iou + p.stability_score) / 2 for p in proposals]
    assert means == sorted(means, reverse=True)
    assert len(proposals) > 10
    assert all(p.mask.shape == (150, 200) and p.mask.any() for p in proposals)

    cut = ProposalConfig(points_per_side=5, box_nms_thresh=1.0, max_proposals=3)
    best = propose_objects(predictor, embedding, cut)
    assert [p.predicted_iou for p in best] == [p.predicted_iou for p in proposals[:3]]


def test_no_proposal_is_filtered_by_its_scores(golden, predictor):
    """The golden model's scores are poor; a filter would leave nothing."""
    config = ProposalConfig(points_per_side=2, box_nms_thresh=1.0)
    proposals = propose_objects(predictor, predictor.encode(golden["in:image"]), config)
    assert np.min([p.predicted_iou for p in proposals]) < 0.5


def test_duplicates_go(golden, predictor):
    embedding = predictor.encode(golden["in:image"])
    counts = [
        len(propose_objects(predictor, embedding, ProposalConfig(points_per_side=6, **nms)))
        for nms in ({"box_nms_thresh": 1.0}, {})
    ]
    assert counts[1] < counts[0]


def test_cancelling(golden, predictor):
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        propose_objects(predictor, predictor.encode(golden["in:image"]), cancel=token)


def test_settings_out_of_range_are_refused():
    with pytest.raises(PromptError, match="choose"):
        ProposalConfig(points_per_side=1000)

"""Without guidance the wrapped transformer is the package's; with it the model is still shared."""

import threading

import numpy as np
import torch
from numpy.testing import assert_array_equal
from torch.testing import assert_close

from core.persam.attention import GuidedAttention, TargetGuidedTransformer
from core.persam.config import PersamConfig
from core.persam.instances import find_instances
from core.persam.target import pool_target


def tokens(seed=0):
    random = torch.Generator().manual_seed(seed)
    return (
        torch.randn(2, 64, 16, 16, generator=random),
        torch.randn(2, 64, 16, 16, generator=random),
        torch.randn(2, 8, 64, generator=random),
    )


def test_switched_off_it_is_the_packages_transformer(sam):
    transformer = sam.mask_decoder.transformer
    wrapped = TargetGuidedTransformer(transformer)
    for ours, theirs in zip(wrapped(*tokens()), transformer(*tokens()), strict=True):
        assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_prompt_tokens_are_not_changed_in_place(sam):
    image, pe, points = tokens()
    before = points.clone()
    target = torch.ones(1, 1, 64)
    TargetGuidedTransformer(sam.mask_decoder.transformer, target_embedding=target)(
        image, pe, points
    )
    assert torch.equal(points, before)


def test_guided_weights_are_nearly_even_and_follow_the_map(sam):
    """With values that name their cell the output is the weights themselves."""
    attention = sam.mask_decoder.transformer.layers[0].cross_attn_token_to_image
    guidance = torch.zeros(1, 1, 1, 256)
    guidance[..., :16] = 1
    image, _, points = tokens()
    keys = image.flatten(2).transpose(1, 2)
    even = GuidedAttention(attention, torch.zeros_like(guidance))(points, keys, keys)
    shifted = GuidedAttention(attention, guidance + 3)(points, keys, keys)
    moved = GuidedAttention(attention, guidance)(points, keys, keys)
    assert_close(shifted, moved, rtol=0, atol=1e-5)  # softmax ignores a constant
    assert (even - moved).abs().max() > 1e-4


def test_plain_prompts_beside_personal_ones(golden, predictor, reference, reference_embedding):
    """Threads with and without guidance on one model get what each gets alone."""
    target, _ = pool_target(predictor, reference_embedding, reference.mask, PersamConfig())
    image = golden["in.test_image"]

    def plain() -> np.ndarray:
        prediction = predictor.predict(
            predictor.encode(image), point_coords=[[60, 70]], point_labels=[1]
        )
        return prediction.low_res_logits.numpy()

    def personal() -> np.ndarray:
        embedding = predictor.encode(image)
        _, (found,) = find_instances(predictor, embedding, target, None, PersamConfig())
        return found.stages[0].low_res_logits

    alone = [plain(), personal()]
    results: list[np.ndarray | None] = [None] * 8

    def visit(i: int) -> None:
        results[i] = (plain, personal)[i % 2]()

    threads = [threading.Thread(target=visit, args=(i,)) for i in range(len(results))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, result in enumerate(results):
        assert_array_equal(result, alone[i % 2])

"""Number for number against the published code, in the order of its steps."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from core.persam.cascade import Prompt, first_pass, run_cascade
from core.persam.config import FitConfig, PersamConfig
from core.persam.scale import ScaleWeights, fit_scale_weights
from core.persam.similarity import SimilarityMap, choose_points, guidance_map
from core.persam.target import mask_to_grid, pool_target

ATOL = 2e-5  # float32; leaving out any technique moves the logits by 2e-3 or more


@pytest.fixture(scope="module")
def target(predictor, reference, reference_embedding):
    target, warnings = pool_target(predictor, reference_embedding, reference.mask, PersamConfig())
    assert warnings == ()
    return target


@pytest.fixture(scope="module")
def similarity(test_embedding, target):
    return SimilarityMap.of(test_embedding, target.feature("mean"))


def prompt_of(target, similarity, config=None) -> Prompt:
    """PerSAM's own prompt, with what the configuration switches off left out."""
    config = config or PersamConfig()
    full = similarity.full()
    guidance = guidance_map(full, similarity.geometry, 16, aligned=False)
    return Prompt(
        choose_points(full, similarity.cell_side, config),
        guidance if config.guided_attention else None,
        target.embedding if config.semantic_prompt else None,
    )


def test_embeddings(golden, reference_embedding, test_embedding):
    assert_allclose(reference_embedding.features, golden["out.ref_features"], rtol=0, atol=ATOL)
    assert_allclose(test_embedding.features, golden["out.test_features"], rtol=0, atol=ATOL)
    assert test_embedding.input_size == tuple(golden["out.input_size"])
    assert test_embedding.original_size == tuple(golden["out.original_size"])


def test_mask_on_the_grid(golden, golden_config, predictor, reference, reference_embedding):
    value = golden_config["mask_value"]
    grid = mask_to_grid(predictor, reference.mask, reference_embedding.geometry, value)
    assert_allclose(grid, golden["out.ref_mask_grid"], rtol=0, atol=ATOL)
    assert (grid > 0).sum() == golden["out.n_target_cells"]


def test_target_vectors(golden, target):
    assert_allclose(target.embedding, golden["out.target_embedding"], rtol=0, atol=ATOL)
    assert_allclose(target.feature("mean"), golden["out.target_feat"], rtol=0, atol=ATOL)
    assert_allclose(target.feature("mean_max"), golden["out.f_target_feat"], rtol=0, atol=ATOL)


def test_similarity_points_and_guidance(golden, similarity):
    full = similarity.full()
    assert_allclose(similarity.grid, golden["out.sim_grid"], rtol=0, atol=ATOL)
    assert_allclose(full, golden["out.sim_full"], rtol=0, atol=ATOL)
    points = choose_points(full, similarity.cell_side, PersamConfig())
    assert_array_equal(points.labels, golden["out.points_label"])
    x, y = points.coords.astype(int).T
    gx, gy = golden["out.points_xy"].astype(int).T
    assert_allclose(full[y, x], full[gy, gx], rtol=0, atol=1e-7)  # ties may fall elsewhere
    guidance = guidance_map(full, similarity.geometry, 16, aligned=False)
    assert_allclose(guidance.view(1, 1, 1, -1), golden["out.attn_sim"], rtol=0, atol=ATOL)


@pytest.mark.parametrize(
    ("suffix", "guided", "semantic"),
    [
        ("", True, True),
        ("_none", False, False),
        ("_attn_only", True, False),
        ("_sem_only", False, True),
    ],
)
def test_first_pass(
    golden, predictor, test_embedding, target, similarity, suffix, guided, semantic
):
    config = PersamConfig(guided_attention=guided, semantic_prompt=semantic)
    prompt = prompt_of(target, similarity, config)
    stage = first_pass(predictor, test_embedding, prompt, config)
    assert_allclose(stage.low_res_logits, golden[f"out.p1_lowres{suffix}"], rtol=0, atol=ATOL)
    assert_allclose(stage.scores, golden[f"out.p1_scores{suffix}"], rtol=0, atol=ATOL)


def test_cascade(golden, predictor, test_embedding, target, similarity):
    stages = run_cascade(predictor, test_embedding, prompt_of(target, similarity), PersamConfig())
    first, second, third = stages
    assert_same_mask(first.mask, golden["out.p1_masks"][0])
    for stage, name in ((second, "p2"), (third, "p3")):
        assert_allclose(stage.low_res_logits, golden[f"out.{name}_lowres"], rtol=0, atol=ATOL)
        assert_allclose(stage.scores, golden[f"out.{name}_scores"], rtol=0, atol=ATOL)
        assert stage.chosen == golden[f"out.{name}_best"]
        for ours, theirs in zip(stage.masks(), golden[f"out.{name}_masks"], strict=True):
            assert_same_mask(ours, theirs)
    assert second.box is None
    assert_array_equal(third.box, golden["out.p3_box"])
    assert_same_mask(third.mask, golden["out.final_mask"])


@pytest.fixture(scope="module")
def reference_readings(golden, predictor, reference_embedding, target):
    """The decoder on the reference's own most similar point, all three readings."""
    config = PersamConfig.persam_f()
    similarity = SimilarityMap.of(reference_embedding, target.feature("mean_max"))
    full = similarity.full()
    assert_allclose(full, golden["out.f_ref_sim"], rtol=0, atol=ATOL)
    points = choose_points(full, similarity.cell_side, config)
    assert_array_equal(points.coords, golden["out.f_ref_point_xy"])
    prediction = predictor.predict(
        reference_embedding, point_coords=points.coords, point_labels=points.labels
    )
    assert_allclose(prediction.low_res_logits[0], golden["out.f_ref_lowres"], rtol=0, atol=ATOL)
    assert_allclose(prediction.iou_predictions[0], golden["out.f_ref_scores"], rtol=0, atol=ATOL)
    return prediction.mask_logits()[0]


@pytest.mark.parametrize(("steps", "atol"), [(20, 2e-6), (1000, 2e-5)])
def test_scale_weights(golden, reference, reference_readings, steps, atol):
    config = FitConfig(steps=steps, max_pixels=None)
    fit = fit_scale_weights([reference_readings], [reference.mask], config)
    name = f"out.f{steps}"
    assert_allclose(fit.weights.vector, golden[f"{name}_weights3"][:, 0], rtol=0, atol=atol)
    if steps == 20:
        history, dice, focal = fit.history, fit.dice, fit.focal
        expected = [golden[f"{name}_{key}"] for key in ("w_history", "dice", "focal")]
    else:
        history, dice, focal = fit.history[::100], fit.dice[::100], fit.focal[::100]
        expected = [golden[f"{name}_{key}_every100"] for key in ("w_history", "dice", "focal")]
    assert_allclose(history, expected[0], rtol=0, atol=atol)
    assert_allclose(dice, expected[1], rtol=0, atol=atol)
    assert_allclose(focal, expected[2], rtol=0, atol=atol)


@pytest.mark.parametrize("steps", [20, 1000])
def test_persam_f_cascade(golden, predictor, test_embedding, target, steps):
    name = f"out.f{steps}"
    _, w1, w2 = golden[f"{name}_weights3"][:, 0]
    config = PersamConfig.persam_f()
    similarity = SimilarityMap.of(test_embedding, target.feature(config.pooling))
    points = choose_points(similarity.full(), similarity.cell_side, config)
    assert_array_equal(points.coords, golden[f"{name}_point_xy"])
    prompt = Prompt(points, scale_weights=ScaleWeights(w1, w2).vector)
    first, second, third = run_cascade(predictor, test_embedding, prompt, config)
    assert_allclose(first.low_res_logits, golden[f"{name}_p1_lowres"], rtol=0, atol=ATOL)
    assert_allclose(first.scores, golden[f"{name}_p1_scores"], rtol=0, atol=ATOL)
    assert_allclose(first.logits, golden[f"{name}_p1_weighted_lowres"], rtol=0, atol=ATOL)
    assert_same_mask(first.mask, golden[f"{name}_p1_weighted_mask"])
    for stage, key in ((second, "p2"), (third, "p3")):
        assert_array_equal(stage.box, golden[f"{name}_{key}_box"])
        assert_allclose(stage.low_res_logits, golden[f"{name}_{key}_lowres"], rtol=0, atol=ATOL)
        assert_allclose(stage.scores, golden[f"{name}_{key}_scores"], rtol=0, atol=ATOL)
        assert stage.chosen == golden[f"{name}_{key}_best"]
    assert_same_mask(third.mask, golden[f"{name}_final_mask"])


def assert_same_mask(ours: np.ndarray, theirs: np.ndarray) -> None:
    union = (ours | theirs).sum()
    assert union and (ours & theirs).sum() / union >= 0.999


def test_the_model_is_left_as_it_was(golden, sam, predictor, test_embedding, target, similarity):
    before = {name: id(module) for name, module in sam.named_modules()}
    run_cascade(predictor, test_embedding, prompt_of(target, similarity), PersamConfig())
    assert {name: id(module) for name, module in sam.named_modules()} == before
    assert_array_equal(
        torch.cat([p.flatten() for p in sam.mask_decoder.parameters()]),
        np.concatenate(
            [golden[f"sd.mask_decoder.{n}"].ravel() for n, _ in sam.mask_decoder.named_parameters()]
        ),
    )

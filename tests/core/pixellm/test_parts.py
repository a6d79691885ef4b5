"""The parts by themselves: codebook, picture, tower, decoder, losses, phrases."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from core.pixellm import losses
from core.pixellm.codebook import (
    IMAGE_TOKEN,
    Codebook,
    Fusion,
    Groups,
    find_groups,
    state_positions,
    token_names,
)
from core.pixellm.config import PixelLMConfig
from core.pixellm.phrases import Span, label_targets, link_phrases, objects_in_question
from core.pixellm.postprocess import MaskOptions, mask_scores, to_masks, upscale
from core.pixellm.preprocessing import Geometry, llm_image_mask, preprocess
from core.pixellm.vision import VisionTower, halve_grid, resize_position_table
from tests.core.pixellm.conftest import GROUP, small_config, small_model

FOLDER = Path(__file__).parents[3] / "core" / "pixellm"

BOOK = Codebook((10, 11, 12, 13), scales=2)


@pytest.mark.parametrize(
    ("ids", "complete", "broken"),
    [
        ([1, 10, 11, 12, 13, 2], ((1, 2, 3, 4),), ()),
        ([10, 11, 12, 13, 10, 11, 12, 13], ((0, 1, 2, 3), (4, 5, 6, 7)), ()),
        ([10, 11, 1, 12, 13], (), ((0, 1), (3, 4))),
        ([10, 10, 11, 12, 13], ((1, 2, 3, 4),), ((0,),)),
        ([10, 11, 12], (), ((0, 1, 2),)),
        ([13, 12, 11, 1, 11], (), ((0, 1, 2), (4,))),
        ([10, 11, 13, 10, 11, 12, 13], ((3, 4, 5, 6),), ((0, 1, 2),)),
        ([1, 2], (), ()),
        ([], (), ()),
    ],
)
def test_groups_are_runs_of_all_tokens_in_order(ids, complete, broken):
    assert find_groups(ids, BOOK) == Groups(complete, broken)


def test_white_space_breaks_no_group():
    spaced = Codebook((10, 11), scales=2, blanks=frozenset({7}))
    groups = find_groups([7, 10, 7, 7, 11, 7, 10, 7, 1], spaced)
    assert groups == Groups(((1, 4),), ((6,),))


def test_unchecked_groups_take_any_order_or_nothing():
    assert find_groups([13, 1, 10, 10, 12], BOOK, unchecked=True).complete == ((0, 2, 3, 4),)
    assert find_groups([10, 11, 12, 13, 10], BOOK, unchecked=True).complete == ()


def test_states_are_those_before_the_tokens_with_the_picture_counted():
    ids = [1, 2, IMAGE_TOKEN, 3, 10, 11, 12, 13]
    positions = state_positions(find_groups(ids, BOOK), ids, BOOK, image_tokens=9)
    assert positions.tolist() == [[11, 12, 13, 14]]  # ids 3 to 6 stand at 11 to 14
    assert state_positions(Groups(), ids, BOOK, 9).shape == (0, 4)


def test_codebook_names_and_refusals():
    assert token_names(small_config()) == tuple(f"[SEG{i}]" for i in range(6))
    one = small_config(tokens_per_scale=1)
    assert token_names(one) == ("[SEG0]", "[SEG1]")
    for ids in ((1, 1), (1, 2, 3)):
        with pytest.raises(ValueError, match="are not distinct ones of 2 scales"):
            Codebook(ids, 2)


def test_fusion_is_the_published_sum_and_can_be_learned():
    vectors = torch.randn(2, 2, 3, 5)
    expected = vectors.sum(dim=2) / 6
    for learned in (False, True):
        fusion = Fusion(small_config(learned_fusion=learned))
        assert_allclose(fusion.fuse_tokens(vectors).detach(), expected, atol=1e-6)
        assert_allclose(fusion.scale_weights(torch.device("cpu")).detach(), [0.5, 0.5])
        assert len(list(fusion.parameters())) == 2 * learned
    single = Fusion(small_config(tokens_per_scale=1))
    assert_array_equal(single.fuse_tokens(vectors[:, :, :1]), vectors[:, :, 0])


@pytest.mark.parametrize(
    ("size", "input_size", "rows", "columns"),
    [
        ((300, 300), (448, 448), 32, 32),
        ((480, 640), (336, 448), 24, 32),
        ((640, 481), (448, 337), 32, 25),  # one pixel begins a patch
        ((1, 3000), (1, 448), 1, 32),
        ((100, 299), (150, 448), 11, 32),  # 149.83 is rounded, 150 / 14 begins an eleventh row
    ],
)
def test_patches_on_the_picture(size, input_size, rows, columns):
    geometry = Geometry.of(size, 448)
    assert geometry.input_size == input_size
    mask = geometry.patch_mask(14)
    assert mask.sum() == rows * columns and mask[:rows, :columns].all()
    halved = llm_image_mask(mask)
    assert halved.shape == (16, 16)
    assert halved.sum() == math.ceil(rows / 2) * math.ceil(columns / 2)


def test_pictures_are_resized_normalised_and_padded():
    image = np.random.default_rng(0).integers(0, 256, (24, 64, 3), dtype=np.uint8)
    config = small_config()
    pixels, geometry = preprocess(image, config)
    assert pixels.shape == (1, 3, 32, 32) and geometry.input_size == (12, 32)
    assert (pixels[:, :, 12:] == 0).all()
    small = np.asarray(Image.fromarray(image).resize((32, 12), Image.Resampling.BILINEAR))
    expected = (small - np.array(config.pixel_mean)) / np.array(config.pixel_std)
    assert_allclose(pixels[0, :, :12].permute(1, 2, 0), expected, atol=1e-5)


@pytest.fixture(scope="module")
def tower():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VisionTower(small_config().vision).eval().requires_grad_(False)


def test_features_equal_clip_s_own_hidden_states(tower):
    pixels = torch.randn(2, 3, 32, 32)
    features = tower(pixels, torch.ones(2, 4, 4, dtype=torch.bool))
    hidden = tower.clip(pixels, output_hidden_states=True).hidden_states
    assert_allclose(features[0], hidden[-2][:, 1:], atol=1e-6)
    assert_allclose(features[1], hidden[1][:, 1:], atol=1e-6)


def test_padding_is_never_looked_at(tower):
    pixels = torch.randn(1, 3, 32, 32)
    mask = Geometry.of((32, 20), 32).patch_mask(8)[None]  # 3 of 4 columns
    other = pixels.clone()
    other[..., 24:] = 9.0
    valid = mask.flatten()
    for one, two in zip(tower(pixels, mask), tower(other, mask), strict=True):
        assert_allclose(one[0, valid], two[0, valid], atol=1e-6)
        assert (one[0, ~valid] - two[0, ~valid]).abs().max() > 1e-3
    full = torch.ones_like(mask)
    assert (tower(pixels, full)[0] - tower(other, full)[0])[0, valid].abs().max() > 1e-4
    both = tower(torch.cat([pixels, other]), torch.cat([mask, full]))
    assert_allclose(both[0][0], tower(pixels, mask)[0][0], atol=1e-6)
    assert_allclose(both[0][1], tower(other, full)[0][0], atol=1e-6)


def test_position_tables():
    table = torch.arange(10.0)[:, None].expand(-1, 2)  # class token and 3 x 3
    assert torch.equal(resize_position_table(table, 3, "reference"), table)
    correct = resize_position_table(table, 6, "correct")
    assert correct[0, 0] == 0 and correct[1, 0] == 1 and correct[-1, 0] == 9
    reference = resize_position_table(table, 6, "reference")
    assert reference[-1, 0] == 9 and reference[0, 0] == 0 and reference[-2, 0] == 8


def test_halving_the_grid_averages_two_by_two():
    features = torch.randn(1, 16, 3)
    grid = features.view(1, 4, 4, 3)
    expected = grid.view(1, 2, 2, 2, 2, 3).mean(dim=(2, 4)).view(1, 4, 3)
    assert_allclose(halve_grid(features), expected, atol=1e-6)


def test_targets_of_several_pictures_equal_each_by_itself(model):
    network, generator = model.network, torch.Generator().manual_seed(0)
    states = torch.randn(2, 6, 16, generator=generator)
    features = [torch.randn(2, 32, side, side, generator=generator) for side in (4, 8)]
    together = network.decode(states, features)
    for row in range(2):
        alone = network.decode(states[row : row + 1], [one[row : row + 1] for one in features])
        assert_allclose(together[row], alone[0], atol=1e-4)
    assert network.decode(states[:0], [one[:1] for one in features]).shape == (0, 16, 16)


def test_masks_of_a_flat_picture_lose_their_padding():
    geometry = Geometry.of((50, 100), 32)
    logits = torch.full((1, 16, 16), -1.0)
    logits[:, :, :8] = 1.0  # the left half
    logits[:, 8:] = 5.0  # padding, which must not show
    mask = to_masks(upscale(logits, geometry))[0]
    assert mask.shape == (50, 100)
    assert mask[:45, :48].all() and not mask[:45, 52:].any()


def test_scores_and_small_regions():
    logits = torch.tensor([[[2.0, -1.0], [0.0, 4.0]], [[-1.0, -2.0], [0.0, -3.0]]])
    expected = (torch.tensor([2.0, 4.0]).sigmoid()).mean()
    assert_allclose(mask_scores(logits), [expected, 0], atol=1e-5)
    speckled = torch.full((1, 9, 9), -1.0)
    speckled[0, :4, :4] = speckled[0, 8, 8] = 1.0
    assert to_masks(speckled, MaskOptions(min_area=3)).sum() == 16
    assert to_masks(speckled[:0], MaskOptions(min_area=3)).shape == (0, 9, 9)


def test_losses_by_hand():
    logits = torch.tensor([[[0.0, math.log(3)]], [[math.log(3), math.log(3)]]])
    targets = torch.tensor([[[1, 1]], [[0, 1]]])
    half, quarter, rest = math.log(2), -math.log(0.25), -math.log(0.75)
    assert_allclose(
        losses.mask_loss(logits, targets), [(half + rest) / 2, (quarter + rest) / 2], rtol=1e-6
    )
    dice = [1 - 2 * 1.25 / (1.25 + 2), 1 - 2 * 0.75 / (1.5 + 1)]
    assert_allclose(losses.dice_loss(logits, targets), dice, rtol=1e-3)
    # Both masks claim the right pixel; a logit of 0 is outside.
    weights = losses.overlap_weights(logits, alpha=3.0)
    assert_array_equal(weights, [[[1, 3]], [[1, 3]]])
    refined = losses.target_refinement_loss(logits, targets, alpha=3.0)
    assert_allclose(refined, (half + 3 * rest + quarter + 3 * rest) / 4, rtol=1e-6)
    apart = torch.tensor([0, 1])  # of two questions: no overlap
    assert_array_equal(losses.overlap_weights(logits, apart), 1)
    plain = losses.target_refinement_loss(logits, targets, apart)
    assert_allclose(plain, losses.mask_loss(logits, targets).mean(), rtol=1e-6)
    total = losses.total_loss(torch.tensor(0.7), logits, targets, apart)
    assert_allclose(
        total, 0.7 + 2 * plain + 0.5 * losses.dice_loss(logits, targets).mean(), rtol=1e-6
    )


def test_text_loss_counts_answer_tokens_only():
    logits = torch.zeros(1, 4, 8)
    logits[0, 1, 5] = math.log(7)  # half of the probability
    labels = torch.tensor([[losses.IGNORED, losses.IGNORED, 5, 2]])
    expected = (-math.log(0.5) + math.log(8)) / 2
    assert_allclose(losses.text_loss(logits, labels), expected, rtol=1e-6)
    assert losses.text_loss(logits, torch.full((1, 4), losses.IGNORED)) == 0


def test_losses_without_targets_still_have_a_gradient():
    logits = torch.zeros(0, 4, 4, requires_grad=True)
    text = torch.tensor(1.0, requires_grad=True)
    total = losses.total_loss(text, logits, torch.zeros(0, 4, 4))
    total.backward()
    assert total.item() == 1.0 and text.grad == 1


def link(text):
    """Phrases by target of an answer in which "*" stands for a group."""
    pieces = text.split("*")
    positions, plain = [], ""
    for piece in pieces[:-1]:
        plain = (plain + piece).rstrip() if not (plain and piece.startswith(" ")) else plain + piece
        plain = plain.rstrip()
        positions.append(len(plain))
    plain += pieces[-1]
    spans = link_phrases(plain, positions, range(1, len(positions) + 1))
    assert all(0 <= span.start < span.end <= len(plain) for span in spans)
    return [(plain[span.start : span.end], span.targets) for span in spans]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("You can use the red clock * to find out.", [("the red clock", (1,))]),
        ("the cup * and a clock *.", [("the cup", (1,)), ("a clock", (2,))]),
        ("The hand of the clock * shows it.", [("The hand of the clock", (1,))]),
        ("It is *.", []),
        ("Sure, *.", []),
        ("*.", []),
        ("Sure, the segmentation result is *.", []),
        ("The segmentation result of the dog is *.", [("the dog", (1,))]),
        ("The cup is * and the red kite is *.", [("The cup", (1,)), ("the red kite", (2,))]),
        (
            "Sure, a cat, a dog and a bird are *, * and *.",
            [("a cat", (1,)), ("a dog", (2,)), ("a bird", (3,))],
        ),
        ("The three cups are *, * and *.", [("The three cups", (1, 2, 3))]),
        ("They are * and *.", []),
        ("I see two apples * * on it.", [("two apples", (1, 2))]),
        ("There is a bus * here. There is no kite.", [("a bus", (1,))]),
        ("apples * and pears *", [("apples", (1,)), ("pears", (2,))]),
        ("你可以用时钟 *。", [("你可以用时钟", (1,))]),
        (
            "the very long and winding road that nobody in this whole town knows *",
            [("that nobody in this whole town knows", (1,))],
        ),
    ],
)
def test_phrases(text, expected):
    assert link(text) == expected


@pytest.mark.parametrize(
    ("question", "objects"),
    [
        (
            "Please segment the cat, a dog and the bird in this image.",
            ["the cat", "a dog", "the bird"],
        ),
        ("What is the red cup in this image? Please output segmentation mask.", ["the red cup"]),
        ("Can you segment the person in this image?", ["the person"]),
        ("Where is the kite?", ["the kite"]),
        ("How many are there?", []),
    ],
)
def test_objects_of_questions(question, objects):
    assert objects_in_question(question) == objects


def test_labels_come_from_the_words_or_the_question_or_the_number():
    spans = [Span(0, 7, (1,))]
    assert label_targets("the cup and", spans, [1, 2], "what") == ["cup", "target 2"]
    question = "Segment the cat and a dog in this image."
    assert label_targets("They are.", [], [4, 5], question) == ["cat", "dog"]
    assert label_targets("They are.", [], [4, 5], "segment the cats") == ["cats", "cats"]
    assert label_targets("It is.", [], [], question) == []


def test_sizes_follow_the_configuration():
    config = PixelLMConfig.published_7b()
    assert (config.scales, config.image_tokens, config.mask_size) == (2, 256, 128)
    assert config.vision.blocks == (23, 14)


def test_a_training_step_reaches_every_part():
    model = small_model(learned_fusion=True)
    network = model.network.train().requires_grad_(True)
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ids = [0, 9, IMAGE_TOKEN, 10, *model.tokenizer.encode(f"what is it it is {GROUP} </s>")]
    picture = network.encode_picture(pixels, Geometry.of((30, 32), 32))
    embeds = network.embed(ids, picture.image_tokens)[None]
    states = network.language_model.model(inputs_embeds=embeds).last_hidden_state[0]
    codebook = model.tokenizer.codebook
    positions = state_positions(find_groups(ids, codebook), ids, codebook, 4)
    logits = network.decode(states[positions], picture.decoder_features)
    labels = torch.tensor([losses.IGNORED] * 6 + ids[3:])[None]
    text = losses.text_loss(network.token_logits(states)[None], labels)
    targets = torch.zeros(1, 16, 16)
    targets[:, 4:9, 2:12] = 1
    losses.total_loss(text, logits, targets).backward()
    without = {name for name, weight in network.named_parameters() if weight.grad is None}
    unused = ("point_embeddings", "not_a_point_embed", "mask_downscaling", "iou_prediction_head")
    beyond = ("clip.encoder.layers.2.", "clip.post_layernorm.")  # the last block is never read
    assert all(any(part in name for part in (*unused, *beyond)) for name in without), without


def test_the_page_can_start_without_transformers():
    """It takes seconds to import, so only building a network does."""
    lines = (line for path in FOLDER.glob("*.py") for line in path.read_text("utf-8").splitlines())
    assert not [line for line in lines if line.startswith(("import transf", "from transf"))]

"""Training the embedded CLIP: what is said, what is seen, what is learned."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file

from core.clip.build import build_clip, embedded_tokenizer
from core.stickers.atlas import Atlas
from core.stickers.colours import COLOURS
from core.stickers.scenes import SceneConfig
from core.training import clip as training
from core.training import clip_losses, clip_words
from core.training.clip_scenes import (
    LabelledSceneGenerator,
    known_objects,
    known_sprites,
    patch_coverage,
    prompt_visually,
)
from core.training.run import RunConfig

VIEW = training.Views(96, 1.0, 4, max_objects=2, min_scale=0.3, max_scale=0.8)
SMALL = training.ClipTraining(
    stages=(
        training.Stage(0.5, 0.0, 0.0, 0.0, (VIEW,)),
        training.Stage(1.0, 0.3, 0.3, 0.5, (VIEW,)),
    )
)


@pytest.fixture
def scenes(named_atlas: Atlas) -> Callable[..., LabelledSceneGenerator]:
    def generator(**options) -> LabelledSceneGenerator:
        config = SceneConfig(size=96, max_objects=2, min_scale=0.4, max_scale=0.7)
        return LabelledSceneGenerator(
            named_atlas, torch.arange(len(named_atlas.infos)), config, seed=3, **options
        )

    return generator


def test_words_of_the_table_are_few_tokens_each() -> None:
    tokenizer, full = embedded_tokenizer(), SimpleTokenizer()
    for word in clip_words.all_words():
        assert len(tokenizer.encode(word)) == len(full.encode(word)), word


def test_other_texts_are_read_all_the_same() -> None:
    tokenizer = embedded_tokenizer()
    for text in ("xylophone", "Ünïcödé 北京", "🍎🍐"):
        assert tokenizer.decode(tokenizer.encode(text)).strip() == text.lower().strip()


def test_the_tokenizers_file_is_what_the_words_take() -> None:
    merges = clip_words.needed_merges(sorted(clip_words.all_words()))
    assert list(embedded_tokenizer().bpe_ranks) == merges


def test_captions_name_every_object_with_its_article() -> None:
    text = clip_words.describe(["red apple", "bread", "axe"], random.Random(0))
    assert "a red apple, bread and an axe" in text


def test_known_objects_are_no_test_objects(named_atlas: Atlas) -> None:
    assert all(item.split == "train" for item in known_objects())
    everything = torch.arange(len(named_atlas.infos))
    known, classes = known_sprites(named_atlas, everything)
    assert known.tolist() == everything[:-1].tolist(), "a lemon is a test object"
    assert classes[-1] == -1


def test_labels_agree_with_the_picture(scenes: Callable[..., LabelledSceneGenerator]) -> None:
    batch = scenes().batch(8)
    assert (batch.classes[:, 0] >= 0).any()
    for b, k in (batch.classes >= 0).nonzero().tolist():
        assert (batch.instance_ids[b] == k + 1).any()
    assert torch.equal(batch.subject, batch.classes >= 0), "without prompts everything counts"
    assert batch.colours.max() < len(COLOURS)


def test_a_prompted_picture_is_about_one_object(
    scenes: Callable[..., LabelledSceneGenerator],
) -> None:
    plain, prompted = scenes().batch(8), scenes(prompted_share=1.0).batch(8)
    shown = (prompted.classes >= 0).any(dim=1)
    assert (prompted.subject.sum(dim=1) == shown.long()).all()
    assert torch.equal(plain.instance_ids, prompted.instance_ids)
    assert (plain.images != prompted.images).flatten(1).any(dim=1)[shown].all()


def test_a_redrawn_picture_shows_the_same_objects_elsewhere(
    scenes: Callable[..., LabelledSceneGenerator],
) -> None:
    drawn, redrawn, again = (scenes(redrawn_share=share).batch(4) for share in (0.0, 1.0, 1.0))
    assert torch.equal(redrawn.images, again.images), "a seed draws one series"
    assert not torch.equal(drawn.instance_ids, redrawn.instance_ids)
    assert torch.equal(drawn.classes[0], redrawn.classes[0])
    before, after = ((one.instance_ids > 0).float().mean() for one in (drawn, redrawn))
    assert after == pytest.approx(before, rel=0.5)
    # An object keeps its colour where it went: ids move with their pixels.
    for one in (drawn, redrawn):
        inside = one.images.float().std(dim=1)[one.instance_ids > 0].mean()
        assert inside > one.images.float().std(dim=1)[one.instance_ids == 0].mean()


@pytest.mark.parametrize("kind", ["blur", "grey"])
def test_visual_prompts_leave_the_object_as_it_is(kind: str) -> None:
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[4:28, 4:28] = True
    prompted = prompt_visually(image, mask, kind, random.Random(1))
    deep = (slice(None), slice(8, 24), slice(8, 24))
    assert torch.equal(prompted[deep], image[deep])
    assert not torch.equal(prompted[:, :3], image[:, :3])


def test_coverage_of_patches_is_a_share() -> None:
    ids = torch.zeros(1, 16, 16, dtype=torch.uint8)
    ids[0, :8, :8], ids[0, :4, 8:] = 1, 2
    coverage = patch_coverage(ids, 2, 8)
    assert coverage[0].tolist() == [[1, 0], [0, 0.5], [0, 0], [0, 0]]


def test_patch_loss_is_small_where_names_and_backgrounds_are_right() -> None:
    coverage = torch.tensor([[[1.0, 0], [0, 0.9], [0, 0]]])
    classes = torch.tensor([[2, 0]])
    right = torch.full((1, 3, 5), -9.0)  # 3 names, 2 background words
    right[0, 0, 2] = right[0, 1, 0] = right[0, 2, 4] = 9
    loss, top1 = clip_losses.patch_loss(right, coverage, classes, 3)
    worse, none = clip_losses.patch_loss(-right, coverage, classes, 3)
    assert loss < 1e-3 < worse and (top1, none) == (1, 0)


def test_phrase_loss_wants_the_meant_patches_only() -> None:
    axes = torch.eye(3)
    patches = torch.stack([axes[0], axes[1]])[None]  # the first patch is the phrase's
    backgrounds, scale = axes[2:], torch.tensor(20.0)
    meant, other = torch.tensor([[1.0, 0]]), torch.tensor([[0, 1.0]])
    patches = patches + 0.1 * axes[2]
    good = clip_losses.phrase_loss(patches, axes[:1], backgrounds, scale, meant)
    bad = clip_losses.phrase_loss(patches, axes[:1], backgrounds, scale, other)
    assert good < 0.2 < 5 < bad


def test_texts_without_padding_are_encoded_as_open_clip_does() -> None:
    torch.manual_seed(0)
    model = build_clip().eval()
    tokens = embedded_tokenizer()(["a", "a photo of a small red apple and two dogs."])
    with torch.no_grad():
        torch.testing.assert_close(
            training.encode_tokens(model, tokens), model.encode_text(tokens), rtol=0, atol=1e-5
        )


def test_trains_and_exports_what_the_catalogue_loads(
    named_atlas: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "load_atlas", lambda folder: named_atlas)
    config = RunConfig(out=tmp_path, minutes=0.05, device="cpu", log_steps=1)
    path = training.train(config, tmp_path, SMALL)
    card = json.loads(path.with_suffix(".json").read_text())
    assert "apple" in card["knows"] and "lemon" not in card["knows"]
    assert {name: tuple(v.shape) for name, v in load_file(path).items()} == {
        name: tuple(v.shape) for name, v in build_clip(card["config"]["model"]).state_dict().items()
    }


def test_the_embedded_clip_is_small() -> None:
    model = build_clip()
    table = model.token_embedding.weight.numel()
    assert sum(p.numel() for p in model.parameters()) - table <= 8_000_000

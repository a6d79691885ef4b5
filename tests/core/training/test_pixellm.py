"""Training the embedded PixelLM: its start, tokenizer, batches, and a run of a few steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.clip.build import build_clip
from core.clip.build import embedded_tokenizer as clip_tokenizer
from core.clip.model import ClipModel
from core.clip.towers import embed_patches
from core.models.catalogue import parse_entry
from core.models.loading import read_state_dict
from core.pixellm.build import build_from_entry, with_tokenizer
from core.pixellm.conversation import Question, first_prompt
from core.pixellm.losses import IGNORED
from core.pixellm.model import PixelLM
from core.pixellm.pipeline import answer, start
from core.pixellm.tokenizer import ChatTokenizer
from core.stickers.atlas import Atlas
from core.stickers.scenes import SceneConfig
from core.training import pixellm as training
from core.training import pixellm_objective as objective
from core.training import pixellm_tokenizer
from core.training.pixellm_batches import Packer
from core.training.pixellm_losses import guidance_loss, guides, picking_loss, pointing_loss
from core.training.pixellm_losses import thing_features as features_of
from core.training.pixellm_questions import SEG, Exchange
from core.training.pixellm_scenes import MIN_AREA, ChatSceneGenerator
from core.training.pixellm_start import start_tower, start_words
from core.training.run import RunConfig

QUICK = training.PixelLMTraining(
    stages=(
        training.Stage(0.2, 2, 0, 2, 0.4, 0.9, 1.0, True),
        training.Stage(0.5, 2, 2, 2, 0.4, 0.9, 1.0, True),
        training.Stage(1.0, 2, 2, 3, 0.3, 0.8, 0.0, False),
    ),
    decoded=6,
    shown=4,
)
WHERE = Exchange("name", "Where is the knife?", f"Here is the knife {SEG}.", (1,))
BOTH = Exchange("several", "The dog and the axe?", f"I see a dog {SEG} and an axe {SEG}.", (2, 3))


@pytest.fixture(scope="module")
def tokenizer() -> ChatTokenizer:
    return pixellm_tokenizer.embedded_tokenizer()


@pytest.fixture(scope="module")
def network() -> PixelLM:
    torch.manual_seed(5)
    return PixelLM(pixellm_tokenizer.embedded_config()).eval()


@pytest.fixture(scope="module")
def clip() -> ClipModel:
    torch.manual_seed(6)
    return ClipModel(build_clip().eval(), clip_tokenizer())


@pytest.fixture
def small_start(
    monkeypatch: pytest.MonkeyPatch, named_atlas: Atlas, clip: ClipModel
) -> pytest.MonkeyPatch:
    monkeypatch.setattr(training, "load_atlas", lambda folder: named_atlas)
    monkeypatch.setattr(training, "embedded_clip", lambda: clip)
    return monkeypatch


# Tokenizer


def test_the_tokenizers_file_is_what_the_words_take() -> None:
    built = pixellm_tokenizer.build(pixellm_tokenizer.all_words())
    assert json.loads(built.to_str()) == json.loads(pixellm_tokenizer.FILE.read_text("utf-8"))
    assert pixellm_tokenizer.FILE.stat().st_size <= 200_000


def test_known_words_are_one_token_each(tokenizer: ChatTokenizer) -> None:
    for word in pixellm_tokenizer.all_words():
        assert len(tokenizer.encode(f"the {word}")) == 2 or word in pixellm_tokenizer.LETTERS


@given(text=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=40))
@settings(max_examples=100, deadline=None)
def test_any_text_comes_back(tokenizer: ChatTokenizer, text: str) -> None:
    question = " ".join(text.replace(pixellm_tokenizer.SPACE, "").split())
    ids = [i for i in tokenizer.encode(question) if i not in tokenizer.control_ids]
    if len(ids) == len(tokenizer.encode(question)):
        assert tokenizer.decode(ids).split() == question.split()


@pytest.mark.parametrize(
    "text", ["🍎🍐 où ça?", "你好，世界", "Zwölf Boxkämpfer", "t-shirt's (7 %)"]
)
def test_other_scripts_and_signs_come_back(tokenizer: ChatTokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_visitor_cannot_write_codebook_tokens(tokenizer: ChatTokenizer) -> None:
    text = "Where [SEG0] [SEG1][SEG2] is <im_start> it </s> <s>[SEG5]?"
    config = pixellm_tokenizer.embedded_config()
    prompt = first_prompt(Question(text), Packer(tokenizer, config).template, tokenizer)
    after = prompt.ids[prompt.ids.index(-200) + 2 :]
    assert not tokenizer.control_ids & {*after} and prompt.warnings


def test_groups_are_six_tokens_in_a_row(tokenizer: ChatTokenizer) -> None:
    packer = Packer(tokenizer, pixellm_tokenizer.embedded_config())
    ids = packer.answer_ids(BOTH)
    begin = ids.index(tokenizer.codebook.ids[0])
    assert tuple(ids[begin : begin + 6]) == tokenizer.codebook.ids
    assert tokenizer.decode(ids) == "I see a dog and an axe."


# Start


def test_the_tower_begins_as_clips(network: PixelLM, clip: ClipModel) -> None:
    start_tower(network, clip)
    images = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (clip.mean, clip.std))
    with torch.no_grad():
        x, _ = embed_patches(clip.visual, (images / 255 - mean) / std)
        expected = [x := block(x) for block in clip.visual.transformer.resblocks]
        deep, shallow = objective.encode(network, images)
    torch.testing.assert_close(deep, expected[5][:, 1:], atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(shallow, expected[2][:, 1:], atol=2e-4, rtol=1e-3)


def test_words_begin_as_clips_features_of_them(clip: ClipModel) -> None:
    network = PixelLM(pixellm_tokenizer.embedded_config())
    pieces = pixellm_tokenizer.word_pieces()
    wanted = {"the", "Where", "knife", "Knife"}
    assert wanted <= {*pieces.values()} and "[SEG0]" not in pieces.values()
    pieces = {token: word for token, word in pieces.items() if word in wanted}
    start_words(network, pieces, clip)
    ids = {word: token for token, word in pieces.items()}
    embed = torch.nn.functional.normalize(network.language_model.model.embed_tokens.weight, dim=1)
    assert embed[ids["knife"]] @ embed[ids["Knife"]] > 0.7
    assert abs(embed[ids["knife"]] @ embed[ids["the"]]) < 0.7


# Scenes and batches


def test_what_is_said_of_scenes_can_be_seen(named_atlas: Atlas) -> None:
    config = SceneConfig(size=96, max_objects=4, min_scale=0.2, max_scale=0.7)
    sprites = torch.arange(len(named_atlas.infos))
    batch = ChatSceneGenerator(named_atlas, sprites, config, seed=3).batch(12)
    assert any(scene.things for scene in batch.scenes)
    for b, scene in enumerate(batch.scenes):
        assert [t.x for t in scene.things] == sorted(t.x for t in scene.things)
        for thing in scene.things:
            mask = batch.masks(b, [thing.number])[0].numpy()
            assert mask.mean() == pytest.approx(thing.area, abs=1e-5) and thing.area >= MIN_AREA
            y, x = np.argwhere(mask).mean(axis=0)
            assert ((x + 0.5) / 96, (y + 0.5) / 96) == pytest.approx((thing.x, thing.y), abs=1e-3)
            assert all(other > thing.number for other in thing.hidden_by)


def test_a_packed_talk_is_read_as_if_it_were_alone(
    network: PixelLM, tokenizer: ChatTokenizer
) -> None:
    """States of two talks about one picture in one sequence: those of each by itself."""
    packer = Packer(tokenizer, network.config)
    image_tokens = torch.randn(1, network.config.image_tokens, network.config.language.hidden_size)
    with torch.no_grad():
        together = packer.pack([[(WHERE, BOTH), (BOTH,)]])
        states = objective.read(network, together, image_tokens)[0]
        for k, talk in enumerate(((WHERE, BOTH), (BOTH,)), 1):
            alone = packer.pack([[talk]])
            own = objective.read(network, alone, image_tokens)[0]
            torch.testing.assert_close(
                states[together.speakers[0] == k], own[alone.speakers[0] == 1], atol=1e-4, rtol=0
            )


def test_a_batch_holds_the_pipelines_own_ids(network: PixelLM, tokenizer: ChatTokenizer) -> None:
    packer = Packer(tokenizer, network.config)
    batch = packer.pack([[(WHERE,)], [(BOTH, WHERE)]])
    prompt = list(first_prompt(Question(WHERE.question), packer.template, tokenizer).ids)
    ids = batch.ids[0].tolist()
    begin, length = batch.picture.start, batch.picture.stop - batch.picture.start
    assert length == network.config.image_tokens
    said = packer.answer_ids(WHERE)
    whole = [*prompt[:begin], *ids[begin : begin + length], *prompt[begin + 1 :], *said]
    assert ids[: len(whole)] == whole
    assert [i for i in batch.labels[0].tolist() if i != IGNORED] == said
    assert batch.scene.tolist() == [0, 1, 1, 1] and batch.thing.tolist() == [1, 2, 3, 1]
    assert batch.question.tolist() == [0, 1, 1, 2]
    for row, scene in zip(batch.states, batch.scene, strict=True):
        assert tuple(batch.ids[scene, row + 1].tolist()) == tokenizer.codebook.ids


def test_only_answers_are_learned(network: PixelLM, tokenizer: ChatTokenizer) -> None:
    batch = Packer(tokenizer, network.config).pack([[(WHERE,)]])
    states = torch.randn(*batch.ids.shape, network.config.language.hidden_size)
    due = batch.labels[0, 1:] != IGNORED
    logits = network.token_logits(states[0, :-1][due])
    expected = torch.nn.functional.cross_entropy(logits, batch.labels[0, 1:][due])
    torch.testing.assert_close(objective.answer_loss(network, states, batch), expected)


def test_a_vector_should_be_like_its_objects_features_only() -> None:
    axes = torch.eye(3)
    features = axes[2].view(1, 3, 1, 1).repeat(1, 1, 4, 4)  # background
    features[0, :, :2], features[0, :, 2:3, :2] = axes[0].view(3, 1, 1), axes[1].view(3, 1, 1)
    own, others = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)
    own[:, :4], others[:, 4:6, :4] = 1, 1
    right, wrong, same = (
        pointing_loss(vector[None], features, own, others)
        for vector in (axes[0], axes[1], axes[0] + axes[1])
    )
    assert right < 0.1 < same < wrong


def test_a_guide_is_its_things_mean_feature() -> None:
    grid = torch.arange(16.0).view(1, 1, 4, 4)
    own = torch.zeros(1, 8, 8)
    own[:, :2, :4] = 1  # two cells of the first row
    (guide,) = guides([grid, grid.repeat_interleave(2, 2).repeat_interleave(2, 3)], own)
    assert guide.flatten().tolist() == pytest.approx([0.5, 0.5])
    assert (
        guidance_loss(guide[None], guide[None]) == 0 < guidance_loss(guide[None] + 1, guide[None])
    )


def test_a_prompt_picks_what_it_is_most_like() -> None:
    grid = torch.eye(4)[None, :, :, None].repeat(1, 1, 1, 4)  # a row of cells for each axis
    cover = torch.zeros(1, 16, 2)
    cover[0, :4, 0], cover[0, 4:8, 1] = 1, 1
    features, there = features_of(grid, cover, torch.tensor([[7, -1]]))
    assert there.tolist() == [[True, False, True]]
    assert features[0].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0.5, 0.5]]
    of_two, there = features.expand(2, -1, -1), there.expand(2, -1)
    prompts = torch.tensor([[1.0, 0.9, 0, 0], [0, 0, 1, 1]])  # the second thing is not there
    loss, picked = picking_loss(prompts, of_two, there, torch.tensor([0, 0]))
    assert (
        picked == 0.5
        and loss > picking_loss(prompts[:1], of_two[:1], there[:1], torch.tensor([0]))[0]
    )


# Training


def test_a_batch_can_be_learned_by_heart(
    named_atlas: Atlas, tokenizer: ChatTokenizer, clip: ClipModel
) -> None:
    torch.manual_seed(0)
    network = PixelLM(pixellm_tokenizer.embedded_config())
    start_tower(network, clip)
    talks = training.Talks(named_atlas, QUICK.stages[1], Packer(tokenizer, network.config), 1)
    scenes, batch = next(
        (scenes, batch) for scenes, batch in (talks.batch() for _ in range(9)) if len(batch.scene)
    )
    learner = objective.Learner(network)
    loss_of = objective.Objective(learner, tokenizer, QUICK)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=2e-3)
    losses = []
    for _ in range(6):
        loss, _ = loss_of(scenes, batch, frozen=True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is None for p in network.vision_tower.parameters()), "frozen"


def test_trains_resumes_and_exports_what_the_catalogue_loads(
    small_start: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = RunConfig(out=tmp_path, minutes=0.06, device="cpu", log_steps=1)
    path = training.train(config, tmp_path, QUICK)
    longer = RunConfig(out=tmp_path, minutes=0.09, device="cpu", log_steps=1, resume=True)
    assert training.train(longer, tmp_path, QUICK) == path
    card = json.loads(path.with_suffix(".json").read_text())
    assert "apple" in card["knows"] and "lemon" not in card["knows"]
    assert card["parameters"] <= 15_000_000
    entry = parse_entry(
        {
            "id": "pixellm_embedded",
            "method": "pixellm",
            "set": "embedded",
            "title": "",
            "note": "",
            "file": path.name,
            "card": path.with_suffix(".json").name,
            "license": "",
            "source": "",
            "memory_mib": 1,
            "builder": "core.pixellm.build:build_from_entry",
        },
        tmp_path,
    )
    model = with_tokenizer(entry, build_from_entry(entry, read_state_dict(path)))
    image = np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    from core.pixellm.generation import GenerationOptions

    result = answer(
        model, start(model, image), "Where is it?", generation=GenerationOptions(max_new_tokens=8)
    )
    assert result.segmentation.size == (60, 90)
    # Weights to start from are taken up.
    again = RunConfig(out=tmp_path / "b", minutes=0.001, device="cpu", start_from=path)
    assert training.train(again, tmp_path, QUICK).is_file()


def test_draws_are_the_same_for_one_seed(named_atlas: Atlas, tokenizer: ChatTokenizer) -> None:
    packer = Packer(tokenizer, pixellm_tokenizer.embedded_config())
    first, second = (
        training.Talks(named_atlas, QUICK.stages[2], packer, 4).batch() for _ in range(2)
    )
    assert torch.equal(first[0].images, second[0].images)
    assert torch.equal(first[1].ids, second[1].ids)

"""Whole conversations with a tiny network: streaming, turns, masks, odd input, stopping."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from core.engine import CancelToken
from core.errors import Cancelled, ImageError, PromptError
from core.pixellm import generation, pipeline
from core.pixellm.chat_model import ChatModel
from core.pixellm.codebook import IMAGE_TOKEN
from core.pixellm.conversation import Question
from core.pixellm.generation import Decoding, GenerationOptions, generate
from core.pixellm.phrases import Span
from core.pixellm.pipeline import answer, encode, segment, start, stream
from core.pixellm.postprocess import MaskOptions
from core.pixellm.results import Finished, TargetFound, TextPiece
from core.pixellm.tokenizer import ChatTokenizer
from tests.core.pixellm.conftest import CONTROL, GROUP, small_config, small_model

TWO = "the cup SEG and a clock SEG . </s>"


def test_an_answer_with_two_targets(model, picture, script):
    script(TWO)
    result = segment(model, picture, "what is in this image")
    assert result.answer.text == "the cup and a clock ."
    assert result.answer.spans == (Span(0, 7, (1,)), Span(12, 19, (2,)))
    assert result.outcome == "masks" and result.answer.ending == "end"
    assert [target.position for target in result.targets] == [7, 19]
    found = result.segmentation
    assert found.size == (30, 64) and found.score_kind == "llm_none"
    assert {*found.labels, *(one.label for one in found.dropped)} == {"cup", "clock"}
    assert np.isnan(found.scores).all() and found.method == "pixellm"
    assert {"words", "masks", "total"} == set(found.seconds)
    json.dumps(found.parameters)
    for target in result.targets:
        assert target.mask.shape == (30, 64) and 0 <= target.score <= 1
        assert target.logits.shape == (16, 16)
        assert [one.shape for one in target.scale_logits] == [(8, 8), (16, 16)]


@pytest.mark.parametrize("size", [(30, 64), (64, 30), (48, 48)])
def test_cached_and_uncached_generation_agree(model, script, size):
    random = np.random.default_rng(1)
    picture = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    conversations = [start(model, picture, use_cache=use) for use in (True, False)]
    for question, words in (("what is it", TWO), ("and this", "it is SEG . </s>")):
        results = []
        for conversation in conversations:
            script(words)
            results.append(answer(model, conversation, question))
        cached, plain = results
        assert cached.turn == plain.turn and cached.answer == plain.answer
        for one, other in zip(cached.targets, plain.targets, strict=True):
            assert_allclose(one.logits, other.logits, atol=1e-4)
            sure = np.abs(one.logits).min() > 1e-4
            assert not sure or np.array_equal(one.mask, other.mask)
    cached, plain = (conversation.decoding.ids for conversation in conversations)
    assert cached == plain


def test_greedy_tokens_are_the_same_without_cache_and_in_the_published_way(model, picture):
    """The published way: no cache, states taken from one pass over the whole sequence."""
    features = encode(model, picture)
    prompt = model.tokenizer.encode("USER: what is this ASSISTANT:")
    prompt = [0, 9, IMAGE_TOKEN, 10, *prompt]
    runs = []
    for use_cache in (True, False):
        decoding = Decoding(model.network, features, use_cache=use_cache)
        options = GenerationOptions(max_new_tokens=12)
        runs.append(list(generate(model.network, decoding, prompt, -1, options)))
    tokens = [step.token for step in runs[0]]
    assert tokens == [step.token for step in runs[1]]
    network = model.network
    embeds = network.embed([*prompt, *tokens], features.image_tokens)[None]
    mask = torch.ones(1, embeds.shape[1], dtype=torch.long)
    mask[0, 2 : 2 + len(features.token_mask)] = features.token_mask
    assert not features.token_mask.all()
    states = network.language_model.model(
        inputs_embeds=embeds,
        attention_mask=mask,
        position_ids=torch.arange(embeds.shape[1])[None],
    ).last_hidden_state[0]
    expected = states[-13:-1]
    generated = network.language_model.generate(
        inputs_embeds=embeds[:, :-12],
        attention_mask=mask[:, :-12],
        position_ids=torch.arange(embeds.shape[1] - 12)[None],
        max_new_tokens=12,
        eos_token_id=-1,
        pad_token_id=0,
        do_sample=False,
    )
    assert generated[0].tolist() == tokens
    for run in runs:
        assert_allclose(torch.stack([step.state for step in run]), expected, atol=1e-5)


def test_masks_equal_those_of_one_pass_over_the_whole_answer(model, picture, script):
    from core.pixellm.codebook import find_groups, state_positions

    script(TWO)
    conversation = start(model, picture)
    result = answer(model, conversation, "what is it")
    features, network = conversation.picture, model.network
    ids = conversation.decoding.ids
    codebook = model.tokenizer.codebook
    groups = find_groups(ids, codebook)
    positions = state_positions(groups, ids, codebook, len(features.image_tokens))
    mask = torch.ones(1, conversation.decoding.length - 1, dtype=torch.long)
    mask[0, 3 : 3 + len(features.token_mask)] = features.token_mask
    assert ids[3] == IMAGE_TOKEN
    embeds = network.embed(ids, features.image_tokens)[None]
    states = network.language_model.model(inputs_embeds=embeds, attention_mask=mask)
    together = network.decode(states.last_hidden_state[0, positions], features.decoder_features)
    for target, logits in zip(result.targets, together, strict=True):
        assert_allclose(target.logits, logits, atol=1e-4)


def test_the_picture_is_encoded_once_for_a_conversation(model, picture, script, monkeypatch):
    counted = []
    monkeypatch.setattr(
        model.network.vision_tower, "forward", _counting(model.network.vision_tower, counted)
    )
    conversation = start(model, picture)
    for _ in range(3):
        script(TWO)
        answer(model, conversation, "what is it")
    assert len(counted) == 1


def _counting(module, calls):
    forward = module.forward

    def counting(*args):
        calls.append(1)
        return forward(*args)

    return counting


def test_text_streams_and_masks_come_when_their_tokens_are_complete(model, picture, script):
    script(TWO)
    events = list(stream(model, start(model, picture), "what is it"))
    kinds = [
        event.text if isinstance(event, TextPiece) else type(event).__name__ for event in events
    ]
    assert kinds == [
        "the",
        " cup",
        "TargetFound",
        " and",
        " a",
        " clock",
        "TargetFound",
        " .",
        "Finished",
    ]
    targets = [event for event in events if isinstance(event, TargetFound)]
    assert [event.span for event in targets] == [Span(0, 7, (1,)), Span(12, 19, (2,))]
    result = events[-1].result
    pieces = [event.text for event in events if isinstance(event, TextPiece)]
    assert "".join(pieces) == result.answer.text
    assert [event.target for event in targets] == list(result.targets)


def test_a_piece_of_text_waits_for_all_bytes_of_a_character(picture, monkeypatch):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*CONTROL, *letters]
    by_bytes = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    by_bytes.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    by_bytes.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=by_bytes, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.add_tokens(CONTROL)
    small = small_config().language
    model = small_model(language=replace(small, vocab_size=len(names)))
    model = replace(model, tokenizer=ChatTokenizer(fast, model.config))
    ids = iter(model.tokenizer.encode("\n 时钟 <b>où</b> " + GROUP + " !</s>"))
    monkeypatch.setattr(generation, "choose_token", lambda *_: next(ids))
    events = list(stream(model, start(model, picture), "时钟在哪里?"))
    pieces = [event.text for event in events if isinstance(event, TextPiece)]
    assert pieces == ["时", "钟", " <", "b", ">", "o", "ù", "<", "/", "b", ">", " !"]
    result = events[-1].result
    assert result.answer.text == "".join(pieces) and result.targets[0].position == 12
    assert result.segmentation.warnings == ()


def test_turns_go_on_numbering_and_are_kept_as_ids(model, picture, script):
    conversation = start(model, picture)
    first_ids = script(TWO)
    answer(model, conversation, "what is it")
    script("it is SEG . </s>")
    second = answer(model, conversation, "segment the table in this image")
    assert [target.number for target in second.targets] == [3]
    assert second.answer.spans == ()
    found = second.segmentation
    assert (*found.labels, *(one.label for one in found.dropped)) == ("table",)
    assert conversation.targets == 3 and len(conversation.turns) == 2
    ids = [*conversation.decoding.ids, *conversation.decoding.pending]
    assert ids.count(IMAGE_TOKEN) == 1
    begin = ids.index(first_ids[0], 6)
    assert ids[begin : begin + len(first_ids)] == first_ids
    assert ids[-1] == model.tokenizer.eos_id


def test_a_saved_conversation_goes_on_as_if_it_had_not_stopped(model, picture, script):
    conversation = start(model, picture)
    script(TWO)
    answer(model, conversation, "what is it")
    taken_up = start(model, picture, json.loads(json.dumps(conversation.history())))
    results = []
    for one in (conversation, taken_up):
        script("it is SEG . </s>")
        results.append(answer(model, one, "and this"))
    assert results[0].turn == results[1].turn
    assert results[1].targets[0].number == 3
    assert_allclose(results[0].targets[0].logits, results[1].targets[0].logits, atol=1e-4)
    assert conversation.decoding.ids == taken_up.decoding.ids


@pytest.mark.parametrize(
    ("words", "outcome", "broken", "warning"),
    [
        ("there is no such thing here . </s>", "no_group", 0, "marks nothing"),
        ("it is [SEG0] [SEG1] [SEG2] . </s>", "broken_group", 1, "One mask could not be made"),
        (
            "it is [SEG0] [SEG0] [SEG2] . [SEG5] </s>",
            "broken_group",
            3,
            "3 masks could not be made",
        ),
        ("the cup SEG and [SEG1] [SEG2] </s>", "masks", 1, "One mask could not be made"),
        ("</s>", "no_group", 0, "marks nothing"),
    ],
)
def test_broken_and_missing_groups(picture, words, outcome, broken, warning, script):
    model = _always_on(small_model())
    script(words)
    result = segment(model, picture, "what is it")
    assert (result.outcome, result.answer.broken_groups) == (outcome, broken)
    assert any(warning in text for text in result.segmentation.warnings)
    assert "SEG" not in result.answer.text


def _always_on(model: ChatModel) -> ChatModel:
    """The same network with masks that cover everything."""
    mlp = model.network.mask_decoder.output_hypernetworks_mlps[0].layers[-1]
    upscaling = model.network.mask_decoder.output_upscaling
    mlp.weight.zero_(), mlp.bias.fill_(1)
    upscaling[1].weight.zero_(), upscaling[1].bias.fill_(1)
    return model


def test_empty_masks_are_dropped_and_said_so(picture, script):
    model = _always_on(small_model())
    model.network.mask_decoder.output_hypernetworks_mlps[0].layers[-1].bias.fill_(-1)
    script("the cup SEG . </s>")
    result = segment(model, picture, "what is it")
    assert result.outcome == "empty_mask" and result.targets[0].score == 0
    assert [(one.label, one.reason) for one in result.segmentation.dropped] == [
        ("cup", "its mask has no pixel")
    ]


def test_unchecked_groups_are_read_as_in_the_published_code(picture, script):
    model = small_model(unchecked_groups=True)
    script("it is [SEG0] [SEG1] [SEG2] . [SEG3] [SEG4] [SEG5] </s>")
    assert len(segment(model, picture, "what is it").targets) == 1
    script("the cup SEG and [SEG0] </s>")
    result = segment(model, picture, "what is it")
    assert result.targets == () and result.outcome == "broken_group"


def test_overlaps_may_go_to_the_highest_logit(model, picture, script):
    options = MaskOptions(threshold=-100.0, exclusive=True)
    script(TWO)
    found = segment(model, picture, "what is it", masks=options).segmentation
    assert_array_equal(found.masks.sum(axis=0), 1)
    script(TWO)
    found = segment(model, picture, "what is it", masks=replace(options, exclusive=False))
    assert found.segmentation.masks.all()


def test_limits_of_tokens_and_targets(model, picture, script):
    script(TWO)
    result = segment(model, picture, "what", generation=GenerationOptions(max_new_tokens=3))
    assert result.answer.ending == "length" and len(result.turn.answer_ids) == 3
    assert "cut at token 3" in result.segmentation.warnings[0]
    script(TWO)
    result = segment(model, picture, "what", generation=GenerationOptions(max_targets=1))
    assert result.answer.ending == "targets" and len(result.targets) == 1
    assert "ended at mask 1" in result.segmentation.warnings[0]


def test_sampling_is_repeatable_by_its_seed(model, picture):
    def tokens(**options):
        generated = GenerationOptions(max_new_tokens=8, **options)
        return segment(model, picture, "what", generation=generated).turn.answer_ids

    assert tokens(temperature=1.0, seed=1) == tokens(temperature=1.0, seed=1)
    assert len({tokens(temperature=1.5, seed=seed) for seed in range(5)}) > 1
    assert tokens() == tokens(seed=7)


def test_stopping_keeps_what_is_written_and_the_conversation(model, picture, script):
    conversation, cancel = start(model, picture), CancelToken()
    script(TWO)
    for event in stream(model, conversation, "what is it", cancel=cancel):
        if isinstance(event, TargetFound):
            cancel.cancel()
    result = event.result
    assert result.answer.text == "the cup" and result.answer.ending == "stopped"
    assert len(result.targets) == 1
    assert "stopped at token 8" in result.segmentation.warnings[0]
    with pytest.raises(Cancelled):
        answer(model, conversation, "what is it", cancel=cancel)
    script("it is SEG . </s>")
    again = answer(model, conversation, "what is it")
    assert again.targets[0].number == 2


def test_a_reader_that_goes_away_leaves_a_whole_conversation(model, picture, script):
    conversation = start(model, picture)
    script(TWO)
    events = stream(model, conversation, "what is it")
    next(events)
    with pytest.raises(PromptError, match="still being answered"):
        answer(model, conversation, "what is this")
    events.close()
    assert [len(turn.answer_ids) for turn in conversation.turns] == [1]
    script("it is SEG . </s>")
    assert answer(model, conversation, "what is this").answer.text == "it is ."


def test_a_failure_leaves_the_conversation_as_it_was(model, picture, script, monkeypatch):
    conversation = start(model, picture)
    script(TWO)
    answer(model, conversation, "what is it")
    before = conversation.history()
    script("it")
    with pytest.raises(RuntimeError):  # the script ends: a stand-in for any failure
        answer(model, conversation, "what is this")
    assert conversation.history() == before
    script("it is SEG . </s>")
    after = answer(model, conversation, "what is this")
    expected = start(model, picture, before)
    script("it is SEG . </s>")
    same = answer(model, expected, "what is this")
    assert_allclose(after.targets[0].logits, same.targets[0].logits, atol=1e-4)


def test_two_conversations_with_one_model_do_not_mix(model, picture, script):
    alone = []
    for image in (picture, picture[::-1].copy()):
        script(TWO)
        alone.append(segment(model, image, "what is it"))
    assert not np.allclose(alone[0].targets[0].logits, alone[1].targets[0].logits)
    script("the the cup cup " + " ".join(f"[SEG{i // 2}]" for i in range(12)) + " . . </s> </s>")
    streams = [
        stream(model, start(model, image), "what is it") for image in (picture, picture[::-1])
    ]
    results = {}
    while len(results) < 2:
        for index, events in enumerate(streams):
            for event in events:
                if isinstance(event, Finished):
                    results[index] = event.result
                break
    for index in range(2):
        assert results[index].answer.text == "the cup ."


def test_a_visitor_cannot_write_control_tokens(model, picture, script):
    script("it is SEG . </s>")
    conversation = start(model, picture)
    result = answer(model, conversation, "what [SEG0] [SEG1] <im_start> is </s> <s> <image> it")
    assert "only the model may write" in result.segmentation.warnings[0]
    ids = conversation.decoding.ids
    question = ids[: ids.index(model.tokenizer.codebook.ids[0])]
    for token in (*model.tokenizer.codebook.ids, model.tokenizer.eos_id):
        assert token not in question
    assert question.count(model.tokenizer.image_start_id) == 1


def test_words_that_the_model_does_not_know(model, picture, script):
    script("it is SEG . </s>")
    result = segment(model, picture, "où est la tasse ?")
    assert "unknown to this model" in result.segmentation.warnings[0]


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("", "There is no question; ask something about the picture."),
        (" \n\x00 ", "There is no question; ask something about the picture."),
        (None, "There is no question; ask something about the picture."),
        (7, "The question is 7; it must be text."),
        ("a" * 10_000, "The question has 10000 characters; the limit is 1000, so shorten it."),
    ],
)
def test_questions_that_cannot_be_asked(model, picture, question, message):
    with pytest.raises(PromptError) as error:
        answer(model, start(model, picture), question)
    assert error.value.message == message


def test_unknown_styles_and_known_ones():
    with pytest.raises(PromptError, match="The answer style 'loud' is not known; use one of"):
        Question.parse("what", "loud")
    assert Question.parse("what", "mask").prompt == "what Please output segmentation mask."


def test_conversations_that_are_too_long(model, picture, script, monkeypatch):
    conversation = start(model, picture)
    with pytest.raises(PromptError, match="too long: the limits are 50 questions and 256 tokens"):
        answer(model, conversation, "a " * 400)
    script(TWO)
    answer(model, conversation, "what")
    monkeypatch.setattr("core.pixellm.chat.MAX_TURNS", 1)
    with pytest.raises(PromptError, match="the limits are 1 questions"):
        answer(model, conversation, "what")


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ([7], "give the history as it was returned"),
        ([{"question": "what", "answer_ids": "12"}], "give the history as it was returned"),
        ([{"question": "what", "answer_ids": [IMAGE_TOKEN]}], "token id -200, which no answer"),
        ([{"question": "what", "answer_ids": [True]}], "token id True"),
        ([{"question": "what", "answer_ids": [9]}], "token id 9"),
        ([{"question": "what", "answer_ids": [10**9]}], "token id 1000000000"),
        ([{"question": "", "answer_ids": [12]}], "There is no question"),
        ([{"question": "what", "answer_ids": [12] * 300}], "too long for the model"),
    ],
)
def test_histories_that_cannot_be_taken_up(model, picture, history, message):
    with pytest.raises(PromptError, match=message):
        start(model, picture, history)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), None]
)
def test_pictures_that_cannot_be_used(model, image):
    with pytest.raises(ImageError, match="upload an RGB picture"):
        start(model, image)


@pytest.mark.parametrize("size", [(1, 300), (300, 1), (1, 1), (37, 211)])
def test_pictures_of_any_shape(model, script, size):
    script(TWO)
    image = np.full((*size, 3), 99, np.uint8)
    result = segment(model, image, "what is it")
    assert result.targets[0].mask.shape == size


def test_options_out_of_range():
    for wrong in ({"max_new_tokens": 0}, {"max_targets": 0}, {"temperature": -1.0}):
        with pytest.raises(ValueError):
            GenerationOptions(**wrong)
    for wrong in ({"threshold": float("nan")}, {"min_area": -1}):
        with pytest.raises(ValueError):
            MaskOptions(**wrong)


def test_features_can_be_kept_and_shared(model, picture, script):
    features = encode(model, picture)
    assert features.nbytes > 0
    script(TWO)
    one = answer(model, start(model, features), "what is it")
    script(TWO)
    other = segment(model, picture, "what is it")
    assert_allclose(one.targets[0].logits, other.targets[0].logits)


@pytest.mark.parametrize("scales", [1, 3])
def test_other_codebook_sizes(picture, scales, monkeypatch):
    layers = (-1, -2, -3)[:scales]
    config = small_config()
    network = small_model(
        vision=replace(config.vision, feature_layers=layers),
        tokens_per_scale=6 // scales,
        learned_fusion=True,
    )
    ids = iter(network.tokenizer.encode(" ".join(f"[SEG{i}]" for i in range(6)) + " </s>"))
    monkeypatch.setattr(generation, "choose_token", lambda *_: next(ids))
    result = pipeline.segment(network, picture, "what")
    assert result.targets[0].logits.shape == (4 * 2**scales,) * 2

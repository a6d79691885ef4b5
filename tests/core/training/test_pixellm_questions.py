"""Every answer is right about its scene, and held-out wordings stay out of training."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.pixellm.phrases import link_phrases
from core.stickers.colours import COLOURS
from core.stickers.objects import find_object, load_attributes
from core.training import pixellm_questions as questions
from core.training import pixellm_words as words
from core.training.pixellm_questions import (
    ASK,
    FOLLOW,
    GAP,
    RATIO,
    SEG,
    Asker,
    Exchange,
    converse,
    is_a,
    thing_of,
)
from core.training.pixellm_scenes import Scene, Thing, objects
from core.training.pixellm_tokenizer import split
from core.training.pixellm_words import Forms, expansions

ROWS = {item.name: row for row, item in enumerate(objects())}


def thing(name: str, number: int, **about) -> Thing:
    colour = about.pop("colour", None)
    maybe = about.pop("maybe", frozenset({colour} if colour else ()))
    return Thing(number, ROWS[name], colour=colour, maybe=maybe, **about)


@st.composite
def scenes(draw) -> Scene:
    """One to five objects, some alike, anywhere, of any size; perhaps one hardly seen."""
    names = st.sampled_from(sorted(ROWS))
    chosen = draw(st.lists(names, min_size=1, max_size=4))
    if draw(st.booleans()):
        chosen.append(chosen[0])
    share = st.floats(0.05, 0.95)
    things = [
        thing(
            name,
            number,
            colour=draw(st.sampled_from([None, *COLOURS])),
            area=draw(st.floats(0.02, 0.4)),
            x=draw(share),
            y=draw(share),
            hidden_by=frozenset(range(number + 1, number + 1 + draw(st.integers(0, 1)))),
        )
        for number, name in enumerate(chosen, 1)
    ]
    things = [
        Thing(**{**t.__dict__, "hidden_by": t.hidden_by & frozenset(range(len(chosen) + 1))})
        for t in things
    ]
    vague = draw(st.lists(names, max_size=1))
    return Scene(
        tuple(sorted(things, key=lambda t: t.x)), tuple(objects()[ROWS[name]] for name in vague)
    )


def talks(scene: Scene, seed: int, **options) -> list[Exchange]:
    draw = random.Random(seed)
    return [one for _ in range(4) for one in converse(scene, draw, **options)]


def asked(kind: str, scene: Scene, seed: int, *, held_out: bool = False) -> Exchange | None:
    return ASK[kind](Asker(scene, random.Random(seed), held_out=held_out))


def targets(exchange: Exchange, scene: Scene) -> list[Thing]:
    return [thing_of(scene, number) for number in exchange.targets]


def without_groups(answer: str) -> tuple[str, list[int]]:
    """An answer's text and where its groups stood."""
    text, positions = "", []
    for part in re.split(rf"( ?{re.escape(SEG)})", answer):
        if SEG in part:
            positions.append(len(text))
        else:
            text += part
    return text, positions


@settings(max_examples=60, deadline=None)
@given(scenes(), st.integers(0, 999), st.booleans())
def test_answers_are_whole_sentences_with_a_group_for_each_target(scene, seed, held_out) -> None:
    for one in talks(scene, seed, held_out=held_out):
        assert one.answer.count(SEG) == len(one.targets) == len(set(one.targets))
        assert {*one.targets} <= {t.number for t in scene.things}
        assert not re.search(r"[{}\[\]]", one.question + one.answer.replace(SEG, "")), one
        assert one.answer.endswith(".") and one.answer[0].isupper()
        assert not one.nothing or not one.targets


@settings(max_examples=60, deadline=None)
@given(scenes(), st.integers(0, 999))
def test_the_words_before_each_group_name_its_target(scene, seed) -> None:
    for one in talks(scene, seed):
        text, positions = without_groups(one.answer)
        spans = link_phrases(text, positions, one.targets)
        said = {number: text[s.start : s.end] for s in spans for number in s.targets}
        assert said.keys() == set(one.targets), one
        if one.kind in ("one_of_two", "other"):
            continue  # these may say "the left animal"
        for number, phrase in said.items():
            item = thing_of(scene, number).item
            assert any(name in phrase.lower() for name in (item.name, *item.synonyms)), one


@settings(max_examples=80, deadline=None)
@given(scenes(), st.integers(0, 999), st.sampled_from(["property", "use", "need"]))
def test_things_with_an_attribute_are_all_meant_and_no_others(scene, seed, kind) -> None:
    one = asked(kind, scene, seed)
    if one is None:
        return
    tags = [tag for tag in words.PROPERTIES if _asks_for(one.question, tag, kind)]
    assert tags, one
    right = [
        [t.number for t in scene.things if t.item.has(tag)] == list(one.targets)
        and all(t.item.has(tag) is not None for t in scene.things)
        and all(item.has(tag) is False for item in scene.vague)
        for tag in tags
    ]
    assert any(right), one


def _asks_for(question: str, tag: str, kind: str) -> bool:
    own = words.PROPERTIES[tag]
    if kind == "need":
        return question in own.needs.train
    if kind == "use":
        return bool(own.use) and own.use in question
    return load_attributes()[tag].phrase in question or own.plural in question


@settings(max_examples=60, deadline=None)
@given(scenes(), st.integers(0, 999))
def test_an_object_asked_for_by_name_is_found_or_denied(scene, seed) -> None:
    one = asked("name", scene, seed)
    if one is None:
        return
    if one.targets:
        (row,) = {t.row for t in targets(one, scene)}
        assert {t.number for t in scene.things if t.row == row} == {*one.targets}
        item = objects()[row]
        names = (item.name, item.plural, *item.synonyms)
        assert any(name in one.question.lower() for name in names)
    else:
        noun = re.search(r"(?:any|no) ((?!such|,).+?)(?: here| in this picture)?\.$", one.answer)
        assert noun is not None, one
        item = find_object(noun[1].removeprefix("such thing here: no "))
        present = [*(t.item for t in scene.things), *scene.vague]
        assert item is not None and item not in present


@settings(max_examples=60, deadline=None)
@given(scenes(), st.integers(0, 999))
def test_colours_sizes_places_and_numbers_are_those_of_the_scene(scene, seed) -> None:
    if one := asked("colour", scene, seed):
        (colour,) = {c for c in COLOURS if re.search(rf"\b{c}\b", one.question)}
        assert [t.number for t in scene.things if t.colour == colour] == list(one.targets)
    if one := asked("size", scene, seed):
        (thing,) = targets(one, scene)
        others = [t for t in scene.things if t is not thing]
        large = any(word in one.question for word in words.LARGEST)
        for other in others:
            big, little = (thing, other) if large else (other, thing)
            assert big.area >= RATIO * little.area
        assert not scene.vague
    if one := asked("extreme", scene, seed):
        (thing,) = targets(one, scene)
        side = next(s for s, ways in words.EXTREMES.items() if any(w in one.question for w in ways))
        for other in scene.things:
            if other is not thing:
                assert questions.ahead(thing, side) - questions.ahead(other, side) >= GAP
    if one := asked("count", scene, seed):
        number = words.NUMBERS[len(one.targets)]
        assert number in one.answer.lower().split()
    if one := asked("describe", scene, seed):
        assert {*one.targets} == {t.number for t in scene.things} and not scene.vague
    if one := asked("category", scene, seed):
        (name,) = {
            name
            for name, nouns in words.CATEGORIES.items()
            if any(re.search(rf"\b{noun}\b", one.question) for noun in nouns)
        } - ({"animal"} if "sea animal" in one.question else set())
        assert [t.number for t in scene.things if is_a(t.item, name)] == list(one.targets)


ROW = Scene(
    (
        thing("dog", 1, x=0.1, area=0.05, colour="brown"),
        thing("dog", 2, x=0.5, area=0.2, colour="white"),
        thing("knife", 3, x=0.9, area=0.1, hidden_by=frozenset({2})),
    )
)


@pytest.mark.parametrize(
    ("side", "meant"),
    [("left", [1, 2]), ("right", []), ("behind", []), ("front", [2]), ("near", [2])],
)
def test_relations_to_a_thing(side: str, meant: list[int]) -> None:
    found = questions.related(ROW, ROW.things[2], side)
    assert found is not None and [t.number for t in found] == meant


def test_what_is_nearly_level_is_on_no_side() -> None:
    level = Scene((thing("dog", 1, x=0.5), thing("knife", 2, x=0.55)))
    assert questions.related(level, level.things[0], "right") is None


def test_one_of_two_and_the_other_one() -> None:
    for seed in range(40):
        one = asked("one_of_two", ROW, seed)
        assert one is not None
        for word, number in {"left": 1, "right": 2, "larger": 2, "white": 2, "brown": 1}.items():
            if f" {word} " in one.question:
                assert one.targets == (number,)
        after = FOLLOW["other"](Asker(ROW, random.Random(seed)), one)
        assert after is not None and {*after.targets, *one.targets} == {1, 2}


def test_a_need_for_two_things_says_what_is_missing() -> None:
    both = Scene((thing("bread", 1, x=0.2), thing("knife", 2, x=0.8)))
    half = Scene((thing("bread", 1),))
    seen = set()
    for seed in range(300):
        if one := asked("situation", both, seed):
            if "cut" in one.question:
                assert one.targets == (1, 2)
                seen.add("both")
        if (one := asked("situation", half, seed)) and "cut" in one.question:
            assert one.targets == (1,) and one.answer.endswith("but nothing to cut it with.")
            seen.add("half")
    assert seen == {"both", "half"}


def test_nothing_is_asked_that_a_hardly_seen_object_might_answer() -> None:
    scene = Scene((thing("duck", 1),), vague=(objects()[ROWS["owl"]],))
    tags = {tag for tag in words.PROPERTIES if questions.with_tag(_asker(scene), tag)}
    assert "can_fly" not in tags and "found_in_water" in tags
    assert asked("describe", scene, 0) is None and asked("count", Scene(()), 0) is None


def test_a_tree_is_not_asked_for_beside_a_palm_tree() -> None:
    scene = Scene((thing("tree", 1, x=0.2), thing("palm tree", 2, x=0.8)))
    for seed in range(60):
        one = asked("name", scene, seed)
        assert one is None or not one.targets


def test_follow_ups_speak_of_the_last_answers_target() -> None:
    last = Exchange("name", "Where is the knife?", f"The knife {SEG}.", (3,))
    for name in ("where_is_it", "is_it"):
        after = FOLLOW[name](Asker(ROW, random.Random(2)), last)
        assert after is not None and after.targets == (3,)
    assert FOLLOW["what_colour"](_asker(ROW), last) is None, "it has no one colour"
    pair = Exchange("several", "", "", (1, 3))
    larger = FOLLOW["which_larger"](_asker(ROW), pair)
    assert larger is not None
    assert larger.targets == ((3,) if re.search("larger|bigger", larger.question) else (1,))


def _asker(scene: Scene) -> Asker:
    return Asker(scene, random.Random(0))


def all_forms() -> dict[str, Forms]:
    forms = dict(words.QUESTION_FORMS)
    forms |= {f"need {tag}": own.needs for tag, own in words.PROPERTIES.items()}
    forms |= {f"situation {k}": own.questions for k, own in enumerate(words.SITUATIONS)}
    return forms


def _plain(form: str) -> str:
    return form.lower().strip(" .?")


def test_held_out_wordings_are_no_training_wordings_but_made_of_their_words() -> None:
    forms = all_forms()
    train = {_plain(e) for own in forms.values() for form in own.train for e in expansions(form)}
    known = {word for text in train for word in split(text)}
    known |= {word for own in words.PROPERTIES.values() for word in split(own.use)}
    for name, own in forms.items():
        held = {_plain(e) for form in own.held_out for e in expansions(form)}
        assert not held & train, name
        assert {word for text in held for word in split(text)} <= known, name
        assert own.held_out or name.startswith("need ")


@settings(max_examples=40, deadline=None)
@given(scenes(), st.integers(0, 999))
def test_talks_in_training_and_held_out_wordings_share_no_question(scene, seed) -> None:
    def said(held_out: bool) -> set[str]:
        return {
            _plain(one.question)
            for one in talks(scene, seed, held_out=held_out)
            if one.kind != "unclear" and "Please output" not in one.question
        }

    assert not said(True) & said(False)


def test_every_kind_comes_up() -> None:
    pair = Scene((thing("bread", 1, area=0.3, x=0.2), thing("knife", 2, x=0.8)))
    kinds = {one.kind for scene in (ROW, pair) for n in range(150) for one in talks(scene, n)}
    assert kinds == {*ASK, *FOLLOW}

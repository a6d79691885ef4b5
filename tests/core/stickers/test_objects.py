"""The object table is sound, its lookups find what people type, and its split is fixed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.stickers.objects import (
    TABLE,
    ObjectType,
    by_category,
    find_object,
    find_problems,
    load_attributes,
    load_objects,
    normalise,
    pluralise,
    split_of,
    with_attribute,
    without_attribute,
)

any_object = st.sampled_from(list(load_objects().values()))


@pytest.fixture(scope="module")
def table() -> dict:
    return json.loads(TABLE.read_text(encoding="utf-8"))


def known(text: str) -> ObjectType:
    found = find_object(text)
    assert found is not None, text
    return found


def test_table_has_the_promised_size():
    assert 170 <= len(load_objects()) <= 200
    assert len(by_category()) >= 12
    assert min(len(items) for items in by_category().values()) >= 3
    assert sum(map(len, by_category().values())) == len(load_objects())


def test_table_keys_are_not_repeated():
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        assert len({key for key, _ in pairs}) == len(pairs)
        return dict(pairs)

    json.loads(TABLE.read_text(encoding="utf-8"), object_pairs_hook=unique)


def test_categories_of_the_vocabulary_are_all_used(table):
    assert list(by_category()) == table["categories"]


def test_names_and_synonyms_are_unique():
    texts = [
        normalise(text) for item in load_objects().values() for text in (item.name, *item.synonyms)
    ]
    assert len(texts) == len(set(texts))


def test_articles_fit_the_sound_of_the_names():
    silent_h = {"hourglass"}
    for item in load_objects().values():
        vowel = item.name[0] in "aeiou" or item.name in silent_h
        assert item.article in ("", "an" if vowel else "a"), item.name


def test_openclipart_stems_belong_to_one_object():
    stems = [stem for item in load_objects().values() for stem in item.openclipart]
    assert len(stems) == len(set(stems))
    assert not any("/" in stem or stem.endswith(".png") for stem in stems)


def test_attribute_vocabulary_is_of_a_usable_size():
    assert 25 <= len(load_attributes()) <= 35


@pytest.mark.parametrize("tag", sorted(load_attributes()))
def test_attribute_is_held_by_some_and_lacked_by_others(tag):
    assert 4 <= len(with_attribute(tag)) < len(load_objects())
    assert len(without_attribute(tag)) >= 100
    assert any(item.split == "train" for item in with_attribute(tag))
    assert not set(with_attribute(tag)) & set(without_attribute(tag))
    phrase = load_attributes()[tag].phrase
    assert load_attributes()[tag].question == f"What in the picture {phrase}?"


def test_attributes_say_what_is_known_of_a_few_objects():
    pumpkin, watch = known("pumpkin"), known("watch")
    assert watch.has("tells_time") is True
    assert watch.has("edible") is False
    assert pumpkin.has("gives_light") is None
    assert {"worn_on_body", "tells_time"} <= watch.attributes


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        ("worn_on_feet", "worn_on_body"),
        ("worn_on_head", "worn_on_body"),
        ("has_fur", "living"),
        ("kept_on_farm", "living"),
        ("baked", "edible"),
        ("grows_underground", "edible"),
    ],
)
def test_narrow_attributes_imply_wide_ones(narrow, wide):
    assert not set(with_attribute(narrow)) & set(without_attribute(wide))


@pytest.mark.parametrize("lookup", [with_attribute, without_attribute])
def test_unknown_attribute_is_named(lookup):
    with pytest.raises(KeyError, match="is_haunted"):
        lookup("is_haunted")
    with pytest.raises(KeyError, match="is_haunted"):
        known("apple").has("is_haunted")


def test_split_leaves_enough_to_test_on():
    test = [item for item in load_objects().values() if item.split == "test"]
    assert len(test) >= 20
    assert len({item.category for item in test}) >= 8
    assert 0.10 <= len(test) / len(load_objects()) <= 0.20


def test_split_is_about_fifteen_percent_of_all_code_points():
    codes = [f"{code:x}" for code in range(0x1F300, 0x1FB00)]
    share = sum(split_of(code) == "test" for code in codes) / len(codes)
    assert share == pytest.approx(0.15, abs=0.02)


def test_split_never_changes():
    """Weights already trained rely on it: these must stay what they are."""
    assert [split_of(code) for code in ("1f34e", "1f34b", "231a", "1f418", "1f41d", "1f697")] == [
        "train",
        "test",
        "train",
        "train",
        "test",
        "train",
    ]


@given(any_object, st.data())
def test_object_is_found_by_any_spelling(item: ObjectType, data):
    text = data.draw(st.sampled_from([item.name, item.plural, item.with_article, *item.synonyms]))
    spaced = text.replace(" ", data.draw(st.sampled_from([" ", "  ", "-", "\t"])))
    cased = data.draw(st.sampled_from([str.upper, str.title, str.lower]))(spaced)
    assert find_object(f" {cased}\n") is item


@given(any_object)
def test_object_is_found_by_the_plural_of_a_synonym(item: ObjectType):
    found = [find_object(pluralise(synonym)) for synonym in item.synonyms]
    assert all(found)
    assert item in found


@given(st.text(max_size=30))
def test_any_text_may_be_looked_up(text):
    found = find_object(text)
    assert found is None or found in load_objects().values()


@pytest.mark.parametrize("text", ["", "the", "unicorn dust", "appleish"])
def test_unknown_text_finds_nothing(text):
    assert find_object(text) is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("bunnies", "rabbit"),
        ("loaf of bread", "bread"),
        ("loaves of bread", "bread"),
        ("a pair of scissors", "scissors"),
        ("T Shirts", "t-shirt"),
        ("chef’s knife", "knife"),
        ("heads of broccoli", "broccoli"),
        ("torches", "flashlight"),
        ("dice", "die"),
    ],
)
def test_what_people_type_is_found(text, name):
    assert known(text).name == name


@pytest.mark.parametrize(
    ("phrase", "plural"),
    [("toy", "toys"), ("baby bottle", "baby bottles"), ("cherry", "cherries"), ("box", "boxes")],
)
def test_regular_plurals(phrase, plural):
    assert pluralise(phrase) == plural


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"code_point": "1F34E-FE0F"}, "lower-case hex"),
        ({"category": "weapon"}, "'weapon'"),
        ({"article": "the"}, "unknown article 'the'"),
        ({"synonyms": ("red apple",)}, "2 to 4 synonyms"),
        ({"synonyms": ("Apple", "red apple")}, "synonyms repeat"),
        ({"plural": "Apples!"}, "lower-case words"),
        ({"attributes": frozenset({"is_haunted"})}, "unknown attribute"),
        ({"attributes": frozenset({"round"})}, "both true and arguable"),
        ({"colours": ("mauve",)}, "colours"),
    ],
)
def test_faulty_row_is_reported(table, change, fault):
    apple = known("apple")
    assert find_problems(table, [apple]) == []
    problems = find_problems(table, [replace(apple, **change)])
    assert any(fault in problem for problem in problems)


def test_colliding_names_are_reported(table):
    apple, pear = known("apple"), known("pear")
    pear = replace(pear, synonyms=("red apple", "green pear"))
    assert find_problems(table, [apple, pear]) == ["'red apple' names several objects"]

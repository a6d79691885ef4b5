"""Questions about a scene with their answers, right by construction.

A question is asked only where its answer is certain: if an object is hardly seen, or if people
would disagree on one (a pumpkin gives light only when carved), and it might belong to the answer,
something else is asked. Targets come from left to right, unless the question has an order.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from core.stickers.colours import COLOURS
from core.stickers.objects import ObjectType, load_attributes, normalise
from core.training import pixellm_words as words
from core.training.pixellm_scenes import Scene, Thing, objects
from core.training.pixellm_words import Forms, expand

SEG = "{seg}"  # in an answer, where a target's group stands
GAP = 0.12  # of the picture's side: how much further left a thing is that is called so
RATIO = 1.5  # of areas: how much larger
CASUAL = 0.15  # of questions all in small letters, or without their last mark
STYLED = 0.08  # of questions with a sentence that asks for masks behind them
FOLLOWED = 0.4  # of answers after which another question comes
MAX_TURNS = 3
EMPTY_SHARE = 0.22  # of questions to which nothing fits, where a kind has such
SYNONYMS = 0.35
MASS = frozenset("maize,toast bread,milk,coffee,wine,red wine,honey,cattle".split(","))
PLURAL_ONLY = frozenset(
    "denim trousers,trousers,denims,eyeglasses,spectacles,reading glasses,eating sticks,shears,"
    "piano keys".split(",")
)
STYLES = (" Please output segmentation mask.", " Please output segmentation mask and explain why.")


@dataclass(frozen=True)
class Exchange:
    """A question and its answer.

    Args:
        kind: of question.
        answer: with ``SEG`` behind the words for each target.
        targets: numbers of the things that are meant, in the answer's order.
        nothing: the question asks for something that is not there.
        other: number and noun of what "the other one" would be.
    """

    kind: str
    question: str
    answer: str
    targets: tuple[int, ...] = ()
    nothing: bool = False
    other: tuple[int, str] | None = None


@dataclass(frozen=True)
class Noun:
    """What a thing is called, with its article ("" for mass nouns and plural ones)."""

    text: str
    article: str = "a"
    plural: str = ""
    many: bool = False  # "the scissors are"

    @property
    def indefinite(self) -> str:
        return f"{self.article} {self.text}".strip()


class Asker:
    """Asks about one scene.

    Args:
        held_out: in wordings that training never sees.
    """

    def __init__(self, scene: Scene, draw: random.Random, *, held_out: bool = False) -> None:
        self.scene, self.draw, self.held_out = scene, draw, held_out

    def form(self, forms: Forms, **slots: str) -> str:
        """A question, its slots filled; {The} and {List} begin with a capital."""
        return fill(forms.draw(self.draw, held_out=self.held_out), **slots)

    def say(self, forms: Sequence[str], things: Sequence[Thing], nouns: dict[int, Noun]) -> str:
        """An answer that lists things.

        Args:
            nouns: what things are called, by number; others by their name.
        """
        form = expand(self.draw.choice(forms), self.draw)
        definite = "There {is}" not in form and self.draw.random() < 0.5
        listed = self.listed(things, nouns, definite=definite)
        return fill(form, things=listed, **agreeing(things, nouns))

    def listed(
        self, things: Sequence[Thing], nouns: dict[int, Noun] | None = None, *, definite: bool
    ) -> str:
        """Noun phrases with their groups: "a dog {seg}, an apple {seg} and another apple {seg}"."""
        seen: dict[str, int] = {}
        phrases = []
        for thing in things:
            noun = (nouns or {}).get(thing.number) or name_of(thing.item)
            before = seen.get(noun.text, 0)
            seen[noun.text] = before + 1
            alone = sum(other.row == thing.row for other in self.scene.things) == 1
            phrases.append(self._phrase(thing, noun, before, definite=definite and alone))
        return join(phrases)

    def _phrase(self, thing: Thing, noun: Noun, before: int, *, definite: bool) -> str:
        text = noun.text
        chance = self.draw.random()
        if thing.colour and chance < 0.12 and not set(text.split()) & set(COLOURS):
            text = f"{thing.colour} {text}"
        if before or not definite:
            text = again(noun, text, before)
        else:
            text = f"the {text}"
        if chance > 0.88 and (noun.article or text.startswith("the ")):
            text = f"{text} {place_of(thing)}"  # without an article "the middle" would be meant
        return f"{text} {SEG}"

    def certain(
        self, thing_fits: Callable[[Thing], bool | None], fits: Callable[[ObjectType], bool | None]
    ) -> list[Thing] | None:
        """The things that fit; None if that is not certain of a thing or of a vague object."""
        verdicts = [thing_fits(thing) for thing in self.scene.things]
        if None in verdicts or any(fits(item) is not False for item in self.scene.vague):
            return None
        return [t for t, verdict in zip(self.scene.things, verdicts, strict=True) if verdict]

    def of_kind(self, fits: Callable[[ObjectType], bool | None]) -> list[Thing] | None:
        """``certain`` for what depends on the object alone."""
        return self.certain(lambda thing: fits(thing.item), fits)

    def absent(self) -> ObjectType | None:
        """Some object that is certainly not in the scene."""
        for _ in range(8):
            item = self.draw.choice(objects())
            if self.of_kind(lambda other, item=item: means(item, other)) == []:  # type: ignore[misc]
                return item
        return None

    def spell(self, item: ObjectType) -> Noun:
        """An object's name, or a synonym."""
        if self.draw.random() < SYNONYMS:
            return synonym(self.draw.choice(item.synonyms), item)
        return name_of(item)

    def wants_nothing(self) -> bool:
        return self.draw.random() < EMPTY_SHARE

    def nothing(self, kind: str, question: str, forms: Sequence[str], **slots: str) -> Exchange:
        """An answer without a target."""
        answer = fill(expand(self.draw.choice(forms), self.draw), **slots)
        return Exchange(kind, question, answer, nothing=True)

    def either(
        self, kind: str, question: str, things: Sequence[Thing], forms: Sequence[str], **slots: str
    ) -> Exchange:
        """An answer that lists things, or says that there are none."""
        if not things:
            empty = words.NOTHING_FITS if "single" in slots else words.NOTHING
            return self.nothing(kind, question, empty, **slots)
        return Exchange(kind, question, self.say(forms, things, {}), numbers(things))


Kind = Callable[[Asker], Exchange | None]
FollowUp = Callable[[Asker, Exchange], Exchange | None]


def converse(
    scene: Scene, draw: random.Random, *, held_out: bool = False, plain: bool = False
) -> tuple[Exchange, ...]:
    """Draw a conversation of one to three turns about a scene.

    Args:
        plain: one question by name, colour or place, or for all that is there: to begin with.
    """
    asker = Asker(scene, draw, held_out=held_out)
    kinds = PLAIN if plain else KINDS
    turns = [_first(asker, kinds)]
    while len(turns) < MAX_TURNS and not plain and draw.random() < FOLLOWED:
        turns.append(_follow(asker, turns[-1]) or _first(asker, kinds))
    return tuple(_casually(turn, draw) for turn in turns)


def _first(asker: Asker, kinds: dict[str, float]) -> Exchange:
    names, weights = list(kinds), list(kinds.values())
    for _ in range(30):
        (name,) = asker.draw.choices(names, weights)
        if exchange := ASK[name](asker):
            return exchange
    return ask_unclear(asker)


def _follow(asker: Asker, last: Exchange) -> Exchange | None:
    ways = asker.draw.sample(list(FOLLOW.values()), len(FOLLOW))
    if asker.draw.random() < 0.5:
        ways.insert(0, follow_other)
    for ask in ways:
        if exchange := ask(asker, last):
            return exchange
    return None


def _casually(exchange: Exchange, draw: random.Random) -> Exchange:
    """Write a question as people do: in small letters, without the last mark, with a demand."""
    question = exchange.question
    if draw.random() < STYLED and exchange.kind != "unclear":
        question += draw.choice(STYLES)
    if draw.random() < CASUAL:
        question = question.lower()
    if draw.random() < CASUAL:
        question = question.rstrip("?.") or question
    return Exchange(**{**exchange.__dict__, "question": question})


# Kinds of first questions: None where the scene has no certain answer.


def ask_name(asker: Asker) -> Exchange | None:
    """One object by name or synonym, all of its instances; or one that is not there."""
    if asker.wants_nothing():
        return _absent_name(asker)
    if not asker.scene.things:
        return None
    item = asker.draw.choice(asker.scene.things).item
    things = asker.of_kind(lambda other: means(item, other))
    if not things:
        return None
    noun = asker.spell(item)
    question = asker.form(words.NAME, **name_slots(noun, len(things) > 1))
    called = {thing.number: noun for thing in things}
    return Exchange("name", question, asker.say(words.FOUND, things, called), numbers(things))


def _absent_name(asker: Asker) -> Exchange | None:
    item = asker.absent()
    if item is None:
        return None
    noun = asker.spell(item)
    question = asker.form(words.NAME, **name_slots(noun, False))
    return asker.nothing("name", question, words.NOT_FOUND, noun=noun.text)


def ask_several(asker: Asker) -> Exchange | None:
    """Two or three objects by name, one of them perhaps not there."""
    single = [t for t in asker.scene.things if _only_one(asker, t.item)]
    if len(single) < 2:
        return None
    things = asker.draw.sample(single, min(len(single), asker.draw.choice((2, 2, 3))))
    nouns = {thing.number: asker.spell(thing.item) for thing in things}
    asked = [f"the {nouns[thing.number].text}" for thing in things]
    missing = asker.absent() if asker.wants_nothing() else None
    if missing is None:
        question = asker.form(words.SEVERAL, list=join(asked))
        return Exchange("several", question, asker.say(words.FOUND, things, nouns), numbers(things))
    absent = asker.spell(missing)
    question = asker.form(words.SEVERAL, list=join([*asked, f"the {absent.text}"]))
    listed = asker.listed(things, nouns, definite=True)
    answer = fill("I see {things}, but there is no {noun}.", things=listed, noun=absent.text)
    return Exchange("several", question, answer, numbers(things))


def _only_one(asker: Asker, item: ObjectType) -> bool:
    things = asker.of_kind(lambda other: means(item, other))
    return things is not None and len(things) == 1


def ask_property(asker: Asker) -> Exchange | None:
    """All things with an attribute of the table."""
    tag = _draw_tag(asker, words.PROPERTIES)
    if tag is None or (things := with_tag(asker, tag)) is None:
        return None
    slots = {"single": load_attributes()[tag].phrase, "plural": words.PROPERTIES[tag].plural}
    question = asker.form(words.PROPERTY, **slots)
    return asker.either("property", question, things, words.FITTING, **slots)


def ask_use(asker: Asker) -> Exchange | None:
    """All things that serve a purpose."""
    tags = [tag for tag, own in words.PROPERTIES.items() if own.use]
    tag = _draw_tag(asker, tags)
    if tag is None or (things := with_tag(asker, tag)) is None:
        return None
    question = asker.form(words.USE, use=words.PROPERTIES[tag].use)
    return asker.either("use", question, things, words.USEFUL)


def ask_need(asker: Asker) -> Exchange | None:
    """A need that an attribute answers and that does not name it."""
    tags = [tag for tag, own in words.PROPERTIES.items() if _forms(asker, own.needs)]
    tag = _draw_tag(asker, tags)
    if tag is None or (things := with_tag(asker, tag)) is None:
        return None
    question = asker.form(words.PROPERTIES[tag].needs)
    return asker.either("need", question, things, words.FITTING)


def _forms(asker: Asker, forms: Forms) -> tuple[str, ...]:
    return forms.held_out if asker.held_out else forms.train


def _draw_tag(asker: Asker, tags: Iterable[str]) -> str | None:
    """An attribute that some thing has, or one that none has."""
    nothing = asker.wants_nothing()
    certain = {tag: with_tag(asker, tag) for tag in tags}
    wanted = [t for t, own in certain.items() if own is not None and bool(own) is not nothing]
    return asker.draw.choice(wanted) if wanted else None


def with_tag(asker: Asker, tag: str) -> list[Thing] | None:
    """The things that have an attribute; None if that is not certain."""
    return asker.of_kind(lambda item: item.has(tag))


def ask_situation(asker: Asker) -> Exchange | None:
    """A need for two things."""
    situation = asker.draw.choice(words.SITUATIONS)
    first, second = (with_tag(asker, tag) for tag in (situation.first, situation.second))
    if first is None or second is None or {*first} & {*second}:
        return None
    question = asker.form(situation.questions)
    if not first and not second:
        if not asker.wants_nothing():
            return None
        return asker.nothing("situation", question, words.NOTHING)
    if not first or not second:
        listed = asker.listed(first or second, definite=True)
        lack = situation.without[0 if not first else 1]
        slots = agreeing(first or second, {})
        answer = fill("There {is} {things}, but nothing {lack}.", things=listed, lack=lack, **slots)
        return Exchange("situation", question, answer, numbers(first or second))
    lists = [asker.listed(things, definite=True) for things in (first, second)]
    answer = fill(situation.answer, first=lists[0], second=lists[1])
    order = (*first, *second)
    if situation.answer.index("{second}") < situation.answer.lower().index("{first}"):
        order = (*second, *first)
    return Exchange("situation", question, answer, numbers(order))


def ask_colour(asker: Asker) -> Exchange | None:
    """All things of one colour."""
    there = sorted({c for thing in asker.scene.things for c in thing.maybe})
    choices = [c for c in COLOURS if c not in there] if asker.wants_nothing() else there
    if not choices or asker.scene.vague:
        return None
    colour = asker.draw.choice(choices)
    things = asker.certain(lambda thing: is_of_colour(thing, colour), lambda item: None)
    if things is None:
        return None
    question = asker.form(words.COLOUR, colour=colour)
    return asker.either("colour", question, things, words.FITTING, single=f"is {colour}")


def ask_category(asker: Asker) -> Exchange | None:
    """All things of a category of the table."""
    certain = {name: of_category(asker, name) for name in words.CATEGORIES}
    nothing = asker.wants_nothing()
    wanted = [n for n, own in certain.items() if own is not None and bool(own) is not nothing]
    if not wanted:
        return None
    name = asker.draw.choice(wanted)
    things = certain[name] or []
    one, several = words.CATEGORIES[name]
    question = asker.form(words.CATEGORY, a_noun=one, nouns=several)
    if not things:
        noun = one.partition(" ")[2]
        return asker.nothing("category", question, words.NOT_FOUND, noun=noun)
    return asker.either("category", question, things, words.FOUND)


def of_category(asker: Asker, name: str) -> list[Thing] | None:
    """The things of a category; None if that is not certain."""
    return asker.of_kind(lambda item: is_a(item, name))


def is_a(item: ObjectType, category: str) -> bool | None:
    """Whether an object is of a category; None where people would disagree."""
    own = words.ANIMALS if category == "animal" else {category}
    if item.name in words.ARGUABLE_MEMBERS.get(category, ()):
        return True if item.category in own and category != "animal" else None
    if item.category in words.ARGUABLE_WITH.get(category, ()):
        return None
    return item.category in own


def ask_extreme(asker: Asker) -> Exchange | None:
    """The thing at one end of the picture."""
    side = asker.draw.choice(list(words.EXTREMES))
    thing = first_by(asker.scene, lambda thing: -ahead(thing, side), GAP)
    if thing is None:
        return None
    question = asker.form(words.EXTREME, place=asker.draw.choice(words.EXTREMES[side]))
    return asker.either("extreme", question, [thing], words.FITTING)


def ask_relation(asker: Asker) -> Exchange | None:
    """What is on one side of a thing, behind it, in front of it, or nearest to it."""
    things = asker.scene.things
    single = [t for t in things if _only_one(asker, t.item)]
    if not single or asker.scene.vague or len(things) < 2:
        return None
    other, side = asker.draw.choice(single), asker.draw.choice(list(words.SIDES))
    found = related(asker.scene, other, side)
    if found is None or not found and not asker.wants_nothing():
        return None
    noun = asker.spell(other.item)
    where = asker.draw.choice(words.SIDES[side])
    question = asker.form(words.RELATION, where=where, the=f"the {noun.text}")
    return asker.either("relation", question, found, words.FITTING)


def related(scene: Scene, other: Thing, side: str) -> list[Thing] | None:
    """The things on a side of another; None if that is not certain."""
    rest = [thing for thing in scene.things if thing is not other]
    if side == "behind":
        return [thing for thing in rest if other.number in thing.hidden_by]
    if side == "front":
        return [thing for thing in rest if thing.number in other.hidden_by]
    if side == "near":
        rest.sort(key=lambda thing: distance(thing, other))
        clear = len(rest) == 1 or distance(rest[1], other) - distance(rest[0], other) > GAP
        return rest[:1] if clear else None
    ways = [ahead(thing, side) - ahead(other, side) for thing in rest]
    if any(abs(way) < GAP for way in ways):
        return None
    return [thing for thing, way in zip(rest, ways, strict=True) if way > 0]


def ask_size(asker: Asker) -> Exchange | None:
    """The largest or the smallest thing."""
    sign, most = asker.draw.choice(((1, words.LARGEST), (-1, words.SMALLEST)))
    things = sorted(asker.scene.things, key=lambda thing: -sign * thing.area)
    if len(things) < 2 or asker.scene.vague or ratio(things[0], things[1]) < RATIO:
        return None
    question = asker.form(words.SIZE, most=asker.draw.choice(most))
    return asker.either("size", question, things[:1], words.FITTING)


def ask_count(asker: Asker) -> Exchange | None:
    """How many there are of an object, a category, or of everything."""
    way = asker.draw.choice(("name", "name", "category", "all"))
    chosen = {"name": _count_name, "category": _count_category, "all": _count_all}[way](asker)
    if chosen is None:
        return None
    things, one, several = chosen
    question = asker.form(words.COUNT, nouns=several)
    if not things:
        return asker.nothing("count", question, ("There are no {several}.",), several=several)
    number = words.NUMBERS[len(things)]
    form = "There is one {one}: {things}." if len(things) == 1 else "There are {n} {s}: {things}."
    listed = asker.listed(things, definite=False)
    answer = fill(form, one=one, s=several, n=number, things=listed)
    return Exchange("count", question, answer, numbers(things))


Counted = tuple[list[Thing], str, str] | None  # things, a noun for one and for several


def _count_name(asker: Asker) -> Counted:
    item = asker.absent() if asker.wants_nothing() else None
    if item is None and asker.scene.things:
        item = asker.draw.choice(asker.scene.things).item
    if item is None or not item.article:
        return None
    things = asker.of_kind(lambda other: means(item, other))
    return None if things is None else (things, item.name, item.plural)


def _count_category(asker: Asker) -> Counted:
    known = [name for name in words.CATEGORIES if of_category(asker, name)]
    if not known:
        return None
    name = asker.draw.choice(known)
    one, several = words.CATEGORIES[name]
    things = of_category(asker, name)
    return None if things is None else (things, one.partition(" ")[2], several)


def _count_all(asker: Asker) -> Counted:
    if asker.scene.vague or not asker.scene.things:
        return None
    return list(asker.scene.things), "thing", "things"


def ask_describe(asker: Asker) -> Exchange | None:
    """Everything that is there."""
    if asker.scene.vague or not asker.scene.things:
        return None
    question = asker.form(words.DESCRIBE)
    return asker.either("describe", question, asker.scene.things, words.FOUND)


def ask_one_of_two(asker: Asker) -> Exchange | None:
    """One of two alike: by its side, its size or its colour."""
    pairs = []
    for thing in asker.scene.things:
        item = thing.item
        things = asker.of_kind(lambda other, item=item: means(item, other))  # type: ignore[misc]
        if things and len(things) == 2 and all(t.item is item for t in things):
            pairs.append((things, item.name))
    for name, (one, _) in words.CATEGORIES.items():
        things = of_category(asker, name)
        if things and len(things) == 2:
            pairs.append((things, one.partition(" ")[2]))
    if not pairs:
        return None
    things, noun = asker.draw.choice(pairs)
    told = [*_told_apart(things[0], things[1]), *_told_apart(things[1], things[0])]
    if not told:
        return None
    thing, which = asker.draw.choice(told)
    question = asker.form(words.ONE_OF_TWO, which=which, noun=noun)
    answer = fill("[Here is|That is|I have marked] the {which} {noun} {seg}.", which=which)
    answer = expand(answer, asker.draw).replace("{noun}", noun)
    (rest,) = (one for one in things if one is not thing)
    return Exchange("one_of_two", question, answer, (thing.number,), other=(rest.number, noun))


def _told_apart(thing: Thing, other: Thing) -> list[tuple[Thing, str]]:
    """Adjectives that are true of a thing and not of another."""
    told = []
    for side, adjective in (("left", "left"), ("right", "right"), ("top", "upper")) + (
        ("bottom", "lower"),
    ):
        if ahead(thing, side) - ahead(other, side) > GAP:
            told.append((thing, adjective))
    if ratio(thing, other) > RATIO:
        told += [(thing, word) for word in words.LARGER]
    if ratio(other, thing) > RATIO:
        told += [(thing, words.SMALLER[0])]
    if thing.colour and is_of_colour(other, thing.colour) is False:
        told.append((thing, thing.colour))
    return told


def ask_unclear(asker: Asker) -> Exchange:
    """What is no question about the picture."""
    text = asker.draw.choice((*words.GREETINGS, *words.STRANGE))
    question = asker.form(words.UNCLEAR, text=text)
    return Exchange("unclear", question, asker.draw.choice(words.NOT_UNDERSTOOD))


# Follow-up questions: None where they do not fit the last answer.


def follow_other(asker: Asker, last: Exchange) -> Exchange | None:
    """The other one of two alike."""
    if last.other is None:
        return None
    number, noun = last.other
    question = asker.form(words.OTHER, noun=noun)
    answer = expand(f"[Here is|That is|I have marked] the other {noun} {SEG}.", asker.draw)
    return Exchange("other", question, answer, (number,))


def follow_colour(asker: Asker, last: Exchange) -> Exchange | None:
    """The colour of the one thing that was meant."""
    thing = _only_target(asker, last)
    if thing is None or thing.colour is None:
        return None
    question = asker.form(words.WHAT_COLOUR, it="it")
    return _said_of(asker, "what_colour", question, thing, f"is {thing.colour}")


def follow_place(asker: Asker, last: Exchange) -> Exchange | None:
    """Where the one thing is that was meant."""
    thing = _only_target(asker, last)
    if thing is None:
        return None
    question = asker.form(words.WHERE_IS_IT, it="it")
    return _said_of(asker, "where_is_it", question, thing, f"is {place_of(thing)}")


def _said_of(
    asker: Asker, kind: str, question: str, thing: Thing, predicate: str
) -> Exchange | None:
    if name_of(thing.item).many:
        return None
    answer = f"The {thing.item.name} {SEG} {predicate}."
    return Exchange(kind, question, answer, (thing.number,))


def follow_is_it(asker: Asker, last: Exchange) -> Exchange | None:
    """Whether the one thing that was meant has an attribute."""
    thing = _only_target(asker, last)
    if thing is None:
        return None
    wanted = asker.draw.random() < 0.5
    tags = [tag for tag in words.PROPERTIES if thing.item.has(tag) is wanted]
    if not tags:
        return None
    question = asker.form(words.IS_IT, single=load_attributes()[asker.draw.choice(tags)].phrase)
    verdict = "Yes, that is" if wanted else "No, that is not"
    answer = f"{verdict} true of the {thing.item.name} {SEG}."
    return Exchange("is_it", question, answer, (thing.number,))


def follow_larger(asker: Asker, last: Exchange) -> Exchange | None:
    """Which of two things that were meant is larger or smaller."""
    if len(last.targets) != 2:
        return None
    large, small = sorted(
        (thing_of(asker.scene, number) for number in last.targets), key=lambda t: -t.area
    )
    if ratio(large, small) < RATIO or large.row == small.row:
        return None
    thing, more = asker.draw.choice(((large, words.LARGER), (small, words.SMALLER)))
    word = asker.draw.choice(more)
    question = asker.form(words.WHICH_LARGER, more=word)
    return _said_of(asker, "which_larger", question, thing, f"is {word}")


def follow_else(asker: Asker, last: Exchange) -> Exchange | None:
    """Whether there are more, after all of them were listed."""
    if last.kind not in ("property", "category", "colour") or not last.targets:
        return None
    question = asker.form(words.ANYTHING_ELSE)
    return Exchange("anything_else", question, asker.draw.choice(words.NO_MORE))


def _only_target(asker: Asker, last: Exchange) -> Thing | None:
    return thing_of(asker.scene, last.targets[0]) if len(last.targets) == 1 else None


ASK: dict[str, Kind] = {
    "name": ask_name,
    "several": ask_several,
    "property": ask_property,
    "use": ask_use,
    "need": ask_need,
    "situation": ask_situation,
    "colour": ask_colour,
    "category": ask_category,
    "extreme": ask_extreme,
    "relation": ask_relation,
    "size": ask_size,
    "count": ask_count,
    "describe": ask_describe,
    "one_of_two": ask_one_of_two,
    "unclear": ask_unclear,
}
FOLLOW: dict[str, FollowUp] = {
    "other": follow_other,
    "what_colour": follow_colour,
    "where_is_it": follow_place,
    "is_it": follow_is_it,
    "which_larger": follow_larger,
    "anything_else": follow_else,
}
KINDS: dict[str, float] = {  # how often each is tried
    "name": 3.0,
    "several": 2.0,
    "property": 3.0,
    "use": 1.5,
    "need": 1.5,
    "situation": 2.0,
    "colour": 1.2,
    "category": 1.5,
    "extreme": 1.0,
    "relation": 1.5,
    "size": 1.0,
    "count": 1.2,
    "describe": 1.5,
    "one_of_two": 2.0,
    "unclear": 0.15,
}
PLAIN = {"name": 3.0, "describe": 1.0, "colour": 0.5, "extreme": 0.5, "property": 1.0}


def means(noun: ObjectType, item: ObjectType) -> bool | None:
    """Whether an object goes by another one's name; None where it might ("tree", a pine tree)."""
    if noun is item:
        return True
    return None if _shares_head(noun.code_point, item.code_point) else False


@cache
def _shares_head(noun: str, item: str) -> bool:
    """Whether a spelling of one object ends as one of the other."""
    spellings = {own.code_point: (own.name, *own.synonyms) for own in objects()}
    return any(
        f" {normalise(a)}".endswith(f" {normalise(b)}")
        or f" {normalise(b)}".endswith(f" {normalise(a)}")
        for a in spellings[noun]
        for b in spellings[item]
    )


def is_of_colour(thing: Thing, colour: str) -> bool | None:
    """Whether a thing is of a colour; None where some would say so."""
    if thing.colour == colour:
        return True
    return None if colour in thing.maybe else False


def first_by(scene: Scene, place: Callable[[Thing], float], gap: float) -> Thing | None:
    """The thing of the least value, if it is clearly so."""
    things = sorted(scene.things, key=place)
    if len(things) < 2 or scene.vague or place(things[1]) - place(things[0]) < gap:
        return None
    return things[0]


def ahead(thing: Thing, side: str) -> float:
    """How far a thing is to a side."""
    return {"left": -thing.x, "right": thing.x, "top": -thing.y, "bottom": thing.y}[side]


def distance(thing: Thing, other: Thing) -> float:
    """Between centres, of the picture's side."""
    return ((thing.x - other.x) ** 2 + (thing.y - other.y) ** 2) ** 0.5


def ratio(thing: Thing, other: Thing) -> float:
    return thing.area / max(other.area, 1e-6)


def place_of(thing: Thing) -> str:
    """Where in the picture a thing is: "on the left"."""
    if abs(thing.x - 0.5) >= max(0.17, abs(thing.y - 0.5)):
        return "on the left" if thing.x < 0.5 else "on the right"
    if abs(thing.y - 0.5) >= 0.17:
        return "at the top" if thing.y < 0.5 else "at the bottom"
    return "in the middle"


def thing_of(scene: Scene, number: int) -> Thing:
    return next(thing for thing in scene.things if thing.number == number)


def numbers(things: Iterable[Thing]) -> tuple[int, ...]:
    return tuple(thing.number for thing in things)


# Words


def name_of(item: ObjectType) -> Noun:
    many = not item.article and item.plural == item.name
    return Noun(item.name, item.article, item.plural, many)


def synonym(text: str, item: ObjectType) -> Noun:
    """A synonym with the article that belongs to it."""
    many = text in PLURAL_ONLY
    article = "" if many or text in MASS else "an" if text[0] in "aeiou" and text != "ewe" else "a"
    return Noun(text, article, text if many else item.plural, many)


def name_slots(noun: Noun, several: bool) -> dict[str, str]:
    """What a question by name says: all of them if there are several."""
    many = several or noun.many
    text = noun.plural if several else noun.text
    return {
        "the": f"the {text}",
        "a": text if several else noun.indefinite,
        "is": "are" if many else "is",
        "it": "they" if many else "it",
    }


def again(noun: Noun, text: str, before: int) -> str:
    """Name a thing after ``before`` others of its kind: "an apple", "another apple"."""
    if not noun.article:
        return f"more {text}" if before else text
    if before:
        return f"another {text}" if before == 1 else f"one more {text}"
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}" if text != noun.text else noun.indefinite


def agreeing(things: Sequence[Thing], nouns: dict[int, Noun]) -> dict[str, str]:
    """Words of an answer that agree with its list of things."""
    first = nouns.get(things[0].number) or name_of(things[0].item)
    if len(things) > 1 or first.many:
        return {"is": "are", "that": "those", "it": "they"}
    return {"is": "is", "that": "that", "it": "it"}


def join(phrases: Sequence[str]) -> str:
    """ "a, b and c"."""
    if len(phrases) < 2:
        return "".join(phrases)
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def fill(form: str, **slots: str) -> str:
    """Put words into a form's slots; those that begin with a capital have it there."""
    for name, value in slots.items():
        form = form.replace(f"{{{name}}}", value)
        form = form.replace(f"{{{name.capitalize()}}}", value[:1].upper() + value[1:])
    return form[:1].upper() + form[1:]

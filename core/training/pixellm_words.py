"""How the embedded PixelLM's questions and answers are worded.

A form is a sentence with choices in brackets, "[show me|mark] {the}[, please|]."; its first letter
becomes a capital. Each kind of question has forms for training and others that only the evaluation
uses; the words of the latter all occur in the former. ``pixellm_questions`` fills the slots.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

_CHOICE = re.compile(r"\[([^\[\]]*)\]")


@dataclass(frozen=True)
class Forms:
    """Wordings of one kind of question.

    Args:
        train: seen in training.
        held_out: used in the evaluation only.
    """

    train: tuple[str, ...]
    held_out: tuple[str, ...]

    def draw(self, draw: random.Random, *, held_out: bool) -> str:
        return expand(draw.choice(self.held_out if held_out else self.train), draw)


NO_FORMS = Forms((), ())


@dataclass(frozen=True)
class Property:
    """How an attribute of the table is said.

    Args:
        plural: its predicate for several things; that for one is in the table.
        use: what one does with a thing that has it, "find out the time"; "" where one does not.
        needs: sentences that ask for it without naming it.
    """

    plural: str
    use: str = ""
    needs: Forms = NO_FORMS


@dataclass(frozen=True)
class Situation:
    """A need for two things.

    Args:
        first, second: tags of attributes.
        answer: with {first} and {second} in it.
        without: ends of an answer that lacks the first or the second.
    """

    first: str
    second: str
    answer: str
    without: tuple[str, str]
    questions: Forms


def expand(form: str, draw: random.Random) -> str:
    """Choose among what stands in brackets, inner ones first."""
    while _CHOICE.search(form):
        form = _CHOICE.sub(lambda match: draw.choice(match[1].split("|")), form)
    return form


def expansions(form: str) -> Iterator[str]:
    """All that ``expand`` may give, for forms without brackets in brackets."""
    parts = [part.split("|") if k % 2 else [part] for k, part in enumerate(_CHOICE.split(form))]
    for chosen in product(*parts):
        yield "".join(chosen)


HERE = "[| here| in this picture| in the image| in the picture]"
SHOW = "[show me|mark|segment|highlight|find|point out]"
ASK = "[can|could] you [find|see|mark|segment|show me|point out]"

NAME = Forms(
    (
        f"Where {{is}} {{the}}{HERE}?",
        f"[|please ]{SHOW} {{the}}{HERE}.",
        f"[|please ]{SHOW} {{the}}, please.",
        f"{ASK} {{the}}{HERE}?",
        "I am looking for {the}. Where {is} {it}?",
        "I am looking for {the}. Can you help me?",
        "I want to see {the}.",
        "I need {the}.",
        "Is there {a} [in this picture|here|in the image]?",
        "Do you see {a}[| here]?",
        "{The}, please.",
        "Which part of the picture shows {the}?",
        "What {is} {the} in this image?",
        "Can you segment {the} in this image?",
        "Tell me what you know about {the}.",
        "{The}?",
    ),
    (
        "Would you [mark|show me] {the}?",
        "Tell me where {the} {is}.",
        "I need to find {the} in this picture.",
        "Please help me find {the}.",
        "Can I see {the}[| here]?",
    ),
)
SEVERAL = Forms(
    (
        f"[|please ]{SHOW} {{list}}{HERE}.",
        f"{ASK} {{list}}{HERE}?",
        f"Where are {{list}}{HERE}?",
        "I am looking for {list}.",
        "I need {list}. Where are they?",
        "{List}, please.",
    ),
    (
        "Tell me where {list} are.",
        "Would you [mark|show me] {list}?",
        "Please help me find {list}.",
    ),
)
PROPERTY = Forms(
    (
        "Which of these [things |objects |]{plural}?",
        f"What{HERE} {{single}}?",
        "[please |][show me|find|mark|segment|highlight] [everything|anything|whatever] that "
        "{single}.",
        "Is there [anything|something] [here |in this picture |in the image |]that {single}?",
        "Which [thing|object|part of the picture] {single}?",
        "Which things [here |in the picture |]{plural}?",
        "Do you see [anything|something] that {single}?",
        "I need something that {single}.",
        "Tell me which of these {plural}.",
    ),
    (
        "Can you tell me what {single}?",
        "Of all these things, which {plural}?",
        "I am looking for [something|anything] that {single}.",
        "Point out whatever {single}.",
    ),
)
USE = Forms(
    (
        "What [here |in this picture |of this |]could I use to {use}?",
        "What could I use here to {use}?",
        "I want to {use}. What can I use?",
        "I want to {use}. [What|Which of these] could help me?",
        "Which of these would you use to {use}?",
        "What should I take to {use}?",
        "Is there anything [here |]to {use} with?",
        "I need to {use}.",
        "Show me what I can use to {use}.",
    ),
    (
        "How could I {use} with what is here?",
        "I have to {use}. Which of these should I take?",
        "Tell me what I could use to {use}.",
        "Is there something in this picture that would help me to {use}?",
    ),
)
COLOUR = Forms(
    (
        f"What is {{colour}}{HERE}?",
        "Which [thing|object] is {colour}?",
        "Which [things|objects|of these] are {colour}?",
        "[|please ][Show me|Find|Mark|Segment] [everything|all] {colour}.",
        f"{SHOW} the {{colour}} [thing|things|object|objects].",
        "Is there [anything|something] {colour}[| here| in the image]?",
        "Do you see anything {colour}?",
    ),
    (
        "Is anything {colour}[| here]?",
        "Tell me what is {colour} [here|in this picture].",
        "I am looking for something {colour}.",
        "Of all these things, which are {colour}?",
    ),
)
CATEGORY = Forms(
    (
        "Which {nouns} [are there|do you see|are in the picture]?",
        f"[|please ]{SHOW} [the|all|all the] {{nouns}}{HERE}.",
        "Are there any {nouns}[| here| in the picture]?",
        "Where are the {nouns}?",
        "Is there {a_noun}[| here| in this picture]?",
        "What is {a_noun}[| here]?",
        "Which of these is {a_noun}?",
    ),
    (
        "Do you see any {nouns}?",
        "Tell me which {nouns} are in this picture.",
        "Which things here are {nouns}?",
        "I am looking for {nouns}.",
    ),
)
EXTREME = Forms(
    (
        f"Which [thing|object] is {{place}}{HERE}?",
        f"What is {{place}}{HERE}?",
        f"{SHOW} [the thing|the object|what is] {{place}}.",
        "What do you see {place}?",
        "I want to see the [thing|object] {place}.",
    ),
    (
        "Tell me what is {place}.",
        "Of all these things, which is {place}?",
        "Can you mark the [thing|object] {place}?",
    ),
)
RELATION = Forms(
    (
        "What is {where} {the}?",
        "Which [thing|object] is {where} {the}?",
        "Is there [anything|something] {where} {the}?",
        f"{SHOW} [everything|whatever is|what is] {{where}} {{the}}.",
        "What do you see {where} {the}?",
        "Which things are {where} {the}?",
    ),
    (
        "Tell me what is {where} {the}.",
        "Do you see anything {where} {the}?",
        "Of all these things, which are {where} {the}?",
    ),
)
SIZE = Forms(
    (
        f"Which [thing|object] is the {{most}}{HERE}?",
        "What is the {most} [thing|object][| here| in this picture]?",
        f"{SHOW} the {{most}} [thing|object]{HERE}.",
        f"Where is the {{most}} [thing|object]{HERE}?",
        "Which of these is the {most}?",
    ),
    (
        "Of all these things, which is the {most}?",
        "Tell me which [thing|object] is the {most}.",
        "Can you mark the {most} [thing|object]?",
    ),
)
COUNT = Forms(
    (
        "How many {nouns} [are there|do you see|are here|are in the picture]?",
        "Count the {nouns}[| here| in the image].",
        "[please |]count all {nouns}.",
        "How many {nouns}?",
    ),
    ("Tell me how many {nouns} there are.", "How many {nouns} can you see in this picture?"),
)
DESCRIBE = Forms(
    (
        "What do you see[| here| in this picture]?",
        "[please |]describe [the picture|this picture|the image].",
        "What is in [the picture|this picture|the image]?",
        "[show me|mark|segment|highlight] everything[| in the picture].",
        "What [things|objects] are [there|here]?",
        "What does the picture show?",
    ),
    (
        "Tell me what is in this picture.",
        "Which [things|objects] do you see?",
        "Can you describe what you see here?",
    ),
)
ONE_OF_TWO = Forms(
    (
        f"Where is the {{which}} {{noun}}{HERE}?",
        f"[|please ]{SHOW} the {{which}} {{noun}}{HERE}.",
        f"{ASK} the {{which}} {{noun}}?",
        "The {which} {noun}, please.",
    ),
    ("Tell me where the {which} {noun} is.", "I am looking for the {which} {noun}."),
)
# Follow-up questions.
OTHER = Forms(
    (
        "And the other one?",
        "And the other {noun}?",
        "What about the other one?",
        "Where is the other one?",
        "Show me the other {noun}, too.",
        "Now the other one[|, please].",
    ),
    ("And where is the other {noun}?", "Can you mark the other one, too?"),
)
WHAT_COLOUR = Forms(
    (
        "What colour is {it}?",
        "And what colour is {it}?",
        "Which colour does {it} have?",
        "What color is {it}?",
        "Tell me the colour.",
    ),
    ("Can you tell me what colour {it} is?", "And the colour of {it}?"),
)
WHERE_IS_IT = Forms(
    (
        "Where is {it}[| in the picture]?",
        "Where [in the picture|in the image] is {it}?",
        "And where is {it}?",
        "On which side is {it}?",
    ),
    ("Tell me where {it} is.", "In which part of the picture is {it}?"),
)
IS_IT = Forms(
    (
        "Is it something that {single}?",
        "Is it a thing that {single}?",
        "Would you say that it {single}?",
        "Do you think that it {single}?",
    ),
    ("Tell me, is it something that {single}?", "Is that a thing that {single}?"),
)
WHICH_LARGER = Forms(
    (
        "Which of them is {more}?",
        "Which one is {more}?",
        "And which [of them|one|of the two] is {more}?",
        "Show me the {more} one.",
    ),
    ("Which of the two is {more}?", "Tell me which one is {more}."),
)
ANYTHING_ELSE = Forms(
    (
        "Is there anything else like that?",
        "Anything else?",
        "Are there any others?",
        "Is there another one?",
    ),
    ("Do you see any others?", "Is there something else like that?"),
)
UNCLEAR = Forms(
    ("{text}", "{text}?", "{text} {text}", "What {text}?"),
    ("{text}, {text}.", "{text} {text} {text}?"),
)
QUESTION_FORMS: Mapping[str, Forms] = {
    "name": NAME,
    "several": SEVERAL,
    "property": PROPERTY,
    "use": USE,
    "colour": COLOUR,
    "category": CATEGORY,
    "extreme": EXTREME,
    "relation": RELATION,
    "size": SIZE,
    "count": COUNT,
    "describe": DESCRIBE,
    "one_of_two": ONE_OF_TWO,
    "other": OTHER,
    "what_colour": WHAT_COLOUR,
    "where_is_it": WHERE_IS_IT,
    "is_it": IS_IT,
    "which_larger": WHICH_LARGER,
    "anything_else": ANYTHING_ELSE,
}

# Answers. {things} are noun phrases, each followed by its group.
FOUND = (
    "Here {is} {things}.",
    "Sure, here {is} {things}.",
    "I see {things}.",
    "I have marked {things}.",
    "There {is} {things} in the picture.",
    "Yes, I found {things}.",
    "You can see {things} here.",
    "This picture shows {things}.",
)
FITTING = (
    "{That} {is} {things}.",
    "{It} {is} {things}.",
    "I would say {things}.",
    "You are looking for {things}.",
    "{Things} would fit that.",
    "Here {is} {things}.",
)
USEFUL = (
    "You could use {things}.",
    "You can take {things}.",
    "{Things} would help you.",
    "I would use {things}.",
    "For that there {is} {things}.",
)
NOT_FOUND = (
    "There is no {noun} in this picture.",
    "I do not see any {noun} here.",
    "No, there is no {noun} here.",
    "Sorry, I cannot find any {noun}.",
    "This picture shows no {noun}.",
    "There is no such thing here: no {noun}.",
)
NOTHING_FITS = (
    "Nothing in this picture {single}.",
    "There is nothing here that {single}.",
    "I do not see anything that {single}.",
    "No, nothing here {single}.",
    "Sorry, there is no such thing in the picture.",
    "I cannot find anything that {single}.",
)
NOTHING = (
    "There is no such thing in this picture.",
    "There is nothing like that here.",
    "I do not see anything like that.",
    "No, nothing in the picture.",
    "Nothing here fits that.",
    "Sorry, I cannot find any such thing.",
)
NO_MORE = (
    "No, that is all.",
    "No, there is nothing else.",
    "I do not see any others.",
    "There are no others in the picture.",
)
NOT_UNDERSTOOD = (
    "I do not understand the question. Ask me about things in the picture.",
    "Sorry, I do not understand that. Ask me what is in the picture.",
    "I can only answer questions about the picture.",
)

CATEGORIES: Mapping[str, tuple[str, str]] = {  # of the table: a noun with article, and plural
    "fruit": ("a fruit", "fruits"),
    "vegetable": ("a vegetable", "vegetables"),
    "drink": ("a drink", "drinks"),
    "mammal": ("a mammal", "mammals"),
    "bird": ("a bird", "birds"),
    "sea animal": ("a sea animal", "sea animals"),
    "bug": ("a bug", "bugs"),
    "plant": ("a plant", "plants"),
    "vehicle": ("a vehicle", "vehicles"),
    "tool": ("a tool", "tools"),
    "instrument": ("a musical instrument", "musical instruments"),
    "animal": ("an animal", "animals"),
}
ANIMALS = frozenset({"mammal", "bird", "reptile or amphibian", "sea animal", "bug"})
# Objects of another category that some would count to this one.
ARGUABLE_MEMBERS: Mapping[str, frozenset[str]] = {
    "fruit": frozenset({"pumpkin", "eggplant", "corn"}),
    "vegetable": frozenset({"mushroom", "pumpkin"}),
    "sea animal": frozenset({"penguin", "seashell", "frog", "crocodile", "duck", "swan"}),
    "bug": frozenset({"snail"}),
    "animal": frozenset({"seashell", "teddy bear"}),
    "vehicle": frozenset({"skateboard", "horse", "sailboat", "ship", "rocket", "airplane"})
    | frozenset({"helicopter", "bicycle"}),
    "tool": frozenset({"knife", "scissors", "broom", "flashlight", "key", "ladder"})
    | frozenset({"telescope", "magnifying glass", "chopsticks", "pencil", "pen"}),
    "mammal": frozenset({"teddy bear"}),
}
ARGUABLE_WITH: Mapping[str, frozenset[str]] = {  # whole categories of which that may be said
    "plant": frozenset({"fruit", "vegetable"}),
}

LARGEST = ("largest", "biggest")
SMALLEST = ("smallest", "littlest")
LARGER = ("larger", "bigger")
SMALLER = ("smaller", "littler")
EXTREMES: Mapping[str, tuple[str, ...]] = {
    "left": ("furthest to the left", "on the far left"),
    "right": ("furthest to the right", "on the far right"),
    "top": ("highest up", "at the very top"),
    "bottom": ("lowest down", "at the very bottom"),
}
SIDES: Mapping[str, tuple[str, ...]] = {
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
    "top": ("above", "higher up than"),
    "bottom": ("below", "further down than"),
    "behind": ("behind", "partly hidden by"),
    "front": ("in front of", "partly covering"),
    "near": ("closest to", "nearest to"),
}
NUMBERS = ("no", "one", "two", "three", "four", "five", "six")

PROPERTIES: Mapping[str, Property] = {
    "edible": Property(
        "can be eaten",
        "still my hunger",
        Forms(
            (
                "I am hungry.",
                "I am hungry. What can I eat?",
                "It is lunch time. What could I eat?",
                "I have not eaten today.",
            ),
            ("I am hungry now. Which of these should I take?",),
        ),
    ),
    "sweet": Property(
        "taste sweet",
        "",
        Forms(
            (
                "I would like something sweet.",
                "I have a sweet tooth. What would I like?",
                "What would a child with a sweet tooth take?",
            ),
            ("I have a sweet tooth. Which of these should I take?",),
        ),
    ),
    "drinkable": Property(
        "can be drunk",
        "still my thirst",
        Forms(
            (
                "I am thirsty.",
                "I am thirsty. What can I take?",
                "What can I drink?",
                "I have a dry mouth. What would help me?",
            ),
            ("I am thirsty now. Which of these would help?",),
        ),
    ),
    "holds_liquid": Property("can hold a liquid", "keep water in"),
    "baked": Property("are baked in an oven", "", Forms(("What comes from a baker?",), ())),
    "grows_on_trees": Property(
        "grow on trees",
        "",
        Forms(("What could I pick from a tree?", "What hangs on a tree before one eats it?"), ()),
    ),
    "grows_underground": Property(
        "grow under the ground",
        "",
        Forms(("What does one dig out of the ground?", "What would I have to dig for?"), ()),
    ),
    "living": Property("are alive", "", Forms(("What here breathes or grows?", "What lives?"), ())),
    "has_legs": Property("have legs"),
    "has_fur": Property(
        "have fur",
        "",
        Forms(("What would feel soft and warm because of its fur?", "What has a coat of fur?"), ()),
    ),
    "has_wings": Property("have wings"),
    "can_fly": Property(
        "can fly",
        "",
        Forms(
            (
                "What could move through the air?",
                "What might be up in the sky?",
                "What could leave the ground?",
            ),
            ("What might move through the sky?",),
        ),
    ),
    "found_in_water": Property(
        "are found in or on the water",
        "",
        Forms(
            ("What would I meet at sea or in a lake?", "What swims?", "What belongs in the water?"),
            ("What would I find in a lake?",),
        ),
    ),
    "kept_on_farm": Property(
        "are animals kept on a farm",
        "",
        Forms(("What does a farmer keep?", "Which animals belong to a farmer?"), ()),
    ),
    "carries_people": Property(
        "carry people from place to place",
        "travel",
        Forms(
            (
                "I have to go to another town. What could take me there?",
                "I want to go on a journey. What can take me?",
                "What could I ride?",
            ),
            ("What could take me to another town?",),
        ),
    ),
    "carries_things": Property("are used to carry things", "carry my things"),
    "has_wheels": Property(
        "have wheels", "", Forms(("What rolls on wheels?", "What can roll?"), ())
    ),
    "has_engine": Property(
        "have an engine", "", Forms(("What is driven by an engine?", "What needs fuel?"), ())
    ),
    "electric": Property(
        "work with electricity",
        "",
        Forms(("What needs a battery or a plug?", "What would not work without electricity?"), ()),
    ),
    "gives_light": Property(
        "give light",
        "see in the dark",
        Forms(
            (
                "It is dark. What could help me?",
                "It is getting dark.",
                "The lights went out. What can I use?",
            ),
            ("I want to see in the dark. What could help me?",),
        ),
    ),
    "tells_time": Property(
        "tell the time",
        "find out the time",
        Forms(
            (
                "I do not know how late it is.",
                "How late is it? What could tell me?",
                "I must not be late. What could help me?",
            ),
            ("I want to know how late it is. What could help me?",),
        ),
    ),
    "makes_music": Property(
        "make music",
        "make music",
        Forms(
            (
                "I would like to play a song.",
                "What would a musician take?",
                "What could I play in a band?",
            ),
            ("What would I need to play a song?",),
        ),
    ),
    "kept_in_kitchen": Property("are kept in a kitchen"),
    "kept_in_bathroom": Property(
        "are kept in a bathroom", "", Forms(("What belongs in a bathroom?",), ())
    ),
    "used_for_cleaning": Property(
        "are used for cleaning",
        "clean something",
        Forms(
            (
                "Everything is dirty. What could help me?",
                "This place is dirty. What can I use?",
                "It is dirty. What should I take?",
            ),
            ("This place is dirty. What should I take?",),
        ),
    ),
    "used_for_repair": Property(
        "are used to build or repair things",
        "repair something",
        Forms(
            (
                "My chair is broken. What do I need?",
                "Something is broken. What could help me?",
                "I want to build a house for a bird. What should I take?",
            ),
            ("My house is broken. What should I take?",),
        ),
    ),
    "cuts": Property(
        "cut things",
        "cut something",
        Forms(
            (
                "This has to be in two pieces. What can I use?",
                "I want two pieces of it. What could help me?",
                "I have to cut something. What can I take?",
            ),
            ("I want it in two pieces. What should I take?",),
        ),
    ),
    "used_for_writing": Property(
        "are used for writing or drawing",
        "write something down",
        Forms(
            (
                "I want to draw a picture. What do I need?",
                "I have to note something down.",
                "I would like to write a letter. What could I use?",
            ),
            ("I have to draw something. What do I need?",),
        ),
    ),
    "made_of_paper": Property("are made of paper"),
    "worn_on_body": Property(
        "are worn on the body",
        "",
        Forms(
            ("What could I wear?", "What can I put on?", "What would I wear?"),
            ("What should I put on?",),
        ),
    ),
    "worn_on_feet": Property(
        "are worn on the feet",
        "",
        Forms(("My feet are cold. What can I put on?", "What would I put on my feet?"), ()),
    ),
    "worn_on_head": Property(
        "are worn on the head",
        "",
        Forms(("My head is cold. What can I put on?", "What would I put on my head?"), ()),
    ),
    "used_in_sports": Property(
        "are used in sports",
        "do sports",
        Forms(
            (
                "What would an athlete need?",
                "I want to train. What can I use?",
                "What belongs to sports?",
            ),
            ("I want to do sports. What do I need?",),
        ),
    ),
    "toy": Property(
        "are toys",
        "",
        Forms(
            (
                "What could a small child play with?",
                "The child wants to play. What should I take?",
                "What belongs to a child?",
            ),
            ("What would a child want to play with?",),
        ),
    ),
    "round": Property("are round like a ball or a disc"),
}

SITUATIONS = (
    Situation(
        "edible",
        "cuts",
        "You can eat {first} and cut it with {second}.",
        ("to eat", "to cut it with"),
        Forms(
            (
                "I am hungry: what can I eat and what would I cut it with?",
                "I want to eat something, but first cut it. What do I need?",
                "What could I eat here, and with what could I cut it in pieces?",
            ),
            ("I am hungry. What do I eat, and what do I cut it with?",),
        ),
    ),
    Situation(
        "edible",
        "drinkable",
        "You can eat {first} and drink {second}.",
        ("to eat", "to drink"),
        Forms(
            (
                "I am hungry and thirsty. What can I take?",
                "It is lunch time: what could I eat and what could I drink?",
                "What is there to eat and to drink?",
            ),
            ("I want to eat and drink something. What is there?",),
        ),
    ),
    Situation(
        "used_for_writing",
        "made_of_paper",
        "You can write with {first}, and {second} is of paper.",
        ("to write with", "of paper"),
        Forms(
            (
                "I want to write something on paper. What do I need?",
                "What can I write with, and what is there of paper?",
                "What could I write with and what could I write on?",
            ),
            ("I have to write something on paper. What could I use?",),
        ),
    ),
    Situation(
        "tells_time",
        "gives_light",
        "You have {second} for light, and {first} for the time.",
        ("that tells the time", "that gives light"),
        Forms(
            (
                "It is dark and I want to know the time. What do I need?",
                "What tells me the time, and with what do I see it in the dark?",
                "I need light, and I have to know how late it is. What could I use?",
            ),
            ("It is dark and I need to know how late it is. What could help me?",),
        ),
    ),
    Situation(
        "worn_on_head",
        "worn_on_feet",
        "You can put on {first} and {second}.",
        ("for the head", "for the feet"),
        Forms(
            (
                "My head and my feet are cold. What can I put on?",
                "What can I wear on my head, and what on my feet?",
                "What do I put on, for the head and for the feet?",
            ),
            ("What would I wear on my head and on my feet?",),
        ),
    ),
    Situation(
        "used_for_repair",
        "gives_light",
        "You can repair it with {first} and see with {second}.",
        ("to repair it with", "that gives light"),
        Forms(
            (
                "Something is broken and it is dark. What do I need?",
                "I want to repair something in the dark. What could I use?",
                "What could I repair it with, and what gives me light?",
            ),
            ("I have to repair something and it is dark. What should I take?",),
        ),
    ),
    Situation(
        "drinkable",
        "makes_music",
        "You can drink {first} and make music with {second}.",
        ("to drink", "to make music with"),
        Forms(
            (
                "Friends come to see me: what can they drink, and what can they play music with?",
                "I want to drink something and to make music. What is there?",
                "What is there to drink, and what makes music?",
            ),
            ("What can I drink, and what can I make music with?",),
        ),
    ),
    Situation(
        "living",
        "carries_people",
        "{First} is alive, and you could travel with {second}.",
        ("that is alive", "to travel with"),
        Forms(
            (
                "What is alive here, and what could take me to another town?",
                "What lives, and what carries people?",
                "Show me what is alive and what I could travel with.",
            ),
            ("What is alive, and what could I travel with?",),
        ),
    ),
    Situation(
        "worn_on_body",
        "electric",
        "You can wear {first}, and {second} needs electricity.",
        ("to wear", "that needs electricity"),
        Forms(
            (
                "What could I wear, and what would not work without electricity?",
                "What can I put on, and what works with electricity?",
                "Show me what one wears and what needs a battery or a plug.",
            ),
            ("What can I wear, and what works with electricity?",),
        ),
    ),
)

GREETINGS = ("hello", "hi", "good morning", "thank you", "how are you", "who are you")
STRANGE = (
    "qwert",
    "asdf",
    "bla bla",
    "lorem ipsum dolor",
    "你好",
    "привет",
    "où est",
    "wo ist das",
    "¿qué es esto",
    "<b>x</b>",
    "x = 3",
    "🙂",
    "...",
)


def all_forms() -> Iterator[str]:
    """Every sentence around the table's words, for the tokenizer: all choices of every form."""
    for forms in QUESTION_FORMS.values():
        for form in (*forms.train, *forms.held_out):
            yield from expansions(form)
    groups = (FOUND, FITTING, USEFUL, NOT_FOUND, NOTHING_FITS, NOTHING, NO_MORE, NOT_UNDERSTOOD)
    for form in (form for group in groups for form in group):
        yield from expansions(form)
    for words in PROPERTIES.values():
        yield from (words.plural, words.use, *words.needs.train, *words.needs.held_out)
    for situation in SITUATIONS:
        yield from (situation.answer, *situation.without)
        yield from (*situation.questions.train, *situation.questions.held_out)

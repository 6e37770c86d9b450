"""The words of the stories: heroes, their companions, and the worlds they live in.

Lists are written with bars, in the order of their frequency (`grammar.choice` makes them Zipfian). A world is a
block of columns:

    places    where the hero lives; after a slash, how to refer back to it (default: "the" + the noun phrase)
    scenes    a clause of local colour
    animals   companions, each with what it is good at; after a slash, its short name
    folk      who owns, mends and sells things here
    treats    something to eat
    wishes    an object > what the hero would do with it
    high, deep, heavy, cracks, soil, guards
              where the wish may get stuck: up on, down in, behind, inside, under, in the keeping of
    jobs      how to earn money
"""

import re
from textwrap import dedent

from transformerlm.synthetic.grammar import Thing, choice
from transformerlm.synthetic.story_worlds_far import WORLDS_FAR
from transformerlm.synthetic.story_worlds_near import WORLDS_NEAR

_GIRLS = """
    Nora Mia Ella Ruby Alice Greta Ida Poppy Hazel Zoe Wilma Tilda Freya Matilda Olive Amara Dot Agnes Yuki Petra
    Ottilie Ingrid Leila Winnie Cleo Marigold Saskia Beatrix Xanthe Philippa Esme Juno
"""
_BOYS = """
    Tom Ben Leo Max Oskar Finn Hugo Theo Jonas Emil Arlo Rafi Anton Barnaby Felix Gus Ivan Kofi Luca Milo
    Nils Otto Pascal Quentin Rufus Samir Toby Ulrich Victor Wilbur Zachary Cosmo
"""
_SURNAMES = """
    Plum | Finch | Appleby | Fiddlewick | Moon | Pepperpot | Berry | Thistledown | Brown | Marlow | Featherstone | Bell
    | Okafor | Nightingale | Lindqvist | Puddifoot | Tanaka | Crabtree | Winter | Rossi | Honeywell | Gooseberry | Silva
    | Tumbleweed | Kowalski | Quill | Butterworth | Haddad | Snodgrass | Merriweather
"""
_HE_PETS = """
    Biscuit Button Pickle Bruno Waffles Dumpling Tuppence Mustard Barnacle Sprocket Pudding Turnip Noodle Wellington
    Bramble Crumpet Hiccup Captain Professor Grumble Mortimer Humphrey Cornelius Fidget Gulliver
"""
_SHE_PETS = """
    Pip Daisy Clementine Peaches Mopsy Tulip Marmalade Olga Duchess Pepper Hyacinth Custard Bluebell Twinkle Gertrude
    Snowdrop Pumpkin Florence Rosalind Treacle Penelope Henrietta Bubbles Queenie Thimble
"""
_LOOKS = """
    fluffy | nervous | plump | sleepy | elderly | bold | cross-eyed | gentle | dignified | very small | hungry | bossy
    | absent-minded | limping | famous | spotted | yellow | old-fashioned | talkative | mysterious
"""
_QUALITIES = """
    red | tiny | silver | second-hand | golden | blue | shiny | striped | wooden | old | purple | enormous | dented
    | squeaky | polka-dotted | green | splendid | lopsided | velvet-lined | almost new
"""
_DOINGS = """
    collected | was afraid of | sang to | argued with | dreamed about | was in love with | counted | polished
    | wrote poems about | was wary of | sneezed at | apologised to | juggled | told stories about | believed in
    | hid behind | bowed to | painted | knew all about | kept a list of
"""
_STUFF = """
    spoons | buttons | puddles | clouds | teapots | pebbles | hats | umbrellas | socks | beetles | sausages | balloons
    | feathers | doorknobs | cabbages | thunderstorms | shadows | candles | trombones | moonbeams | carrots | echoes
    | noodles | jellyfish
"""
_ABILITIES = ("fly", "climb", "swim", "dig", "strong", "small", "charm")


def split(bars: str) -> list[str]:
    """Return the entries of a list written with bars."""
    return [" ".join(entry.split()) for entry in bars.split("|")]


def with_the(phrase: str) -> str:
    """Return a noun phrase as something already known: "beside an oasis" becomes "the oasis"."""
    return "the " + re.sub(r"^.*?\b(?:an?|the) ", "", phrase, count=1)


def with_a(noun: str) -> str:
    """Return a noun with its indefinite article, by its first letter."""
    sounds_like_you = noun.startswith(("uni", "uku"))
    return ("an " if noun[0] in "aeiou" and not sounds_like_you else "a ") + noun


def they(names: str, he: str, him: str, his: str) -> list[Thing]:
    """Return individuals who share their pronouns."""
    return [Thing({"name": name, "he": he, "him": him, "his": his}) for name in names.split()]


def place(entry: str) -> Thing:
    """Return a place: {place} says where it is, {place.the} refers back to it."""
    where, _, known = entry.partition("/")
    return Thing({"name": where, "the": known or with_the(where)})


def spot(entry: str) -> Thing:
    """Return a thing in the way: {spot} introduces it, {spot.the} refers back to it."""
    name, _, short = entry.partition("/")
    return Thing({"name": name, "the": "the " + short.removeprefix("the ") if short else with_the(name)})


def wish(entry: str) -> Thing:
    """Return an object of desire: {wish} and {wish.a} name it, {wish.use} is what it is good for."""
    name, use = entry.split(" > ")
    return Thing({"name": name, "a": with_a(name), "use": use})


def adjective(entry: str) -> Thing:
    """Return an adjective: {look}, or {look.a} with its article."""
    return Thing({"name": entry, "a": with_a(entry)})


def animal(entry: str, abilities: dict[str, Thing]) -> Thing:
    """Return a kind of animal, which brings along the one thing that it is good at."""
    described, ability = entry.split(":")
    name, _, short = described.partition("/")
    return Thing({"name": short or name, "a": with_a(name)}, {"ability": choice([abilities[ability]])})


def doing(entry: str) -> Thing:
    """Return a habit that wants an object, and the same habit unchanged at the end of the story ({doing.still})."""
    first, _, others = entry.partition(" ")
    still = f"{first} still {others}" if first == "was" else f"still {entry}"
    return Thing({"name": entry, "still": still})


def abilities() -> dict[str, Thing]:
    """Return what animals can do: each brings the problems that it, or anybody, can solve."""
    odds = {name: {f"<problem={name}>": 6, "<problem=everyday>": 4} for name in _ABILITIES}
    return {name: Thing({}, {"problems": choice(odds[name])}) for name in _ABILITIES}


def world(block: str, skills: dict[str, Thing]) -> Thing:
    """Return a world from its block of columns."""
    columns = dict(line.split(": ", 1) for line in re.split(r"\n(?=\w)", dedent(block).strip()))
    makers = {
        "places": place,
        "wishes": wish,
        "animals": lambda entry: animal(entry, skills),
        **dict.fromkeys(("deep", "heavy", "cracks", "soil", "guards", "folk"), spot),
    }
    return Thing({}, {name: choice([makers.get(name, str)(e) for e in split(bars)]) for name, bars in columns.items()})


KINDS = [
    Thing({"child": "girl"}, {"heroes": choice(they(_GIRLS, "she", "her", "her"))}),
    Thing({"child": "boy"}, {"heroes": choice(they(_BOYS, "he", "him", "his"))}),
]
SURNAMES = split(_SURNAMES)
PETS = [
    pet
    for pair in zip(they(_SHE_PETS, "she", "her", "her"), they(_HE_PETS, "he", "him", "his"), strict=True)
    for pet in pair
]
LOOKS = [adjective(entry) for entry in split(_LOOKS)]
QUALITIES = [adjective(entry) for entry in split(_QUALITIES)]
DOINGS = [doing(entry) for entry in split(_DOINGS)]
STUFF = [Thing({"name": entry}) for entry in split(_STUFF)]
WORLDS = [world(block, skills) for skills in [abilities()] for block in WORLDS_NEAR + WORLDS_FAR]

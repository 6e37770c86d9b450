"""The shape of a story: eight beats, each a rule with several alternatives.

    opening  companion  longing  [scene]  problem  dismay  turn  ending

Alternatives stand in the order of their frequency. What is needed again is remembered:

    kind, hero, world, place             a girl or a boy, her or his name, and where they live
    animal, ability, pet, doing, stuff   a companion: what it is, can do, is called, and does to what all day long
    quality, wish                        what the hero wants
    problem, spot                        what goes wrong, and what or who is in the way
"""

from transformerlm.synthetic.grammar import Alternatives, Grammar
from transformerlm.synthetic.story_lexicon import DOINGS, KINDS, LOOKS, PETS, QUALITIES, STUFF, SURNAMES, WORLDS, split
from transformerlm.synthetic.story_problems import PROBLEM

_OPENING: dict[str, Alternatives] = {
    "start": ["<opening> <companion> <longing><scene> <problem> <dismay> <turn> <ending>"],
    "kinds": KINDS,
    "hero": ["<hero=kind.heroes>{hero} <surname>"],
    "surname": SURNAMES,
    "worlds": WORLDS,
    "opening": [
        "<once> <kind=kinds><character> <calling> named <hero> lived <home>.",
        "<kind=kinds><hero> lived <home> and <habit>.",
        "<world=worlds><place=world.places>{^place} lived <kind=kinds><character> <calling> named <hero>.",
        "<kind=kinds><hero>, <character> <calling> who <habit>, lived <home>.",
        "Nobody who lived <home> could <skill> like <kind=kinds><hero>.",
        "If you stop <home>, ask for <kind=kinds><hero>, the <calling> who <habit>.",
    ],
    "home": ["<world=worlds><place=world.places>{place}"],
    "once": split("""
        Once upon a time | Long ago | Not so long ago | Last winter | When the moon was younger | Before there
        were clocks | Some time next week
    """),
    "character": split("""
        a little | a cheerful | a curious | a brave | a shy | a clever | a dreamy | a stubborn | a freckled | a
        noisy | a patient | an inventive | a barefoot | an untidy | a remarkably polite | a sensible
    """),
    "calling": {
        "{kind.child}": 8,
        "inventor": 3,
        "explorer": 3,
        "poet": 2,
        "detective": 2,
        "magician": 2,
        "painter": 1.5,
        "goalkeeper": 1,
        "philosopher": 1,
        "daydreamer": 1,
        "trumpet player": 1,
    },
    "habit": split("""
        asked too many questions | loved a good plan | never walked when hopping would do | was always late |
        talked to the furniture | counted everything twice | whistled at breakfast | could not sit still | read
        maps in bed | had lost {hero.his} left shoe again | made up songs about potatoes | laughed louder than
        thunder | wore odd socks on purpose | knew eleven words for rain | had never once been bored | invented
        useless machines | said good morning to worms | walked backwards on Sundays | owned a very serious
        moustache | kept a diary of smells
    """),
    "skill": split("""
        daydream | whistle | giggle | tell tall stories | climb trees backwards | make pancakes | sneeze | dance
        | lose gloves | argue with a wardrobe | invent excuses | spell rhinoceros
    """),
}

_COMPANION: dict[str, Alternatives] = {
    "pets": PETS,
    "looks": LOOKS,
    "doings": DOINGS,
    "stuff": STUFF,
    "look": ["<look=looks>{look}"],
    "a_look": ["<look=looks>{look.a}"],
    "animal": ["<animal=world.animals>{animal}<ability=animal.ability>"],
    "pet": ["<pet=pets>{pet}"],
    "quirk": ["<doing=doings>{doing} <stuff=stuff>{stuff}"],
    "companion": [
        "{^hero.his} best friend was <a_look> <animal> called <pet>, who <quirk>.",
        "{^hero.he} shared <shared> with <pet>, <a_look> <animal> who <quirk>.",
        "With {hero.him} lived <pet> the <look> <animal>, who <quirk>.",
        "<pet> the <look> <animal>, who <quirk>, was {hero.his} <relation>.",
        "{^hero.his} <relation>, <a_look> <animal> called <pet>, <quirk>.",
    ],
    "shared": split("""
        every secret | breakfast | a bed | a birthday | a toothbrush | the best armchair | a left glove | an
        umbrella
    """),
    "relation": split("""
        closest friend | neighbour | helper | bodyguard | dancing teacher | second cousin | chief adviser | hero
        | pen friend | favourite person
    """),
}

_LONGING: dict[str, Alternatives] = {
    "qualities": QUALITIES,
    "wish": ["<quality=qualities>{quality.a} <wish=world.wishes>{wish}"],
    "longing": [
        "{hero} wanted <wish> to {wish.use}.",
        "More than <anything>, {hero} wanted <wish> to {wish.use}.",
        '"If only I had <wish>," {hero} <sighed>, "I could {wish.use}!"',
        "{hero} dreamed of <wish>, because then {hero.he} could {wish.use}.",
        "<season> {hero} had <wished> for <wish>.",
    ],
    "anything": split("anything | cake | sleep | a day off school | all the tea in China | a tail"),
    "sighed": split("sighed | often said | told the stars | murmured | said to anyone who listened"),
    "season": split("""
        All spring | All summer | For a hundred days | Every birthday | Every night | Since the great storm | In
        three languages
    """),
    "wished": split("wished | saved | begged | hoped | written letters asking"),
    "scene": {"": 6, " <outside> <world.scenes>.": 4},
    "outside": split("""
        Outside, | One morning, | It was a day when | All the while, | Far and near, | That week, | As usual,
    """),
}

_ENDING: dict[str, Alternatives] = {
    "ending": [
        "Now {hero} could {wish.use} after all.<coda>",
        "They celebrated with <world.treats> <until>.<coda>",
        "{hero} <hugged> the {quality} {wish}, and then {pet}.<coda>",
        "From then on, {hero} could {wish.use} <whenever>.<coda>",
        "{hero} slept with the {wish} <where>, and {pet} <slept>.",
        "Pass {place.the} <late>, and you may see them with the {wish}, <happily>.",
    ],
    "until": split("""
        until bedtime | until the moon came up | until nobody could move | and a very silly dance | until the
        plates were clean | as if it were New Year | and invited the whole street | under the stars
    """),
    "hugged": split("hugged | kissed | waltzed with | admired | patted"),
    "whenever": split("""
        every day | on rainy days | before breakfast | whenever it mattered | with {hero.his} eyes shut
    """),
    "where": split("""
        under {hero.his} pillow | in {hero.his} arms | on {hero.his} head | by the window | at {hero.his} feet
    """),
    "slept": split("""
        snored all night long | kept watch, just in case | dreamed of <world.treats> | stole the blanket | told
        the moon all about it | lay awake smiling
    """),
    "late": split("in the evening | at dusk | on a quiet night | very early | in spring"),
    "happily": split("""
        as happy as can be | laughing | humming a tune | planning something | arguing about whose turn it is |
        teaching the neighbours
    """),
    "coda": {
        " And {pet}? {^pet.he} {doing.still} {stuff}.": 4,
        "": 4,
        " As a reward, {pet} got <world.treats>.": 2,
        ' "<thanks>," said {hero}.': 2,
        " {^place.the} had never seen <such>.": 1,
    },
    "thanks": split("""
        Thank you | You are the best friend there is | I would have given up | What a day | Same time tomorrow |
        Let us never do that again | Tomorrow we rest | I knew it | And nobody will believe us
    """),
    "such": ["such a party", "a happier pair", "anything like it", "so much jam"],
}

STORY_GRAMMAR = Grammar(_OPENING | _COMPANION | _LONGING | PROBLEM | _ENDING)

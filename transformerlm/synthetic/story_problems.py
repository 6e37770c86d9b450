"""What comes between a hero and a wish, how they take it, and who puts it right.

A problem brings along three lists: how it is told (`hindrances`), how it is solved (`turns`), and for those that one
animal solves alone, what it does (`deeds`). Its solution can only be one that fits: what fell into the water is fetched
by a swimmer.
"""

from transformerlm.synthetic.grammar import Alternatives, Thing, choice
from transformerlm.synthetic.story_lexicon import split


def problem(hindrances: Alternatives, *, turns: Alternatives = ("<solo>",), **lists: Alternatives) -> Thing:
    """Return a problem: how it is told, how it is solved, and what lists its solution needs."""
    lists |= {"hindrances": hindrances, "turns": turns}
    return Thing({}, {name: choice(alternatives) for name, alternatives in lists.items()})


def out_of_reach(*rises: str) -> Thing:
    """Return the problem of something high up, for a companion that rises to it in these ways."""
    return problem(
        [
            "was stuck <world.high>",
            "hung out of reach <world.high>",
            "had blown away and landed <world.high>",
            "was balanced <world.high>, wobbling",
        ],
        deeds=[
            "<problem.rises> and nudged the {wish} loose",
            "<problem.rises> and brought the {wish} down",
            "<problem.rises> and rescued the {wish}",
        ],
        rises=rises,
    )


_DEEP = problem(
    [
        "fell into <spot=world.deep>{spot} with a splash",
        "lay at the bottom of <spot=world.deep>{spot}",
        "slipped into <spot=world.deep>{spot} and sank like a stone",
    ],
    deeds=[
        "dived into {spot.the} and came up with the {wish}",
        "vanished into {spot.the} and returned with the {wish}",
        "swam three times round {spot.the} and fished out the {wish}",
    ],
)
_BURIED = problem(
    [
        "was buried under <spot=world.soil>{spot}",
        "lay somewhere beneath <spot=world.soil>{spot}",
        "had sunk deep into <spot=world.soil>{spot}",
    ],
    deeds=[
        "dug into {spot.the} until the {wish} popped out",
        "tunnelled through {spot.the} and came out wearing the {wish}",
        "sniffed twice, dug once and found the {wish}",
    ],
)
_HEAVY = problem(
    [
        "was wedged behind <spot=world.heavy>{spot}",
        "was trapped under <spot=world.heavy>{spot}",
        "lay flat beneath <spot=world.heavy>{spot}",
    ],
    deeds=[
        "pushed {spot.the} aside like a cushion",
        "lifted {spot.the} with one mighty heave",
        "leaned on {spot.the} until it rolled away",
    ],
)
_CRACK = problem(
    [
        "had slipped into <spot=world.cracks>{spot}",
        "was stuck inside <spot=world.cracks>{spot}",
        "had disappeared into <spot=world.cracks>{spot}",
    ],
    deeds=[
        "squeezed into {spot.the} and pushed the {wish} out",
        "wriggled into {spot.the} and set the {wish} free",
        "crept into {spot.the} and tugged until the {wish} came loose",
    ],
)
_GUARD_HINDRANCES = [
    "belonged to <spot=world.guards>{spot}",
    "was guarded by <spot=world.guards>{spot}",
    "lay under the chin of <spot=world.guards>{spot}",
    "had just been carried off by <spot=world.guards>{spot}",
]
_CHARMED_GUARD = problem(
    _GUARD_HINDRANCES,
    deeds=[
        "sang so sweetly that {spot.the} wept and handed over the {wish}",
        "made {spot.the} laugh too hard to hold the {wish}",
        "danced until {spot.the} forgot all about the {wish}",
    ],
)
_LONELY_GUARD = problem(
    _GUARD_HINDRANCES,
    turns=[
        "{hero} offered {spot.the} <world.treats>, and the {wish} was <given>.",
        '{hero} saw that {spot.the} was only lonely. "<question>" {hero.he} asked, and the {wish} was <given>.',
        "{hero} and {pet} invited {spot.the} to tea. After the third cup the {wish} was <given>.",
    ],
)
_PRICE = problem(
    [
        "cost more than {hero.he} had",
        "belonged to <spot=world.folk>{spot}, who wanted a fair price",
        "cost ninety coins, and {hero.he} had <coins>",
    ],
    turns=[
        "So {hero} and {pet} offered to <world.jobs>, and by <sunset> the {wish} was paid for.",
        '"<proposal>" said {hero}. They had to <world.jobs>, but by <sunset> the {wish} was theirs.',
        "For <weeks> they had to <world.jobs>, but then the {wish} was theirs.",
    ],
)
_BROKEN = problem(
    [
        "was broken in <two> pieces",
        "fell apart at the first touch",
        "had lost its most important bit",
        "was squashed as flat as a pancake",
    ],
    turns=[
        "So they took it to <world.folk>, who mended the {wish} with <glue>.",
        "{hero} held the bits, {pet} held the <glue>, and by <sunset> the {wish} was whole.",
        "{pet} knew <world.folk>, who put the {wish} right in return for <world.treats>.",
    ],
)
_SHARED = problem(
    [
        "was just what <spot=world.folk>{spot} had always wanted, too",
        "had already been promised to <spot=world.folk>{spot}",
        "had a label on it: for <spot=world.folk>{spot}",
    ],
    turns=[
        "So they shared: {spot.the} had the {wish} on <weekday>s, and {hero} all the other days.",
        '{hero} asked {spot.the} nicely. "<generous>" came the answer.',
        "{pet} whispered something to {spot.the}, who smiled and gave the {wish} to {hero}.",
    ],
)

PROBLEM: dict[str, Alternatives] = {
    "problem": ["<finding>, but it <ability.problems><problem.hindrances>."],
    "finding": [
        "At last {hero.he} <found> one",
        "On <weekday> {hero} <found> just the right {wish}",
        "<suddenly>, there was one",
        "<teller> told {hero} of one",
        "Following <clue>, they <found> one",
    ],
    "weekday": split("Saturday | Monday | Friday | Wednesday | Thursday | Tuesday | Sunday"),
    "found": ["found", "saw", "spotted", "discovered"],
    "suddenly": split("One afternoon | Just after lunch | Out of the blue | As if by magic | Lo and behold"),
    "teller": split("""
        A rich aunt | The postman | Grandfather | A stranger | The mayor | A pirate | Somebody's cousin
    """),
    "clue": split("a treasure map | a trail of crumbs | a rumour | a very good smell | a hunch | {pet}'s nose"),
    "fly": [out_of_reach("spread two brave wings", "flapped straight up", "soared into the air")],
    "climb": [out_of_reach("climbed up inch by inch", "scrambled to the top", "clambered up without looking down")],
    "swim": [_DEEP],
    "dig": [_BURIED],
    "strong": [_HEAVY],
    "small": [_CRACK],
    "charm": [_CHARMED_GUARD],
    "everyday": {_PRICE: 4, _LONELY_GUARD: 3, _BROKEN: 3, _SHARED: 2},
    "coins": ["seven", "two", "eleven", "one, with a hole in it"],
    "two": ["two", "three", "seven", "a hundred"],
    "dismay": [
        '"<exclamation>!" <cried> {hero}. "<complaint>"',
        "{hero} tried <attempt>, but that only <result>.",
        '"<exclamation>!" <said> {pet}. "<advice>."',
        "{hero} sat down and <sulked>.",
        "First {hero.he} tried <attempt>, then <attempt>. Neither <helped>.",
    ],
    "exclamation": split("""
        Oh no | Bother | Oh, crumbs | Goodness | Fiddlesticks | Oh, pickles | Thundering teacups | Rats and
        radishes | Good grief | Jumping jellybeans | Botheration | Suffering sardines | Mercy | Holy macaroni |
        Blistering beans | Well, well | Great galoshes
    """),
    "cried": split("cried | said | groaned | shouted | wailed | muttered"),
    "said": split("said | whispered | announced | grunted | sang | mumbled"),
    "complaint": split("""
        What shall we do now? | That is not fair. | We were so close! | I should have stayed in bed. | We need a
        plan. | This calls for cake. | Not again! | Even my socks are disappointed. | Now I am cross. | Why is
        it always us? | Think, think, think! | I can hardly look.
    """),
    "attempt": split("""
        saying please | a very long stick | jumping up and down | a rope and a bucket | magic words | wishing
        very hard | a plan with string and jam | whistling | looking the other way | three kinds of cheese | a
        letter of complaint | glaring at it | standing on one leg | pepper | asking a grown-up | a trampoline |
        a hairpin | sitting very still | the alphabet | a big magnet
    """),
    "result": split("""
        made it worse | made everybody laugh | took all morning | woke the neighbours | made {hero.him} hungry |
        frightened an ant | cost {hero.him} a glove | smelled of onions | started an argument
    """),
    "advice": split("""
        Do not give up | Let me think | Breathe in, breathe out | We have seen worse | Never trust a Tuesday |
        Have a biscuit first | My grandmother did this once | Stay calm | We are not beaten yet | Look at it as
        practice
    """),
    "sulked": split("""
        sighed | cried a little | thought very hard | ate a sandwich | counted to a hundred | scowled at the sky
        | drew a sad face in the dust | refused to move | made a list
    """),
    "turn": ["<problem.turns>"],
    "solo": [
        "In the end {pet} <problem.deeds>.",
        '"<offer>" <said> {pet}, who <problem.deeds>.',
        "<luckily> {pet} <problem.deeds>.",
        "{pet} <winked>. Then {pet.he} <problem.deeds>.",
    ],
    "offer": split("""
        Leave it to me, | Watch this, | Allow me, | Hold my hat! | I was born for this, | Stand back! | How hard
        can it be? | One moment, please, | Is that all? | At your service,
    """),
    "winked": split("winked | yawned | blinked | coughed politely | put on a brave face | took a bow"),
    "helped": ["helped", "worked", "was any good", "went well"],
    "luckily": split("""
        Luckily, | Without a word | Quick as a flash, | Humming a tune, | To everyone's surprise, | At once
    """),
    "given": ["handed over", "theirs", "a present", "pushed across the table"],
    "question": split("""
        Would you like to play with us? | Will you be our friend? | Do you like stories? | Shall we share it? |
        Are you ticklish? | May I call you Uncle?
    """),
    "sunset": ["sunset", "teatime", "midnight", "the end of the week"],
    "weeks": ["three days", "a week", "two whole weeks", "a month of Sundays"],
    "proposal": ["We can work for it!", "Give us a job!", "How about a bargain?"],
    "glue": split("glue | string | honey and hope | a spoonful of patience | silver thread | a safety pin"),
    "generous": ["Take it, my dear!", "Why, of course!", "It would only gather dust!", "Nobody ever asked before!"],
}

"""Worlds close to home, as plain data. `story_lexicon.py` explains the columns and turns them into things."""

WORLDS_NEAR = [
    """
    places: in a crooked lighthouse | above a noisy harbour | in a blue boathouse | beside a windy pier
    scenes: gulls quarrelled on the chimneys | fog crept in from the sea | the tide tickled the pebbles |
        fishing boats bobbed at anchor | a foghorn mooed like a cow | salty rain drummed on the barrels
    animals: gull:fly | crab:small | seal:swim | ship's cat/cat:climb | donkey:strong | sandpiper:charm
    folk: the net mender | the lighthouse keeper | the retired captain | the mermaid | the harbour master
    treats: hot fish soup | salty crackers | seaweed crisps | peppermint rock | crab-apple jelly
    wishes: telescope > count the stars | kite > write loops on the sky | toy sailboat > race the ducklings |
        anchor > stop the bathtub drifting | ship in a bottle > dream of far oceans | pearl button > mend a
        favourite coat | pirate hat > give orders to seagulls
    high: at the tip of the tallest mast | on the roof of the fish market | on the harbour crane
    deep: the harbour | a rock pool | a barrel of rainwater
    heavy: an upturned rowing boat | a heap of rusty chains | the captain's sea chest
    cracks: a gap in the sea wall | a hollow piece of driftwood | a giant seashell
    soil: the wet sand | a mountain of fishing nets | the muddy shingle
    guards: a bad-tempered goose | an enormous lobster | a sulky pelican
    jobs: scrub the barnacles | untangle the nets | polish the lantern | paint the oars yellow
    """,
    """
    places: in a mossy cottage | at the edge of a beech wood/the wood | in a treehouse | beside a fern-green
        hollow
    scenes: acorns pattered on the path | mist hung between the birches | woodpeckers knocked on every trunk |
        the wind combed the bracken | bluebells nodded in the shade | toadstools stood about like tiny umbrellas
    animals: owl:fly | squirrel:climb | badger:dig | otter:swim | hedgehog:small | bear:strong |
        nightingale:charm
    folk: the woodcutter | the mushroom picker | the charcoal burner | the forest witch | the beekeeper
    treats: blackberry pie | acorn pancakes | wild strawberries | nettle soup | honey on toast
    wishes: flute > play duets with the robins | lantern > read under the blankets | umbrella > keep the snails
        dry | acorn necklace > look grand at parties | honey pot > sweeten the porridge | magnifying glass >
        meet the ants properly | feather pillow > nap in the clover
    high: in the topmost fork of an oak | in an empty crow's nest | on the branch of a giant pine
    deep: the millstream | a frog pond | the bubbling brook
    heavy: a fallen beech | a mossy boulder | a stack of firewood
    cracks: a hollow log | a rabbit hole | a knot in the old willow
    soil: the brown leaves | a molehill | the soft moss
    guards: a grumpy boar | a suspicious stag | a wide-eyed toad
    jobs: stack the logs | sort the mushrooms by size | sweep up the pine needles | rake the leaves
    """,
    """
    places: on a muddy farm | in a red barn | above a cheese dairy | beside an apple orchard
    scenes: hens gossiped on the gate | the tractor coughed and spluttered | the scarecrow waved its sleeves |
        hay dust danced in the sun | piglets squealed over their breakfast | clouds of starlings wheeled over
        the barley
    animals: hen:small | carthorse:strong | pig:dig | duck:swim | dog:charm | barn swallow/swallow:fly |
        goat:climb
    folk: the milkmaid | the shepherd | the blacksmith | the cheesemaker | the scarecrow
    treats: buttered scones | cheese on toast | apple crumble | plum jam | warm milk with cinnamon
    wishes: straw hat > keep off the sunshine | bell > call the sheep home | wheelbarrow > give rides to the
        piglets | raincoat > jump in every puddle | pumpkin seed > grow the biggest pumpkin in the valley |
        banjo > teach the cows to waltz | nightcap > sleep beside the sheep
    high: on the weathercock | in the rafters of the hayloft | on the arm of the windmill
    deep: the horse trough | the duck pond | a churn full of cream
    heavy: a bale of hay | a broken plough | three sacks of potatoes
    cracks: a mouse hole | a gap in the barn floor | the bend of a drainpipe
    soil: the compost heap | a field of turnips | the haystack
    guards: a furious rooster | a stubborn bull | a gander with a temper/gander
    jobs: milk the goats | shear the woolly sheep | collect the eggs | shovel the stable
    """,
    """
    places: over a bakery | on the seventh floor of a tall house/the tall house | behind a flower shop | in a
        narrow alley
    scenes: trams rattled round the corner | pigeons paraded along the gutter | the clock tower struck the wrong
        hour | umbrellas bumped along the pavement | a barrel organ wheezed in the square | neon signs blinked
        in the drizzle
    animals: pigeon:fly | alley cat/cat:climb | mouse:small | terrier:dig | poodle:charm | milk-cart
        pony/pony:strong
    folk: the postman | the toy-shop owner | the chimney sweep | the tram driver | the watchmaker
    treats: jam doughnuts | hot chestnuts | cinnamon buns | lemon ice | noodles from a paper box
    wishes: scooter > zip down the hill | balloon > send a letter to the clouds | pocket watch > never miss
        breakfast again | paintbox > colour the grey walls | skateboard > glide to the library | music box > hum
        along at bedtime | library card > borrow all the dragon books
    high: on a lamp post | on the hands of the town clock | on a washing line
    deep: the fountain | a canal | a very deep puddle
    heavy: a delivery cart | a grand piano | a tower of suitcases
    cracks: a letter box | a crack in the pavement | an iron drain
    soil: a heap of old newspapers | the flower bed | the builder's gravel
    guards: a snooty bulldog | a strict policeman | a cross old parrot
    jobs: deliver the parcels | wash the shop window | wind the clocks | knead the dough
    """,
    """
    places: in a village school/the school | in a music room | next to a classroom | beside a sunny playground
    scenes: chalk dust tickled every nose | the bell rang for no reason | paper planes sailed past the
        blackboard | somebody practised the trombone | the radiators gurgled | crayons rolled off the desks
    animals: hamster:small | parakeet:fly | guinea pig:charm | gecko:climb | goldfish:swim | tortoise:strong |
        mole:dig
    folk: the caretaker | the music teacher | the headmistress | the cook | the librarian
    treats: alphabet soup | rice pudding | cheese sandwiches | custard tart | banana milkshake
    wishes: trumpet > wake the whole street | skipping rope > beat the school record | glass marble > win back a
        lucky blue one | fountain pen > write to a cousin in Peru | chess set > beat grandfather at last | globe
        > plan a voyage round the world | puppet > tell jokes in funny voices
    high: on the basketball hoop | on the tallest bookcase | on the flagpole
    deep: the fish tank | the paint sink | a bucket of glue
    heavy: a stack of gym mats | the teacher's desk | a broken bookshelf
    cracks: the piano | an ink well | the lining of a schoolbag
    soil: the sandpit | a box of lost mittens | the vegetable patch
    guards: a stern skeleton from the science room/skeleton | a sleepy old caretaker's dog/dog | a haughty
        peacock
    jobs: wipe the blackboard | sharpen every pencil | dust the maps | wash up the paint pots
    """,
    """
    places: in a quiet museum | above a dusty library | in a puppet theatre | below a gallery of portraits/the gallery
    scenes: the floorboards creaked a secret | moths circled the chandelier | an old portrait seemed to wink |
        the mummies slept in their boxes | pages rustled though nobody read | dust glittered in the windows
    animals: bookworm:small | bat:fly | spider:climb | rat:dig | raven:charm | guard dog/dog:strong
    folk: the night watchman | the bookbinder | the painter | the professor | the ticket lady
    treats: ginger biscuits | cocoa from a flask | toffee apples | marzipan mice | tea and gingerbread
    wishes: dinosaur tooth > frighten the dentist | map of the moon > find the best craters | knight's helmet >
        be brave in the dark | storybook > learn how the tale ended | marble owl > hold down the papers | dragon
        > guard the biscuit tin | secret diary > keep all the good ideas
    high: on the whale skeleton | on the highest shelf | on top of a marble emperor
    deep: a stone bath | the goldfish fountain | a tub of plaster
    heavy: a suit of armour | a stone sphinx | a pile of encyclopedias
    cracks: an Egyptian vase | a cannon | a grandfather clock
    soil: a crate of straw | a box of bones | a drift of old letters
    guards: a huffy statue | a dusty crocodile | an angry ghost
    jobs: dust the dinosaurs | alphabetise the labels | glue the torn pages | count the arrowheads
    """,
]

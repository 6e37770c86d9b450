"""Worlds far away, as plain data. `story_lexicon.py` explains the columns and turns them into things."""

WORLDS_FAR = [
    """
    places: in a draughty castle | in the tower of a king's palace/the palace | under a drawbridge | behind the
        royal kitchens
    scenes: banners snapped on the battlements | the jester fell off his stool | trumpets blared for lunch | ivy
        whispered on the walls | knights clanked down the stairs | the moat steamed like broth
    animals: dragon:fly | warhorse:strong | palace mouse/mouse:small | peacock:charm | moat eel/eel:swim |
        dungeon rat/rat:dig
    folk: the queen | the court wizard | the armourer | the royal baker | the jester
    treats: roast chestnuts | peacock-shaped cakes | spiced pears | royal jelly tarts | mead for grown-ups and
        milk for heroes
    wishes: crown > rule over the sparrows | sword > fight the thistles | cloak > sweep grandly down the stairs
        | magic mirror > practise funny faces | key > peek behind every door | catapult > fling turnips over the
        moat | lute > sing the baby prince to sleep
    high: on the highest turret | on a gargoyle's nose | on the point of a flagstaff
    deep: the moat | the wishing well | a cauldron of soup
    heavy: the portcullis | a treasure chest | a marble throne
    cracks: an arrow slit | an empty gauntlet | a crack in the dungeon
    soil: the dungeon straw | a hoard of coins | the royal cabbage patch
    guards: a gloomy ogre | a yawning gryphon | a knight with a toothache/knight
    jobs: polish the crown jewels | peel a thousand potatoes | feed the dragons | beat the tapestries
    """,
    """
    places: in an igloo | on a frozen bay | beside a glacier | in a snowed-in cabin/the cabin
    scenes: the northern lights rippled overhead | icicles chimed like glass | snowflakes settled on every
        eyelash | the ice groaned in its sleep | a blizzard howled round the door | sledges hissed over the snow
    animals: penguin:swim | husky:strong | snowy owl/owl:fly | lemming:small | arctic fox/fox:dig | walrus:charm
        | snow leopard/leopard:climb
    folk: the sledge maker | the reindeer herder | the ice fisher | the snow queen | the polar explorer
    treats: hot chocolate | reindeer-milk toffee | cloudberry jam | steaming dumplings | frozen yoghurt
    wishes: scarf > wrap up the snowman | sledge > fly down Bear Hill | feather quilt > sleep like a polar bear
        | fur hat > warm both ears at once | snow globe > shake up a storm | oil lamp > light the long night |
        fishing rod > catch supper through the ice
    high: on an ice cliff | on the mast of an icebound ship | on a frozen waterfall
    deep: a hole in the ice | the freezing bay | a pot of melted snow
    heavy: a block of ice | a capsized sledge | a sleeping walrus's flipper
    cracks: a crevasse | a seal's breathing hole | a stovepipe
    soil: a snowdrift | an avalanche of powder | the frosty gravel
    guards: a moody polar bear | a sniffling yeti | a proud reindeer
    jobs: shovel the snow | comb the huskies | saw blocks of ice | knit forty mittens
    """,
    """
    places: in a striped tent | beside an oasis | among golden dunes/the dunes | in a palm-leaf hut/the hut
    scenes: the sand sang in the heat | a mirage shimmered on the horizon | camels chewed and sighed | date
        palms rattled in the breeze | the sun blazed like a furnace | scorpions tiptoed into the shade
    animals: camel:strong | desert fox/fox:dig | lizard:climb | falcon:fly | cobra:charm | jerboa:small
    folk: the carpet seller | the camel driver | the water carrier | the sultan's cousin | the snake charmer
    treats: sticky dates | mint tea | fig rolls | pistachio sweets | flat bread with honey
    wishes: flying carpet > visit the clouds | lamp > ask a genie riddles | turban > look wise | flask > share
        cool water | camel saddle > ride without wobbling | sandglass > time the beetle races | paper fan > stir
        up a breeze
    high: at the top of a date palm | on a tent pole | on a crumbling minaret
    deep: the oasis | a deep cistern | a jar of olive oil
    heavy: a toppled column | a bundle of carpets | a camel who would not get up
    cracks: a clay jug | a scorpion's burrow | a crack in the temple
    soil: the burning sand | a dune | the dust of the caravan
    guards: a lofty camel | a riddling sphinx | a cranky vulture
    jobs: fetch the water | beat the carpets | brush forty camels | pick the dates
    """,
    """
    places: in a moon base/the base | on a small pink planet/the pink planet | aboard a rattling rocket | inside
        a space station/the station
    scenes: comets fizzed past the window | the robots hummed in tune | earthlight silvered the craters |
        asteroids tumbled by like popcorn | the airlock sneezed | a satellite beeped hello
    animals: robot:strong | space hamster/hamster:small | moth:fly | moon mole/mole:dig | octopus:swim |
        alien:charm | lemur:climb
    folk: the rocket mechanic | the star cartographer | the space pirate | the gravity inspector | the astronaut
    treats: meteor meatballs | moon cheese | freeze-dried jelly | stardust sherbet | toothpaste tubes of trifle
    wishes: jet pack > overtake the comets | bubble gun > surprise the captain | space helmet > hear the stars
        hum | lunar buggy > bounce across the craters | moon guitar > play songs from Earth | jar of starlight >
        sleep without a night light | magnetic boot > dance on the ceiling
    high: on the radio antenna | on a passing asteroid | on the fin of the rocket
    deep: the cooling tank | a bubbling crater lake | a vat of green slime
    heavy: a dented satellite | a fuel drum | a lump of meteorite
    cracks: an air vent | a crack in the control panel | the rocket's exhaust
    soil: the moon dust | a crater full of ash | the cargo foam
    guards: a three-eyed alien | a rusty sentry robot/robot | a homesick moon monster/monster
    jobs: defrost the engine | count the asteroids | mop the airlock | recharge the robots
    """,
    """
    places: in a circus wagon/the wagon | behind a big top/the big top | next to a carousel | in a tent full of
        mirrors/the tent of mirrors
    scenes: acrobats turned somersaults for fun | the brass band tooted | candyfloss drifted by like clouds |
        the tightrope twanged | clowns argued about shoes | coloured bulbs flickered on
    animals: elephant:strong | trapeze monkey/monkey:climb | flea:small | dove:fly | sea lion:swim |
        poodle:charm
    folk: the ringmaster | the strongman | the fortune teller | the juggler | the saddest clown/the clown
    treats: popcorn | toffee apples | candyfloss | hot waffles | roasted peanuts
    wishes: unicycle > ride to the post office | top hat > pull out a rabbit | whistle > start the parade |
        sequinned cape > bow like a star | bass drum > boom at sunrise | trick ladder > climb to nowhere |
        rubber nose > make the grumpy laugh
    high: on the trapeze | on the tip of the big top | on the human cannon
    deep: the sea lion's tank | the dunking tub | a bucket of whitewash
    heavy: the strongman's weights | an elephant's foot | a roll of canvas
    cracks: a clown's shoe | the organ pipes | a hole in the ring
    soil: the sawdust | a mountain of popcorn | the lion's straw
    guards: a touchy lion | a melancholy mime | a bearded lady's llama/llama
    jobs: sweep up the sawdust | iron the costumes | brush the elephants | sell the programmes
    """,
    """
    places: high on a mountain/the mountain | in a stone hut/the hut | beside an eagle's crag/the crag | in a
        cable-car station/the station
    scenes: cowbells clonked on the slopes | echoes answered every sneeze | clouds slid by below the door |
        marmots whistled on the rocks | the glacier glowed at sunrise | gentians opened by the path
    animals: eagle:fly | goat:climb | marmot:dig | yak:strong | beetle:small | saint bernard:charm | trout:swim
    folk: the goatherd | the mountain guide | the hermit | the bell founder | the yodeller
    treats: melted cheese | barley soup | plum dumplings | nut bread | hot elderberry juice
    wishes: alpine horn > wake the echo | walking stick > climb without puffing | climbing rope > reach the
        eagle's nest | knitted hat > keep the clouds off | paper glider > soar over the valley | cuckoo clock >
        know when to yodel | rucksack > carry all the sandwiches
    high: on a dizzy ledge | on the summit cross | on the cable of the lift
    deep: an icy tarn | a mountain torrent | the cattle trough
    heavy: a tumbled rock | a fallen signpost | a snowplough
    cracks: a cleft in the cliff | a marmot's tunnel | a cracked cowbell
    soil: the scree | a bank of old snow | the alpine hay
    guards: a haughty ibex | a hungry troll | a hermit's snappy dog/dog
    jobs: stir the cheese | carry the milk cans | mend the stone wall | ring the bells
    """,
    """
    places: in a bamboo house | on a slow green river/the river | on a jungle island/the island | under a roaring
        waterfall
    scenes: parrots swapped rude words | creepers dripped after the rain | monkeys drummed on coconuts | orchids
        opened with a pop | fireflies winked in the dusk | the volcano burped politely
    animals: monkey:climb | toucan:fly | elephant:strong | tree frog/frog:small | crocodile:swim | armadillo:dig |
        cockatoo:charm
    folk: the canoe builder | the coconut seller | the explorer | the drum maker | the parrot keeper
    treats: fried bananas | coconut cake | mango slices | pineapple punch | sweet potato fritters
    wishes: bongo drum > answer the thunder | canoe > paddle to the next village | spyglass > spot the shy tapirs
        | butterfly mask > dance at the carnival | pretend machete > chop pretend vines | ukulele > serenade the
        hippos | grass skirt > twirl until dizzy
    high: in the crown of a coconut palm | on a rope bridge | on a tangle of vines
    deep: the lagoon | a swamp | the plunge pool
    heavy: a fallen idol | a snoring hippo | a raft of logs
    cracks: a coconut shell | a termite mound | a hollow bamboo
    soil: the ferns | the volcanic ash | a heap of banana skins
    guards: a bossy gorilla | a drowsy python | a vain tiger
    jobs: husk the coconuts | bail out the canoes | plait the ropes | mash the yams
    """,
    """
    places: in a pancake house | on a houseboat | beside a water mill/the mill | at a river market/the market
    scenes: barges slid by like sleepy whales | dragonflies stitched the reeds | the mill wheel grumbled |
        stallholders bellowed about plums | willows trailed their fingers | the ferry bell tinkled
    animals: heron:fly | water rat/rat:small | beaver:strong | duck:swim | goose:charm | mole:dig | raccoon:climb
    folk: the miller | the ferryman | the fishmonger | the pancake cook | the lock keeper
    treats: lemon pancakes | fried trout | cherry pie | pickled cucumbers | fresh rolls
    wishes: paper boat > send messages downstream | fiddle > set the frogs dancing | fishing net > scoop up the
        moon | rolling pin > flatten mountains of dough | wicker basket > bring home the plums | rubber duck >
        have company in the bath | parasol > drift about elegantly
    high: on the mill sail | in the crown of a willow | on the bridge lantern
    deep: the millpond | the weedy lock | a bowl of pancake batter
    heavy: a millstone | a barrel of herrings | a moored barge
    cracks: a gap in the jetty | a bulrush | a teapot spout
    soil: the river mud | a mound of flour | a cart of cabbages
    guards: a surly pike | a rude swan | a stuffy customs officer/officer
    jobs: grind the corn | flip two hundred pancakes | gut the fish | row the ferry
    """,
]

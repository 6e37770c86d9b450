"""What the configuration allows is what the samplers can do: neither may import the other."""

from config.compatibility import CACHES, MODES
from transformerlm.inference.request import ABILITIES


def test_modes_and_caches_of_the_configuration_are_those_of_the_samplers():
    assert {name: set(modes) for name, modes in MODES.items()} == {
        name: set(abilities.modes) for name, abilities in ABILITIES.items()
    }
    for name, caches in CACHES.items():
        assert set(caches) == set(ABILITIES[name].caches)
    assert set(ABILITIES) - set(CACHES) == {"autoregressive"}

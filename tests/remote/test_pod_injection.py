"""Words that try to be code in front of the provider's command line, and in what the provider answers."""

from urllib.parse import parse_qs

import pytest
from injections import INJECTIONS

pytestmark = pytest.mark.remote
REFUSED_HERE = [
    ("pod-up", "gpus={}"),
    ("pod-up", "disk={}"),
    ("pod-config", "pod={}"),
    ("pod-config", "pod=pod1", "wait={}"),
    ("pod-down", "pod={}"),
    ("pod-down", "pod=pod1", "force={}"),
    ("train-then-down", "yes=1", "pod={}"),
    *(("train-then-down", "yes=1", f"{option}={{}}") for option in ("every", "gpus", "master", "port", "force")),
]


@pytest.mark.parametrize("words", REFUSED_HERE, ids=" ".join)
def test_no_parameter_is_run_and_what_cannot_be_right_costs_nothing(laptop, provider, marks, words):
    provider.add_pod("pod1", "mine")
    for number, injection in enumerate(INJECTIONS[::3]):
        word = injection.format(mark=marks / f"{words[0]}-{number}")
        output = laptop.just(*words[:-1], words[-1].format(word), expect=2)
        assert f"error: {words[-1].partition('=')[0]}: " in output
        assert not list(marks.iterdir()), word
    assert not provider.requests, "the provider was not even asked"


@pytest.mark.parametrize("number", [3, 9])
def test_what_goes_to_the_provider_is_data(laptop, provider, marks, number):
    """A word with quotes, and one that looks like an option."""
    word = INJECTIONS[number].format(mark=marks / f"pod-up-{number}")
    laptop.just("pod-up", *(f"{name}={word}" for name in ("gpu_type", "region", "name", "image")), "yes=1")
    query = parse_qs(provider.gets("/api/v1/availability/gpus")[0].query)
    assert [*query.values()].count([word]) == 2, "type and region, as they are"
    [asked] = provider.created
    assert [asked["pod"]["name"], asked["pod"]["image"]] == [word, word]
    assert not list(marks.iterdir())


@pytest.mark.parametrize("form", ["id={}", "spot={}", "yes={}"])
def test_what_is_not_meant_rents_nothing(laptop, provider, marks, form):
    laptop.just("pod-up", form.format(INJECTIONS[0].format(mark=marks / "mark")), expect=2)
    assert not provider.created
    assert not list(marks.iterdir())


@pytest.mark.parametrize(
    "address",
    [
        "root@127.0.0.1 -p 22\n  ProxyCommand touch {mark}",
        "-oProxyCommand=touch {mark}",
        "$(touch {mark})@127.0.0.1",
        "-x",
    ],
)
def test_an_address_that_the_provider_answers_is_data(laptop, provider, marks, address):
    """It becomes a line of an ssh configuration, in which a line more could be a command."""
    provider.add_pod("pod1", "mine")
    provider.address = address.format(mark=marks / "address")
    assert "has an ssh address that this cannot read" in laptop.just("pod-config", "pod=pod1", expect=1)
    assert not (laptop.checkout / "env/ssh_config").exists()
    assert not list(marks.iterdir())


def test_a_pod_that_the_provider_names_is_data(laptop, provider, marks):
    provider.add_pod(f"pod1\n  ProxyCommand touch {marks / 'pod'}", "mine")
    assert "is no id of a pod" in laptop.just("pod-config", expect=2)
    assert not (laptop.checkout / "env/ssh_config").exists()
    assert not list(marks.iterdir())

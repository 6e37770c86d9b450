"""What the sections of the configuration become."""

from cli.build import build_optimizer_settings
from config.sections.optimizer import AdamWSection, MuonSection
from trainkit.training.optim import AdamWSettings, GroupSettings, MuonSettings


def test_muon_groups_take_what_they_do_not_set_from_the_optimizer():
    section = MuonSection(
        name="muon",
        max_learning_rate=0.01,
        weight_decay=0.2,
        muon={"embedding": {"max_learning_rate": 0.03}, "head": {"weight_decay": 0.1}},
    )
    assert build_optimizer_settings(section) == MuonSettings(
        hidden=GroupSettings(0.2, 1.0), embedding=GroupSettings(0.0, 3.0), head=GroupSettings(0.1, 1.0)
    )


def test_a_hidden_group_may_go_without_decay():
    section = MuonSection(
        name="muon", max_learning_rate=0.01, muon={"hidden": {"weight_decay": 0.0, "max_learning_rate": 0.005}}
    )
    assert build_optimizer_settings(section).hidden == GroupSettings(0.0, 0.5)


def test_adamw_has_one_decay_for_matrices():
    section = AdamWSection(name="adamw", max_learning_rate=0.01, weight_decay=0.3, betas=(0.8, 0.9))
    settings = build_optimizer_settings(section)
    assert settings == AdamWSettings(betas=(0.8, 0.9), weight_decay=0.3)
    assert {role: group.weight_decay for role, group in settings.by_role().items()} == {
        "hidden": 0.3, "head": 0.3, "embedding": 0.0, "vector": 0.0,
    }  # fmt: skip

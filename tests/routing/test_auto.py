"""Which models `auto` chooses among, out of those that can be called."""

from farebox.catalog import loader
from farebox.routing.auto import MODELS_PER_TIER, SHIPPED, automatic
from farebox.routing.complexity.weights import TIERS


def test_every_shipped_choice_is_a_model_of_the_catalog() -> None:
    known = {model.slug for model in loader.load()}
    named = [name for names in SHIPPED.values() for name in names]
    assert set(SHIPPED) == set(TIERS)
    assert not [name for name in named if name not in known]


def test_the_first_of_each_list_that_can_be_called() -> None:
    everything = [name for names in SHIPPED.values() for name in names]
    found = automatic(set(everything), everything)
    assert found is not None and found.callable
    assert found.branches == {tier: SHIPPED[tier][:MODELS_PER_TIER] for tier in TIERS}
    one = automatic({"openai/gpt-5.4-nano", "openai/gpt-5.4-mini", "openai/gpt-5.5"}, [])
    assert one is not None
    assert one.branches == {"easy": ("openai/gpt-5.4-nano",), "medium": ("openai/gpt-5.4-mini",), "hard": ("openai/gpt-5.5",)}


def test_a_tier_without_any_takes_a_stronger_one_and_else_a_weaker() -> None:
    found = automatic({"anthropic/claude-haiku-5.5", "anthropic/claude-opus-5.5"}, [])
    assert found is not None
    assert found.branches["medium"] == found.branches["hard"] == ("anthropic/claude-opus-5.5",)
    weak = automatic({"openai/gpt-5.4-nano"}, [])
    assert weak is not None and set(weak.branches.values()) == {("openai/gpt-5.4-nano",)}


def test_models_of_ones_own_are_split_by_price() -> None:
    own = [f"own/{n}" for n in range(9)]
    found = automatic(set(own), own)
    assert found is not None
    assert found.branches["easy"] == ("own/0", "own/1", "own/2")
    assert found.branches["medium"] == ("own/4", "own/5", "own/6")
    assert found.branches["hard"] == ("own/8", "own/7", "own/6")
    alone = automatic({"own/1"}, ["own/1"])
    assert alone is not None and set(alone.branches.values()) == {("own/1",)}
    assert automatic(set(), []) is None

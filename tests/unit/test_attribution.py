"""For whom a call is made, by its headers and its body."""

import json
from typing import Any

import pytest

from farebox.errors import FareboxError
from farebox.gate.attribution import NOBODY, Attribution, attribution, completed
from farebox.wires.anthropic_messages import call as messages_call
from farebox.wires.call import END_USER_CHARS_MAX, TAG_CHARS_MAX, TAGS_MAX, Call
from farebox.wires.dialect import Dialect
from farebox.wires.openai_chat import call as chat_call


def test_nothing_said_is_nobody() -> None:
    assert attribution({}) is NOBODY
    assert attribution({b"x-farebox-end-user": b"", b"x-farebox-tags": b" , ,"}) is NOBODY


@pytest.mark.parametrize("name", ["x-farebox-end-user", "x-litellm-end-user-id", "x-litellm-customer-id", "x-openwebui-user-id"])
def test_clients_say_it_in_their_own_header(name: str) -> None:
    assert attribution({name.encode(): " Zoë ".encode()}) == Attribution("Zoë")


def test_our_own_header_counts_before_others() -> None:
    assert attribution({b"x-openwebui-user-id": b"theirs", b"x-farebox-end-user": b"ours"}).end_user == "ours"


def test_tags_are_a_list_without_repeats() -> None:
    found = attribution({b"x-farebox-tags": b"batch, night,batch", b"x-litellm-tags": b"night,team-a"})
    assert found == Attribution("", ("batch", "night", "team-a"))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("x-farebox-end-user", b"u" * (END_USER_CHARS_MAX + 1), "longer than 512"),
        ("x-litellm-end-user-id", b"\xff\xfe", "not UTF-8"),
        ("x-farebox-tags", b"t" * (TAG_CHARS_MAX + 1), "a tag of more than 64"),
        ("x-farebox-tags", b",".join(b"t%d" % n for n in range(TAGS_MAX + 1)), "more than 16 tags"),
    ],
)
def test_what_is_too_much_is_named(name: str, value: bytes, said: str) -> None:
    with pytest.raises(FareboxError, match=said) as caught:
        attribution({name.encode(): value})
    assert caught.value.status == 400 and caught.value.param == name


def test_the_limits_themselves_are_allowed() -> None:
    most = b",".join(b"%02d" % n + b"t" * (TAG_CHARS_MAX - 2) for n in range(TAGS_MAX))
    found = attribution({b"x-farebox-end-user": b"u" * END_USER_CHARS_MAX, b"x-farebox-tags": most})
    assert len(found.end_user) == END_USER_CHARS_MAX and len(found.tags) == TAGS_MAX


# --- what the body says ------------------------------------------------------------------------------------------------------

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}


def chat(**fields: Any) -> Call:
    return chat_call.read_call(json.dumps({**BODY, **fields}).encode())


def messages(**fields: Any) -> Call:
    return messages_call.read_call(json.dumps({**BODY, **fields}).encode())


def sent_on(call: Call) -> dict[str, Any]:
    if call.wire == chat_call.WIRE:
        return json.loads(chat_call.forward_body(call, model=b'"m"', dialect=Dialect(), output_cap=None))
    return json.loads(messages_call.forward_body(call, model=b'"m"', output_cap=None))


def test_each_surface_has_its_own_field_for_the_end_user() -> None:
    assert chat(user="ann").end_user == "ann" and messages(metadata={"user_id": "ann"}).end_user == "ann"
    assert messages(user="ann").end_user == "" and chat(metadata={"user_id": "ann"}).end_user == ""


@pytest.mark.parametrize("read", [chat, messages])
def test_tags_of_the_body_are_ours_and_stay_here(read: Any) -> None:
    call = read(metadata={"tags": ["night", " batch ", "night", ""], "user_id": "ann"})
    assert call.tags == ("night", "batch")
    assert sent_on(call)["metadata"] == {"user_id": "ann"}, "a provider would refuse a list in its metadata"
    assert "metadata" not in sent_on(read(metadata={"tags": ["night"]}))


def test_words_that_a_provider_may_keep_are_not_tags() -> None:
    call = chat(metadata={"tags": "night,batch", "run": "7"})
    assert call.tags == () and sent_on(call)["metadata"] == {"tags": "night,batch", "run": "7"}
    assert chat(metadata=None).tags == () == chat(metadata={"tags": None}).tags


@pytest.mark.parametrize("read", [chat, messages])
@pytest.mark.parametrize(
    ("tags", "said"),
    [
        (["t" * (TAG_CHARS_MAX + 1)], "a tag of more than 64"),
        ([f"t{n}" for n in range(TAGS_MAX + 1)], "more than 16 tags"),
        ([1], "must be a list of strings"),
        ([["night"]], "must be a list of strings"),
    ],
)
def test_bad_tags_are_named(read: Any, tags: list[Any], said: str) -> None:
    with pytest.raises(FareboxError, match=said) as caught:
        read(metadata={"tags": tags})
    assert caught.value.status == 400 and caught.value.param == "metadata.tags"


@pytest.mark.parametrize(("read", "param"), [(chat, "user"), (messages, "metadata.user_id")])
def test_a_long_end_user_is_named(read: Any, param: str) -> None:
    name = "u" * END_USER_CHARS_MAX
    for value, fine in ((name, True), (name + "u", False)):
        fields = {"user": value} if param == "user" else {"metadata": {"user_id": value}}
        if fine:
            assert read(**fields).end_user == value
            continue
        with pytest.raises(FareboxError, match="longer than 512") as caught:
            read(**fields)
        assert caught.value.param == param


def test_the_body_completes_the_headers() -> None:
    whom = Attribution("from-header", ("a", "b"))
    assert completed(whom, "", ()) is whom
    assert completed(whom, "ann", ("b", "c")) == Attribution("ann", ("a", "b", "c"))
    assert completed(whom, "", ("c",)).end_user == "from-header"
    with pytest.raises(FareboxError, match="more than 16 tags, with those of the headers"):
        completed(whom, "", tuple(f"t{n}" for n in range(TAGS_MAX - 1)))

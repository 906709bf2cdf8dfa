"""For whom a call is made, by its headers."""

import pytest

from farebox.errors import FareboxError
from farebox.gate.attribution import END_USER_CHARS_MAX, NOBODY, TAG_CHARS_MAX, TAGS_MAX, Attribution, attribution


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
        ("x-farebox-end-user", b"u" * (END_USER_CHARS_MAX + 1), "longer than 256"),
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

"""Attribution: for whom a call is made and what it is filed under, as its headers and its body say. Pure.

The names are those of the clients that send them (compat.md §2, clients.md §1): ours, LiteLLM's, Open WebUI's.
"""

from collections.abc import Mapping

import msgspec

from farebox.errors import invalid
from farebox.wires.call import END_USER_CHARS_MAX, TAG_CHARS_MAX, TAGS_MAX

END_USER_HEADERS = (
    b"x-farebox-end-user", b"x-litellm-end-user-id", b"x-litellm-customer-id", b"x-openwebui-user-email", b"x-openwebui-user-id",
)  # fmt: skip
"""The first that is there counts."""
TAG_HEADERS = (b"x-farebox-tags", b"x-litellm-tags")


class Attribution(msgspec.Struct, frozen=True):
    """Free text of the client's own."""

    end_user: str = ""
    tags: tuple[str, ...] = ()
    """Each once, in the order in which they were sent."""


NOBODY = Attribution()


def attribution(headers: Mapping[bytes, bytes]) -> Attribution:
    """What the headers say. `FareboxError` (400) names the header that is too long or says what cannot be."""
    end_user = ""
    for name in END_USER_HEADERS:
        value = headers.get(name)
        if value:
            end_user = _text(name, value)
            if len(end_user) > END_USER_CHARS_MAX:
                raise invalid(f"`{name.decode()}` is longer than {END_USER_CHARS_MAX} characters", param=name.decode())
            break
    tags: dict[str, None] = {}
    for name in TAG_HEADERS:
        value = headers.get(name)
        if value is None:
            continue
        for part in _text(name, value).split(","):
            tag = part.strip()
            if len(tag) > TAG_CHARS_MAX:
                raise invalid(
                    f"`{name.decode()}` has a tag of more than {TAG_CHARS_MAX} characters: `{tag[:TAG_CHARS_MAX]}…`",
                    param=name.decode(),
                )
            if tag:
                tags[tag] = None
        if len(tags) > TAGS_MAX:
            raise invalid(f"`{name.decode()}` has more than {TAGS_MAX} tags", param=name.decode())
    if not end_user and not tags:
        return NOBODY
    return Attribution(end_user, tuple(tags))


def completed(whom: Attribution, end_user: str, tags: tuple[str, ...]) -> Attribution:
    """What the headers say, completed by the body: its end user counts before that of a header that the client sends with every
    call; its tags come on top."""
    if not end_user and not tags:
        return whom
    merged = tuple(dict.fromkeys((*whom.tags, *tags)))
    if len(merged) > TAGS_MAX:
        raise invalid(f"`metadata.tags` makes more than {TAGS_MAX} tags, with those of the headers", param="metadata.tags")
    return Attribution(end_user or whom.end_user, merged)


def tagged(whom: Attribution, tags: tuple[str, ...]) -> Attribution:
    """The same with the tags that a key puts on each of its calls."""
    merged = tuple(dict.fromkeys((*tags, *whom.tags)))
    if len(merged) > TAGS_MAX:
        raise invalid(
            f"the call has {len(merged)} tags with the {len(tags)} of its API key, and at most {TAGS_MAX} are kept; send fewer"
        )
    return Attribution(whom.end_user, merged)


def _text(name: bytes, value: bytes) -> str:
    try:
        return value.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise invalid(f"`{name.decode()}` is not UTF-8", param=name.decode()) from None

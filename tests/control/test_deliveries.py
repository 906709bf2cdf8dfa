"""Deliveries: every message to every channel that wants it, tried again when it fails, given up in the end, never made twice."""

import email
import json

import msgspec
import pytest
from sqlalchemy import select
from tests.support.receiver import MailServer, Receiver, verify

from farebox.billing.books import customers
from farebox.billing.books.customers import CommandRefused
from farebox.billing.books.outbox import Message, put
from farebox.config.control import SmtpSection
from farebox.control import channels, deliveries
from farebox.control.channels import Channel, ChannelError
from farebox.control.courier import Courier
from farebox.control.senders import Senders
from farebox.control.signing import secret_text
from farebox.ports import TimeOrderedIds
from farebox.storage.database import Database
from farebox.storage.tables import outbox

PEPPER = b"pepper" * 6
RETRIES_S = (5, 300, 1_800)
START_US = 1_795_392_000_000_000
PAYLOAD = {"scope": "key:key-1:2026-11-23", "limit_nano": 5_000_000_000, "posted_nano": 4_000_000_001, "percent": 80}


class Clock:
    def __init__(self):
        self.us = START_US

    def now_us(self):
        return self.us

    def monotonic_us(self):
        return self.us


class NoChance:
    def uniform(self):
        return 0.0


class Desk:
    """A database, a courier, a clock."""

    def __init__(self, url, *, allow_private=True, smtp=None):
        self.clock = Clock()
        self.ids = TimeOrderedIds(self.clock)
        self.database = Database.open(url)
        self.senders = Senders(self.clock, smtp=smtp, allow_private=allow_private)
        self.configured: list[Channel] = []
        self.visits: list[str] = []
        self.courier = Courier(
            self.database, self.senders, self.clock, NoChance(), find_channels=self.channels, retries_s=RETRIES_S,
            fail_point=self.visits.append,
        )  # fmt: skip

    def channels(self):
        return [*self.configured, *self.database.read(lambda c: channels.stored(c, PEPPER, self.clock.us))]

    def account(self, name="acme"):
        account = self.ids.new("acc")
        customers.create_account(self.database, id=account, name=name, kind="prepaid", now_us=self.clock.us)
        return account

    def add(self, target, *, kind="webhook", account=None, events=()):
        made = channels.add_channel(
            self.database, self.ids, kind=kind, target=target, account_id=account, events=events, allow_private=True,
            now_us=self.clock.us,
        )  # fmt: skip
        return next(channel for channel in self.channels() if channel.id == made)

    def say(self, kind="budget_threshold", account="acc-none", subject="key:key-1:2026-11-23", **more):
        payload = PAYLOAD | {"account": account} | more
        message = Message(kind, subject, payload, "2026-11-23", more.get("percent", 80))
        self.database.write(lambda connection: put(self.database, connection, self.ids, [message], self.clock.us))

    def listed(self):
        return self.database.read(deliveries.listed)

    async def rounds(self, count=3):
        for _ in range(count):
            await self.courier.round()


@pytest.fixture
async def desk(database_url):
    made = Desk(database_url)
    yield made
    await made.senders.close()
    made.database.close()


async def test_a_webhook_arrives_signed(desk):
    account = desk.account()
    with Receiver() as receiver:
        channel = desk.add(receiver.url("/hook?from=farebox"), account=account)
        desk.say(account=account)
        await desk.rounds()
        (request,) = receiver.requests
    verify(secret_text(channel.secrets[0]), request)
    assert request.path == "/hook?from=farebox" and request.headers["content-type"] == "application/json"
    (row,) = desk.database.read(lambda connection: connection.execute(select(outbox)).all())
    assert request.headers["webhook-id"] == row.id
    assert json.loads(request.body) == {
        "type": "budget.threshold",
        "id": row.id,
        "timestamp": "2026-11-23T00:00:00Z",
        "data": {
            "scope": "key:key-1:2026-11-23", "limit_usd": "5.00", "posted_usd": "4.000000001", "percent": 80, "account": account,
            "account_name": "acme", "window": "2026-11-23",
        },
    }  # fmt: skip
    (one,) = desk.listed()
    assert (one.state, one.attempts, one.status) == ("delivered", 1, 200)


async def test_a_receiver_that_fails_is_tried_again_then_given_up_and_can_be_asked_for_again(desk):
    with Receiver() as receiver:
        desk.add(receiver.url())
        desk.say()
        receiver.answers = [500, 0, 302, 404]
        await desk.rounds()
        assert len(receiver.requests) == 1, "the next try is in five seconds"
        for number, pause_s in enumerate(RETRIES_S, 1):
            desk.clock.us += pause_s * 1_000_000 - 1
            await desk.rounds()
            assert len(receiver.requests) == number
            desk.clock.us += 1
            await desk.rounds()
            assert len(receiver.requests) == number + 1
        (dead,) = desk.listed()
        assert (dead.state, dead.attempts, dead.status) == ("dead", 4, 404)
        desk.clock.us += 86_400_000_000
        await desk.rounds()
        assert len(receiver.requests) == 4, "dead is dead"
        assert deliveries.redeliver(desk.database, delivery_id=None, now_us=desk.clock.us) == 1
        await desk.rounds()
        assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1
        assert len({request.headers["webhook-timestamp"] for request in receiver.requests}) == 5, "each try has its own time"
        (one,) = desk.listed()
        assert (one.state, one.attempts, one.error) == ("delivered", 1, "")


async def test_a_receiver_may_ask_for_more_time_or_for_none_at_all(desk):
    with Receiver() as receiver:
        desk.add(receiver.url())
        receiver.headers = {"retry-after": "600"}
        receiver.answers = [429, 410]
        desk.say()
        await desk.rounds()
        desk.clock.us += 599_000_000
        await desk.rounds()
        assert len(receiver.requests) == 1
        desk.clock.us += 1_000_000
        await desk.rounds()
        (one,) = desk.listed()
        assert len(receiver.requests) == 2 and one.state == "dead", "410: gone for good"


async def test_who_is_told_of_what(desk):
    mine, other = desk.account("mine"), desk.account("other")
    with Receiver() as receiver:
        desk.add(receiver.url("/mine"), account=mine)
        desk.add(receiver.url("/mine-low"), account=mine, events=("balance.low",))
        desk.add(receiver.url("/other"), account=other)
        desk.configured = [Channel("config:ops", "webhook", receiver.url("/ops"), secrets=(bytes(32),))]
        desk.say(account=mine)
        desk.say("settle_refused", account=mine, subject="gen-1", hold="gen-1", reason="its hold is settled already", record="{}")
        desk.say("low_balance", account=other, left_nano=1, below_nano=2)
        desk.say("of_a_later_version", account=mine)
        await desk.rounds(4)
        told = sorted((request.path, json.loads(request.body)["type"]) for request in receiver.requests)
    assert told == [
        ("/mine", "budget.threshold"), ("/ops", "balance.low"), ("/ops", "books.settle_refused"), ("/ops", "budget.threshold"),
        ("/other", "balance.low"),
    ]  # fmt: skip
    assert all(b"record" not in request.body for request in receiver.requests)


async def test_a_sender_that_died_is_followed_by_another(desk):
    """Claimed and perhaps sent, but nobody wrote down how it ended: after the lease it is tried again under the same id."""
    with Receiver() as receiver:
        desk.add(receiver.url())
        desk.say()
        deliveries.route(desk.database, desk.channels(), desk.clock.us)
        (due,) = deliveries.claim(desk.database, desk.clock.us)
        assert deliveries.claim(desk.database, desk.clock.us) == []
        await desk.rounds()
        assert receiver.requests == []
        desk.clock.us += deliveries.LEASE_US
        await desk.rounds()
        assert [request.headers["webhook-id"] for request in receiver.requests] == [due.letter.id]
        deliveries.failed(desk.database, due, 500, "late news", None, desk.clock.us)
        assert desk.listed()[0].state == "delivered", "the one before has nothing to say any more"


async def test_a_channel_that_hangs_does_not_keep_others_waiting(desk):
    with Receiver() as receiver:
        desk.add(receiver.url("/busy"), events=("budget.threshold",))
        desk.add(receiver.url("/calm"), events=("balance.low",))
        for number in range(30):
            desk.say(percent=number)
        desk.clock.us += 1
        desk.say("low_balance", left_nano=1, below_nano=2)
        await desk.courier.round()
        paths = [request.path for request in receiver.requests]
        assert paths.count("/busy") == deliveries.CLAIMED_PER_CHANNEL and paths.count("/calm") == 1
        await desk.rounds(20)
        assert len(receiver.requests) == 31


async def test_a_removed_channel_gets_nothing_more(desk):
    with Receiver() as receiver:
        channel = desk.add(receiver.url())
        receiver.answers = [500]
        desk.say()
        await desk.rounds()
        channels.remove_channel(desk.database, channel.id, now_us=desk.clock.us)
        desk.clock.us += 10_000_000
        await desk.rounds()
        assert len(receiver.requests) == 1
        (one,) = desk.listed()
        assert (one.state, one.error) == ("dead", "its channel was removed")
        with pytest.raises(CommandRefused):
            channels.remove_channel(desk.database, channel.id, now_us=desk.clock.us)


async def test_a_rotated_secret_overlaps_for_a_day(desk):
    with Receiver() as receiver:
        old = desk.add(receiver.url())
        channels.rotate_secret(desk.database, old.id, now_us=desk.clock.us)
        (new,) = desk.channels()
        assert len(new.secrets) == 2 and new.secrets[1] == old.secrets[0]
        desk.say()
        await desk.rounds()
        for secret in new.secrets:
            verify(secret_text(secret), receiver.requests[0])
        desk.clock.us += channels.ROTATION_US
        assert desk.channels()[0].secrets == new.secrets[:1]


async def test_a_slack_message_is_a_sentence_without_mentions(desk):
    account = desk.account("<!channel> & co")
    with Receiver() as receiver:
        desk.add(receiver.url("/services/T0/B0/x"), kind="slack", account=account)
        desk.say(account=account)
        await desk.rounds()
        (request,) = receiver.requests
    assert json.loads(request.body) == {
        "text": "Key:key-1:2026-11-23 of &lt;!channel&gt; &amp; co has spent 80% of its budget: $4.000000001 of $5.00."
    }
    assert "webhook-signature" not in request.headers


async def test_mail(database_url):
    with MailServer() as server:
        smtp = SmtpSection(host="127.0.0.1", port=server.port, security="none", sender="bill@example.com")
        desk = Desk(database_url, smtp=smtp)
        account = desk.account()
        desk.add("ops@example.com", kind="email", account=account)
        desk.say(account=account, scope="key:key-1\r\nBcc: x@example.com")
        server.refuse = True
        await desk.rounds()
        assert [one.status for one in desk.listed()] == [451] and not server.mails
        server.refuse = False
        desk.clock.us += 5_000_000
        await desk.rounds()
        ((sender, recipient, text),) = server.mails
        await desk.senders.close()
        desk.database.close()
    assert "bill@example.com" in sender and "ops@example.com" in recipient
    parsed = email.message_from_string(text)
    assert parsed["Message-ID"].startswith("<msg-") and parsed["Bcc"] is None
    assert "80% of its budget" in " ".join(parsed["Subject"].split())
    assert "limit_usd: 5.00" in text


async def test_private_addresses_are_refused(database_url):
    """SSRF: also by a name that resolves to one; the connection goes to the address that was checked."""
    desk = Desk(database_url, allow_private=False)
    with Receiver() as receiver:
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"):
            desk.configured.append(
                Channel(f"config:{host}", "webhook", f"http://{host}:{receiver.port}/", secrets=(bytes(32),))
            )
        desk.say()
        await desk.rounds()
        assert receiver.requests == []
    found = desk.listed()
    assert len(found) == 4 and all("must not be reached" in one.error for one in found), [one.error for one in found]
    await desk.senders.close()
    desk.database.close()


@pytest.mark.parametrize(
    ("kind", "target", "problem"),
    [
        ("webhook", "http://example.com/", "https"),
        ("webhook", "ftp://example.com/", "https"),
        ("slack", "https://user:pw@example.com/", "user name"),
        ("webhook", "https://example.com/#x", "fragment"),
        ("email", "nobody", "mail address"),
        ("email", "a@b.c\r\nBcc: d@e.f", "mail address"),
    ],
)
def test_targets_that_cannot_be(kind, target, problem):
    with pytest.raises(ChannelError, match=problem):
        channels.check_channel(kind, target, (), allow_private=False)


def test_unknown_events_are_refused():
    with pytest.raises(ChannelError, match=r"balance\.low"):
        channels.check_channel("email", "a@example.com", ("balance.lo",), allow_private=False)


async def test_channels_of_an_owner_are_bounded(desk):
    account = desk.account()
    for number in range(channels.CHANNELS_PER_OWNER_MAX):
        desk.add(f"https://example.com/{number}", account=account)
    with pytest.raises(CommandRefused, match="remove one"):
        desk.add("https://example.com/more", account=account)
    desk.add("https://example.com/operator")


def test_what_is_shown_of_a_target_is_no_credential():
    assert Channel("ch-1", "slack", "https://hooks.slack.com/services/T0/B0/secret").shown_target == "https://hooks.slack.com/…"


async def test_old_deliveries_are_forgotten_and_messages_are_not(desk):
    with Receiver() as receiver:
        desk.add(receiver.url())
        desk.say()
        await desk.rounds()
        deliveries.forget(desk.database, desk.clock.us + deliveries.KEPT_US)
        assert len(desk.listed()) == 1
        deliveries.forget(desk.database, desk.clock.us + deliveries.KEPT_US + 1)
        assert desk.listed() == []
        desk.say()
        await desk.rounds()
        assert len(receiver.requests) == 1, "the same condition is told once"


def test_a_letter_is_small():
    from farebox.control.messages import BODY_BYTES_MAX, body, letter

    made = letter(
        message_id="msg-1", kind="settle_refused", payload={"hold": "gen-1", "reason": "x" * 10**6, "record": "y" * 10**6},
        window="", created_at="2026-11-23T00:00:00Z", names={},
    )  # fmt: skip
    assert len(body(made)) < BODY_BYTES_MAX
    assert msgspec.json.decode(body(made))["data"].keys() == {"hold", "reason"}

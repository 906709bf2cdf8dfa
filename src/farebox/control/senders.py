"""How: one try to tell one channel.

Webhooks go through the transport client, with an address check between the name's look-up and the connection, no redirects, no
proxy, bounded time and answer. Mail goes over SMTP, in a thread, to the one server that the configuration names.
"""

import asyncio
import smtplib
import ssl
from typing import Literal, Protocol

import msgspec

from farebox.control.addresses import is_public
from farebox.control.channels import Channel
from farebox.control.messages import Letter, body, mail, slack_body
from farebox.control.signing import signed_headers
from farebox.ports import Clock
from farebox.transport import Client, Origin, PoolLimits, Timeouts, TransportError, prepare

TRY_S = 20.0
"""A try as a whole; Standard Webhooks asks for 15 to 30 seconds."""
_TIMEOUTS = Timeouts(connect_s=5.0, tls_s=5.0, headers_s=15.0, chunk_s=5.0, total_s=TRY_S)
ANSWER_BYTES_MAX = 16 * 1024
RETRY_AFTER_S_MAX = 86_400
GONE = 410
"""The receiver wants no more of this message."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of a try."""

    ok: bool
    status: int | None = None
    error: str = ""
    retry_after_s: int | None = None
    final: bool = False
    """Trying again is pointless."""


class SmtpSettings(Protocol):
    """`[alerts.smtp]`."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def security(self) -> Literal["starttls", "tls", "none"]: ...
    @property
    def user(self) -> str: ...
    @property
    def password(self) -> str: ...
    @property
    def sender(self) -> str: ...
    @property
    def ca_file(self) -> str | None: ...


class Senders:
    """Made and used on one running event loop."""

    def __init__(self, clock: Clock, *, smtp: SmtpSettings | None, allow_private: bool) -> None:
        self._clock = clock
        self._smtp = smtp
        self._client = Client(
            limits=PoolLimits(connections_per_origin_max=4, idle_per_origin_max=1, waiters_per_origin_max=64),
            may_connect=None if allow_private else is_public,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def send(self, channel: Channel, letter: Letter) -> Outcome:
        """One try. Never raises for what the receiver or the network does."""
        try:
            if channel.kind == "email":
                return await asyncio.to_thread(self._mail, channel, letter)
            return await self._post(channel, letter)
        except TransportError as error:
            return Outcome(False, error=str(error))
        except (OSError, smtplib.SMTPException, ValueError) as error:
            return Outcome(False, error=f"{type(error).__name__}: {error}")

    async def _post(self, channel: Channel, letter: Letter) -> Outcome:
        headers = [("content-type", "application/json"), ("user-agent", "farebox")]
        if channel.kind == "slack":
            data = slack_body(letter)
        else:
            data = body(letter)
            headers += signed_headers(letter.id, data, channel.secrets, self._clock.now_us() // 1_000_000)
        origin, path = Origin.parse(channel.target)
        target = path if path.startswith("/") else f"/{path}"
        response = await self._client.send(prepare(origin, "POST", target, headers), data, timeouts=_TIMEOUTS)
        try:
            # Read, so that the connection can be used again; what it says is nobody's business.
            await response.read(ANSWER_BYTES_MAX)
        except TransportError:
            pass
        finally:
            response.close()
        if 200 <= response.status < 300:
            return Outcome(True, response.status)
        after = (response.header(b"retry-after") or b"").strip()
        wait_s = min(int(after), RETRY_AFTER_S_MAX) if after.isdigit() and len(after) < 9 else None
        said = f"the receiver answered {response.status}"
        return Outcome(False, response.status, said, wait_s, final=response.status == GONE)

    def _mail(self, channel: Channel, letter: Letter) -> Outcome:
        smtp = self._smtp
        if smtp is None:
            return Outcome(False, error="`[alerts.smtp]` is not configured", final=True)
        context = ssl.create_default_context(cafile=smtp.ca_file)
        made = mail(letter, sender=smtp.sender, recipient=channel.target)
        connect = smtplib.SMTP_SSL(smtp.host, smtp.port, timeout=TRY_S, context=context) if smtp.security == "tls" else None
        with connect or smtplib.SMTP(smtp.host, smtp.port, timeout=TRY_S) as server:
            if smtp.security == "starttls":
                server.starttls(context=context)
            if smtp.user:
                server.login(smtp.user, smtp.password)
            try:
                server.send_message(made)
            except smtplib.SMTPResponseException as error:
                said = str(error.smtp_error)
                return Outcome(False, error.smtp_code, f"the mail server answered {error.smtp_code} {said}")
        return Outcome(True)

"""What is never sent to an offer because nobody would know what it costs: tools that the provider runs on its side. Pure.

Allowed is what the provider's row lists (free beside its tokens, or in the charge that it reports), what the operator accepts
(`uncounted_tools`), and a search where the offer has a price for it. Anything else has no price here, and what has no price
is never sent. On the operator's own machines nobody bills, and with a key of the caller's own the provider bills the caller.
"""

import re
from fnmatch import fnmatchcase

from farebox.billing.quotes import Quote
from farebox.catalog.price import Rates
from farebox.routing.own_keys import is_own
from farebox.routing.target import Target
from farebox.wires.call import Call
from farebox.wires.hosted import HostedTool


def refused(call: Call, target: Target, quoted: Quote) -> tuple[str, str] | None:
    """The field by which the call asks for a tool without a price and why that is not sent, or None."""
    if not call.hosted or _nobody_asks(target):
        return None
    gateway = target.speaks.dialect.extensions and target.wire == "openai_chat"
    for tool in call.hosted:
        # On another wire, a tool of this one is refused or left out by the translation.
        sent = gateway if tool.gateway else target.wire == call.wire
        if not sent:
            continue
        if not _allowed(tool.name, target) and not (tool.search and _search_is_priced(target, quoted.schedule.rates)):
            return tool.path, _reason(tool, target)
    return None


def acts_alone(target: Target, quoted: Quote) -> tuple[str, str] | None:
    """The same for a model that runs tools whether it is asked to or not: then each request has to have a price."""
    agents = target.speaks.dialect.agents
    if agents is None or quoted.schedule.rates.request or _nobody_asks(target):
        return None
    name = target.offer.id
    if re.fullmatch(agents, name) is None or _allowed(name, target):
        return None
    provider = target.provider
    return "price.request", (
        f"`{name}` runs tools by itself, which {provider.title} bills by the use and does not count in its report, so it has no "
        f"price here; call another model, or let the operator give its offer a fee per `request`, or accept it in "
        f"`providers.{provider.name}.uncounted_tools`"
    )


def _nobody_asks(target: Target) -> bool:
    return target.provider.kind == "local" or is_own(target)


def _allowed(name: str, target: Target) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in target.speaks.dialect.hosted_tools)


def _search_is_priced(target: Target, rates: Rates) -> bool:
    return (
        target.provider.charges_by_reported_cost or rates.request > 0 or (rates.web_searches > 0 and _counts_searches(target))
    )


def _counts_searches(target: Target) -> bool:
    """On chat completions none of the known vendors does, except for the one that reports its whole charge. A provider of the
    operator's own may be a gateway that does, as this one."""
    return target.wire == "anthropic_messages" or target.provider.kind == "custom"


def _reason(tool: HostedTool, target: Target) -> str:
    provider = target.provider
    said = f"`{tool.path}` is `{tool.shown}`" if tool.shown else f"`{tool.path}`"
    if tool.search:
        why, fee = "searches without a price here", "web_search" if _counts_searches(target) else "request"
        remedy = f"give its offer a fee per `{fee}`, or accept it"
    else:
        why, remedy = "a tool without a price here: nothing that it reports counts the uses that it bills", "accept it"
    return (
        f"{said}, which has {provider.title} run {why}; remove it, call another model, or let the operator {remedy} in "
        f"`providers.{provider.name}.uncounted_tools`"
    )

"""What `tradeskill doctor` says of a relay: whether it is one of ours, what that means for its user, and how far its clock is off."""

from __future__ import annotations

from collections.abc import Mapping

from tradeskill.errors import TradeskillError, UnavailableError
from tradeskill.model import Json
from tradeskill.world import World
from tradeskill_plugins.relay.client.failures import date_ms, shown
from tradeskill_plugins.relay.client.settings import Settings
from tradeskill_plugins.relay.client.transport import Transport
from tradeskill_plugins.relay.signed_http import MAX_SKEW

__all__ = ["examined"]


async def examined(transport: Transport, settings: Settings, world: World) -> str:
    """One line. UnavailableError where it does not answer, or where the clocks are too far apart for signed requests."""
    began = world.now_ms()
    answer: Mapping[str, Json] = {}
    headers: Mapping[str, str] = {}
    try:
        said = await transport.ask("/v1/capabilities", signed=False)
        answer, headers = said.value, said.headers
    except UnavailableError:
        raise
    except TradeskillError:  # it knows no such call
        began = world.now_ms()
        headers = (await transport.ask("/v1/offers?limit=1", signed=False)).headers
    here = (began + world.now_ms()) / 2
    ours, time_ms, date = answer.get("tradeskill") == 1, answer.get("time_ms"), date_ms(headers)
    what = _ours(answer) if ours else _other(settings)
    if ours and type(time_ms) is int:
        return f"{settings.url} is {what}; {_clock((time_ms - here) / 1000, exact=True)}"
    if date is None:
        return f"{settings.url} is {what}; it does not say what time it is"
    return f"{settings.url} is {what}; {_clock((date + 500 - here) / 1000, exact=False)}"  # the header's seconds are cut


def _ours(answer: Mapping[str, Json]) -> str:
    network = answer.get("network")
    limits = answer.get("limits")
    per_key = limits.get("key") if isinstance(limits, dict) else None
    pace = f"{per_key} requests a minute and key" if type(per_key) is int else "no limit on requests"
    return f"one of ours (relay {shown(answer.get('relay_id'))[:16]}, network {shown(network) or 'any'}, {pace})"


def _other(settings: Settings) -> str:
    allowed = f"market.allow says {', '.join(sorted(settings.allow))}" if settings.allow else "market.allow says nothing, so offers stay unpublished there"
    return f"a relay without our additions (no fence, no decline, small results only; {allowed})"


def _clock(ahead: float, *, exact: bool) -> str:
    """`ahead`: seconds by which the relay's clock is ahead of this machine's."""
    way = "ahead of" if ahead > 0 else "behind"
    if abs(ahead) > MAX_SKEW:
        raise UnavailableError(f"the relay's clock is {abs(ahead):.0f} s {way} this machine's, {MAX_SKEW} at most may be between them: set the clock")
    if not exact and abs(ahead) < 1.5:
        return "its clock agrees with this machine's to the second"
    return f"its clock is {abs(ahead) * 1000:.0f} ms {way} this machine's" if abs(ahead) < 1 else f"its clock is {abs(ahead):.0f} s {way} this machine's"

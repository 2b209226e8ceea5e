"""How many servers a rate takes, and what they cost, from what one server was measured to bear."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from triptych.measure.capacity import Capacity


@dataclass(frozen=True)
class Needs:
    """What is asked for.

    Attributes:
        rate_per_s: images a second.
        p95_ms: what their 95th percentile may be.
        headroom: the share of what a server bears that stays free, 0..1.
        spare: servers beyond those that the rate takes.
        price_per_hour: of one server, in any currency; None if it is not asked.
    """

    rate_per_s: float
    p95_ms: float
    headroom: float = 0.2
    spare: int = 0
    price_per_hour: float | None = None


@dataclass(frozen=True)
class Plan:
    """How many servers, and what follows from that.

    Attributes:
        needs: what was asked for.
        capacity: what one server bears.
        servers: how many, the spare ones among them.
        planned_per_s: images a second that one of them is meant for.
        utilisation: the share of what they bear that the rate takes, 0..1.
        utilisation_with_one_lost: the same when one of them is gone; None if there is only one.
        scale_at_inflight: requests in a server at a time, on average, at which another one is needed.
        cost_per_hour, cost_per_million_images: None without a price.
        assumptions: what else must hold, in sentences.
    """

    needs: Needs
    capacity: Capacity
    servers: int
    planned_per_s: float
    utilisation: float
    utilisation_with_one_lost: float | None
    scale_at_inflight: float
    cost_per_hour: float | None
    cost_per_million_images: float | None
    assumptions: list[str] = field(default_factory=list)


def plan(needs: Needs, capacity: Capacity) -> Plan:
    """Return how many servers like the measured one a rate takes."""
    free = 1 - needs.headroom
    planned_per_s = free * capacity.images_per_s
    servers = math.ceil(needs.rate_per_s / planned_per_s) + needs.spare
    whole = needs.rate_per_s / capacity.images_per_s
    cost = servers * needs.price_per_hour if needs.price_per_hour is not None else None
    return Plan(
        needs,
        capacity,
        servers,
        planned_per_s,
        utilisation=whole / servers,
        utilisation_with_one_lost=whole / (servers - 1) if servers > 1 else None,
        scale_at_inflight=free * capacity.inflight,
        cost_per_hour=cost,
        cost_per_million_images=cost / (needs.rate_per_s * 3600) * 1e6 if cost is not None else None,
        assumptions=list(_assumptions(needs, capacity)),
    )


def _assumptions(needs: Needs, capacity: Capacity) -> Iterator[str]:
    yield "every server is like the measured one: its machine, its detector, its settings, its images"
    yield "requests are spread evenly over them, and the way to them takes no longer than in the measurement"
    if capacity.closed:
        yield (
            "requests come as evenly as from users that wait for their answers; what comes by itself comes in bursts "
            "and waits longer, and `triptych sweep --rates` measures that"
        )
    if capacity.gpus:
        yield f"the measured server used all GPUs of its machine ({', '.join(capacity.gpus)})"
    if needs.price_per_hour is not None:
        yield "the rate holds at every hour that is paid for"


def sentences(plan: Plan) -> list[str]:
    """Return a plan in sentences, the answer first."""
    needs, capacity = plan.needs, plan.capacity
    spare = f", {needs.spare} of them spare" if needs.spare else ""
    gpus = len(capacity.gpus) * plan.servers
    many = f"{plan.servers} server{'s' if plan.servers > 1 else ''}{spare}"
    lines = [
        f"{many}{f' ({gpus} GPUs)' if gpus > 1 else ''} for {needs.rate_per_s:g} images/s at a p95 of "
        f"{needs.p95_ms:g} ms",
        f"one bears {capacity.images_per_s:.1f} images/s at a p95 of {capacity.p95_ms:.1f} ms, with {capacity.at}; it "
        f"is planned for {plan.planned_per_s:.1f}, so that {needs.headroom:.0%} stay free",
    ]
    if plan.utilisation_with_one_lost is None:
        lines.append(f"it is used to {plan.utilisation:.0%}, and nothing answers when it is lost: --spare 1")
    else:
        lost = plan.utilisation_with_one_lost
        verdict = "" if lost <= 1 else ", which is more than they bear within the p95: --spare 1"
        lines.append(f"they are used to {plan.utilisation:.0%}, and to {lost:.0%} when one is lost{verdict}")
    if plan.cost_per_hour is not None:
        million = f"{plan.cost_per_million_images:,.2f} for a million images"
        lines.append(f"that costs {plan.cost_per_hour:,.2f} an hour, and {million}")
    lines.append(
        f"another server is needed at {plan.scale_at_inflight:.2g} requests in each of them, waiting or worked on"
    )
    return lines

"""The sentences of a report: what was found in one line, how it was measured, and what was left out."""

from typing import Final

from .bars import MET, NOT_MEASURED, NOT_MET, judge
from .figures import FIRST, added, against, figure, latency, level, main_setting, server_cpu
from .numbers import duration, micros, times
from .records import Env, Missing, Records, Run
from .servers import FLOOR, OURS, named, ordered
from .tables import setting_name

HOW: Final = (
    "Every ratio and every difference is taken within a round, against the relay, nginx, the peer or the engine itself "
    "of the same round; what is shown is the median over the rounds, and in brackets the lowest and the highest round. "
    "CPU is user and system time of the server's process and its children."
)
LATENCY: Final = (
    "Transit is the time from the engine writing a token to the client having it; what a server adds is that minus the "
    "same percentile of the engine asked directly in the same round. A tail of the whole machine is in both."
)
MICRO: Final = (
    "How many times its floor an operation costs. To the left of the dashed line is cheaper "
    "than the floor; an upright stroke is the operation's bar; what is past it is red."
)


def finding(records: Records) -> str:
    """What a token costs through us when it is paced, as far as it was measured."""
    setting = main_setting(records, "paced")
    cost = level(records, setting, OURS, server_cpu) if setting else None
    if setting is None or cost is None:
        return "What a token costs through a proxied stream was not measured."
    ratio = against(records, setting, OURS, FLOOR, server_cpu)
    more = added(records, setting, OURS, latency("transit", "p50"))
    beside = f", {times(ratio.median)} what a byte relay takes" if ratio else ""
    later = f" Its added latency is {duration(more.median)} (p50)." if more else ""
    who = f"A token through this service takes {micros(cost.median)} of CPU{beside} ({setting_name(setting)})"
    return f"{who}.{later}"


def count(records: Records) -> str:
    """How many bars became what."""
    states = [item.state for item in judge(records)]
    numbers = {state: states.count(state) for state in (MET, NOT_MET, NOT_MEASURED)}
    return f"{len(states)} bars: " + ", ".join(f"{number} {state}" for state, number in numbers.items()) + "."


def place(records: Records) -> str:
    """When, at which commit and where, a clause for each session."""
    found = records.of(Env)
    if not found:
        return "No record says when, where or with what this was measured."
    return " ".join(dict.fromkeys(_session(env) for env in found))


def _session(env: Env) -> str:
    commit = f"commit {env.commit[:12]}" if env.commit else "an unknown commit"
    date = env.date[:16].replace("T", " ") or "on an unknown day"
    where = f"on {env.cpu or 'an unknown processor'} ({env.cores or 'unknown'} cores), kernel {env.kernel or 'unknown'}"
    return f"Measured {date} at {commit}, Python {env.python or 'unknown'}, {where}."


def missing(records: Records) -> list[str]:
    """A line for each server that could not be measured, or not in all that it should have been."""
    there = {run.server for run in records.of(Run)}
    lines = (
        f"{named(records, item.server)} is {'incomplete' if item.server in there else 'missing'}: {item.why}"
        for item in records.of(Missing)
    )
    return list(dict.fromkeys(lines))


def generator(records: Records) -> str:
    """What the load generator itself cost."""
    runs = [run for run in records.of(Run) if run.run != FIRST]
    found = figure(run.load.client_cpu for run in runs if run.load.client_cpu is not None)
    if found is None:
        return ""
    return (
        f"The load generator itself took {micros(found.median)} of CPU a token (median of these runs), counted apart."
    )


def errors(records: Records) -> list[str]:
    """A line for each server whose runs had requests that failed, by what they failed of."""
    lines = []
    for server in ordered(run.server for run in records.of(Run)):
        totals: dict[str, int] = {}
        for run in records.of(Run):
            if run.server == server:
                for what, number in run.load.errors.items():
                    totals[what] = totals.get(what, 0) + number
        said = ", ".join(f"{what} × {number}" for what, number in totals.items() if number)
        lines += [f"{named(records, server)}: {said}"] if said else []
    return lines


def others(records: Records) -> str:
    """Lines that no part of a report shows."""
    if not records.others:
        return ""
    said = ", ".join(f"{kind} ({number})" for kind, number in records.others.items())
    return f"Lines of kinds that this report does not show: {said}."

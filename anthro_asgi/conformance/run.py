"""Runs the checks of a profile against a server and keeps what each found."""

import platform
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Final, Literal

from .check import CHECKS, Check, Failure, Profile, Session, Unsupported, Weight
from .exchange import Client, Json, NoResponse
from .grammar import GrammarError
from .scripted_engine import ScriptedEngine, text

Outcome = Literal["passed", "failed", "not applicable"]

TOKENS_AT_MOST: Final = 9_000
"""An upper bound of the sum of max_tokens over a run of the profile `server`; a test compares it with a run."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. `exchanges` are its requests and responses if it failed."""

    name: str
    area: str
    weight: Weight
    authority: str
    outcome: Outcome
    reason: str
    seconds: float
    exchanges: list[Json]


@dataclass(frozen=True, slots=True)
class Report:
    """The findings of one run."""

    server: str
    model: str
    profile: Profile
    began: str
    seconds: float
    tokens: int
    findings: list[Finding]

    def count(self, weight: Weight | None = None, outcome: Outcome = "passed") -> int:
        """How many checks of this weight (default: all) had this outcome."""
        return sum(weight in (None, one.weight) and one.outcome == outcome for one in self.findings)

    @property
    def broken_musts(self) -> list[Finding]:
        """The failed checks of weight `must`."""
        return [one for one in self.findings if one.weight == "must" and one.outcome == "failed"]

    def as_json(self) -> Json:
        """The report as a JSON object; `report_of` reads it."""
        return {"python": platform.python_version(), **asdict(self)}


def report_of(value: Json) -> Report:
    """The report that `Report.as_json` wrote. Raises KeyError, TypeError."""
    fields = {name: value[name] for name in Report.__dataclass_fields__}
    return Report(**fields | {"findings": [Finding(**one) for one in value["findings"]]})


def chosen(profile: Profile, words: Iterable[str] = ()) -> list[Check]:
    """The checks of a profile whose area or name holds all the words."""
    from . import gateway_checks, server_checks  # noqa: F401 - importing them registers the checks

    checks = [one for one in CHECKS if one.profile == profile]
    return [one for one in checks if all(word in f"{one.area} {one.name}" for word in words)]


def first_model(client: Client) -> str:
    """The first model that the server lists. Raises NoResponse."""
    exchange = client.send("GET", "/v1/models")
    try:
        return str(exchange.json["data"][0]["id"])
    except (ValueError, LookupError, TypeError) as exc:
        raise NoResponse(f"GET /v1/models lists no model (status {exchange.status}); name one with --model") from exc


def run(
    checks: Iterable[Check],
    client: Client,
    model: str,
    server: str,
    engine: ScriptedEngine | None = None,
    told: Callable[[Finding], None] = lambda finding: None,
) -> Report:
    """Run the checks, one after the other. `told` is called with each finding."""
    began, started, tokens = datetime.now(UTC), monotonic(), 0
    findings = []
    for one in checks:
        session = Session(client, model, engine)
        if engine is not None:
            engine.set(text("Hello."))
        findings.append(_finding(one, session))
        tokens += session.tokens
        told(findings[-1])
    profile: Profile = "server" if engine is None else "gateway"
    return Report(
        server, model, profile, began.isoformat(timespec="seconds"), round(monotonic() - started, 1), tokens, findings
    )


def _finding(one: Check, session: Session) -> Finding:
    outcome: Outcome = "passed"
    reason, started = "", monotonic()
    try:
        one.run(session)
    except Unsupported as exc:
        outcome, reason = "not applicable", str(exc)
    except (Failure, NoResponse) as exc:
        outcome, reason = "failed", str(exc)
    except (LookupError, TypeError, AttributeError, ValueError, OSError, GrammarError) as exc:
        # the response has another shape than the check reads: that is a finding about the server, and names the place
        outcome, reason = "failed", f"the response could not be read: {type(exc).__name__}: {exc}"
    shown = [exchange.shown() for exchange in session.exchanges[-2:]] if outcome == "failed" else []
    seconds = round(monotonic() - started, 3)
    return Finding(one.name, one.area, one.weight, one.authority, outcome, reason, seconds, shown)

"""How many rules of the Messages API each peer keeps.

A server can save CPU by answering wrongly, so the report shows this number beside the cost.

It is the profile `gateway` of `anthro-asgi conformance`, in which the suite is the engine behind the peer.
"""

from anthro_asgi.conformance.exchange import Client
from anthro_asgi.conformance.run import Report, chosen, run
from anthro_asgi.conformance.scripted_engine import ScriptedEngine

from ..records import Conformance
from .harness import Bench, Prepared, free_address, started
from .peer import Unavailable


def conformance(bench: Bench) -> None:
    """For each peer that speaks Messages, recorded and printed."""
    for prepared in bench.peers:
        name = prepared.peer.name
        if prepared.peer.api != "messages":
            continue
        try:
            report = _judged(bench, prepared)
        except Unavailable as exc:
            bench.records.missing(name, f"conformance: {exc}")
            continue
        judged = len(report.findings) - report.count(outcome="not applicable")
        bench.records.add(Conformance(name, report.count(), judged, len(report.broken_musts)))
        print(f"{name}: keeps {report.count()} of {judged} rules; breaks {len(report.broken_musts)} musts", flush=True)


def _judged(bench: Bench, prepared: Prepared) -> Report:
    peer, address, engine = prepared.peer, free_address(), free_address()
    host, _, port = engine.rpartition(":")
    folder = bench.folder / f"{peer.name}-conformance"
    folder.mkdir(exist_ok=True)
    launch, log = peer.launch(engine, address, folder), folder / "log"
    with ScriptedEngine(host, int(port)) as suite, started(launch, address, peer.ready, log, holds=peer.holds):
        return run(chosen("gateway"), Client(f"http://{address}", None), peer.model, peer.name, suite)

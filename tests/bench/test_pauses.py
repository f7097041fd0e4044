"""The bench of pauses: what it reads from the metrics, and one run over a real engine and service."""

from pathlib import Path

import pytest

from bench.pauses import BOUNDED, PYTHON, longest_bucket, longest_pause, measure, one_peer
from bench.records import Pauses, ResultFile, read

EXPOSITION = """
anthro_asgi_gc_pause_seconds_bucket{generation="0",le="0.0001"} 5.0
anthro_asgi_gc_pause_seconds_bucket{generation="0",le="0.005"} 6.0
anthro_asgi_gc_pause_seconds_bucket{generation="0",le="+Inf"} 6.0
anthro_asgi_gc_pause_seconds_count{generation="0"} 6.0
anthro_asgi_gc_pause_seconds_bucket{generation="2",le="0.0001"} 0.0
anthro_asgi_gc_pause_seconds_bucket{generation="2",le="0.005"} 0.0
anthro_asgi_gc_pause_seconds_bucket{generation="2",le="+Inf"} 0.0
"""


def test_the_longest_collection_is_the_bound_of_the_highest_bucket_with_a_count() -> None:
    assert longest_bucket(EXPOSITION) == 0.005


def test_a_collection_beyond_all_buckets_is_longer_than_any() -> None:
    assert longest_bucket(EXPOSITION.replace('le="+Inf"} 0.0', 'le="+Inf"} 1.0')) == float("inf")


def test_without_a_collection_the_longest_pause_is_none_at_all() -> None:
    assert longest_bucket('anthro_asgi_gc_pause_seconds_bucket{generation="0",le="0.0001"} 0.0') == 0


def test_an_exposition_without_pauses_has_none() -> None:
    assert longest_bucket("anthro_asgi_pings_total 0.0\n") is None


@pytest.mark.slow
def test_a_run_records_what_clients_and_the_service_see(tmp_path: Path) -> None:
    with ResultFile(tmp_path / "records") as records:
        bench = one_peer(tmp_path, records, 0.2)
        direct, ours = measure(bench, 3, None), measure(bench, 3, BOUNDED)
    assert (direct.server, direct.collection_s) == ("direct", None)
    assert ours.collection_s is not None
    assert all(one.streams == 3 and one.transit["n"] and one.ttft["n"] == 3 for one in (direct, ours))
    assert read([tmp_path / "records"]).of(Pauses) == [direct, ours]


@pytest.mark.slow
def test_the_guard_can_ask_for_the_longest_collection_alone(tmp_path: Path) -> None:
    assert 0 <= longest_pause(2, PYTHON, 0.2, tmp_path) < float("inf")

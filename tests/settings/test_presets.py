"""Profiles of the simulator: presets, files, and the options that override them."""

from pathlib import Path
from random import Random
from statistics import fmean

import pytest

from anthro_asgi import factory
from anthro_asgi.settings.loader import load_settings
from anthro_asgi.settings.options import OPTIONS, ConfigError, ResourceUnavailable, Settings
from anthro_asgi.settings.presets import PRESETS
from anthro_asgi.simulator import Profile, SimulatedEngine


def settings(profile: str, **line: str) -> Settings:
    given = {name.replace("_", "-"): [text] for name, text in line.items()}
    return load_settings({"simulate-profile": [profile], **given}, {})


def profile_of(settings: Settings) -> Profile:
    engine = factory.build_simulated_engine(settings)
    assert isinstance(engine, SimulatedEngine)
    return engine.profile


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_a_simulator_and_names_its_source(name: str) -> None:
    assert profile_of(settings(name)) != profile_of(load_settings({}, {}))
    source = PRESETS[name]["source"]
    assert "https://" in source or "llm-d-inference-sim" in source or source.startswith("Illustrative: ")
    assert set(PRESETS[name]) <= {"source"} | {
        option.removeprefix("simulate_").replace("_", "-")
        for option in (one.attribute for one in OPTIONS)
        if option.startswith("simulate_")
    }


def test_the_llama_70b_preset_reproduces_the_published_figures() -> None:
    profile = profile_of(settings("llama-3.3-70b-2xh100"))
    for prompt, published in ((500, 0.04777), (5000, 0.40677)):
        assert profile.ttft.first + prompt * profile.ttft_per_token == pytest.approx(published, rel=0.01)
    assert profile.max_running is not None
    for running, published in ((1, 0.01858), (25, 0.03875), (50, 0.05973), (profile.max_running, 0.0929)):
        slowed = profile.itl.first * (1 + profile.load_factor * (running - 1))
        assert slowed == pytest.approx(published, rel=0.02)
    draw = profile.itl.sampler(Random(1))
    assert fmean(draw() for _ in range(5000)) == pytest.approx(0.01858, rel=0.01)


def test_options_from_every_place_override_the_profile(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("simulate-profile = 'laptop'\nsimulate-itl = '1ms'\n")
    found = load_settings(
        {"config": [str(file)], "simulate-max-running": ["7"]}, {"ANTHRO_ASGI_SIMULATE_CACHE_TOKENS": "9"}
    )
    assert (found.simulate_max_running, found.simulate_cache_tokens) == (7, 9)
    assert found.simulate_itl == ("constant", 0.001, 0.0)
    assert found.simulate_ttft == ("constant", 0.15, 0.0), "the profile gives what is not overridden"
    assert found.simulate_text == "seeded", "the default gives what is not in the profile"


def test_the_profile_is_taken_from_the_place_of_highest_precedence(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("simulate-profile = 'laptop'\n")
    found = load_settings({"config": [str(file)]}, {"ANTHRO_ASGI_SIMULATE_PROFILE": "flaky"})
    assert found.simulate_ttft == ("constant", 0.02, 0.0)
    assert dict(found.simulate_fail)["cut"] == 0.02


def test_a_profile_may_be_a_file_with_native_values(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("source = 'me'\nmax_running = 3\ntool-rate = 0.5\noutput-tokens = 40\nfail = ['cut=0.5']\n")
    found = settings(str(file))
    assert (found.simulate_max_running, found.simulate_tool_rate) == (3, 0.5)
    assert (found.simulate_output_tokens, found.simulate_fail) == (("constant", 40, 0.0), (("cut", 0.5),))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("speed = 1", "mine.toml: unknown option 'speed'"),
        ("itk = '5ms'", "did you mean itl?"),
        ("simulate-itl = '5ms'", "unknown option 'simulate-itl'; did you mean itl?"),
        ("profile = 'laptop'", "unknown option 'profile'"),
        ("itl = 'soon'", "mine.toml: itl: 'soon' is not a duration"),
        ("itl = ", "--simulate-profile: "),
        ("port = 1", "unknown option 'port'"),
    ],
)
def test_an_error_in_a_profile_is_reported_with_its_option(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        settings(str(file))
    assert words in str(caught.value)


def test_an_unknown_profile_is_an_error_that_lists_the_presets() -> None:
    with pytest.raises(ResourceUnavailable, match=r"--simulate-profile: cannot read lapdog: .*; the presets are .*"):
        settings("lapdog")


def test_an_unreadable_or_invalid_trace_is_an_unavailable_resource(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    with pytest.raises(ResourceUnavailable, match="--simulate-trace: cannot read"):
        factory.build_simulated_engine(load_settings({"simulate-trace": [str(file)]}, {}))
    file.write_text('{"deltas": []}\n')
    with pytest.raises(ResourceUnavailable, match=r"trace.jsonl: line 1 is not a recorded answer"):
        factory.build_simulated_engine(load_settings({"simulate-trace": [str(file)]}, {}))

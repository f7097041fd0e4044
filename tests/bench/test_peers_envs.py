"""The peers' environments: made once, and made again when what is there is not what was asked for."""

import json
from pathlib import Path

import pytest

from bench.peers import envs
from bench.peers.peer import Missing


class Builder:
    """Fills a folder with one file, and counts how often it had to."""

    def __init__(self) -> None:
        self.built = 0
        self.breaks = False

    def __call__(self, folder: Path) -> dict[str, str]:
        assert list(folder.iterdir()) == [], "an environment is made in an empty folder"
        self.built += 1
        (folder / "half").touch()
        if self.breaks:
            raise Missing("could not be installed: no such version")
        return {"thing": f"1.{self.built}"}


@pytest.fixture
def builder() -> Builder:
    return Builder()


def test_an_environment_is_made_once_and_then_found(tmp_path: Path, builder: Builder) -> None:
    folder = tmp_path / "envs" / "peer"
    assert envs.ensure(folder, ["thing==1"], builder) == {"thing": "1.1"}
    assert envs.ensure(folder, ["thing==1"], builder) == {"thing": "1.1"}
    assert builder.built == 1


def test_other_pins_make_it_anew(tmp_path: Path, builder: Builder) -> None:
    envs.ensure(tmp_path / "peer", ["thing==1"], builder)
    assert envs.ensure(tmp_path / "peer", ["thing==2"], builder) == {"thing": "1.2"}
    assert envs.ensure(tmp_path / "peer", ["thing==2", "other"], builder) == {"thing": "1.3"}


def test_a_refresh_makes_it_anew(tmp_path: Path, builder: Builder) -> None:
    envs.ensure(tmp_path / "peer", ["thing==1"], builder)
    assert envs.ensure(tmp_path / "peer", ["thing==1"], builder, refresh=True) == {"thing": "1.2"}


def test_one_that_broke_off_is_not_there(tmp_path: Path, builder: Builder) -> None:
    builder.breaks = True
    with pytest.raises(Missing, match="no such version"):
        envs.ensure(tmp_path / "peer", ["thing==1"], builder)
    builder.breaks = False
    assert envs.ensure(tmp_path / "peer", ["thing==1"], builder) == {"thing": "1.2"}


def test_one_that_breaks_off_when_made_anew_is_gone(tmp_path: Path, builder: Builder) -> None:
    envs.ensure(tmp_path / "peer", ["thing==1"], builder)
    builder.breaks = True
    with pytest.raises(Missing):
        envs.ensure(tmp_path / "peer", ["thing==1"], builder, refresh=True)
    builder.breaks = False
    assert envs.ensure(tmp_path / "peer", ["thing==1"], builder) == {"thing": "1.3"}


@pytest.mark.parametrize("stamp", ["", "{", "[]", '{"pins": ["thing==1"]}', '{"pins": "thing==1", "versions": {}}'])
def test_a_stamp_that_is_none_is_not_believed(tmp_path: Path, builder: Builder, stamp: str) -> None:
    envs.ensure(tmp_path / "peer", ["thing==1"], builder)
    (tmp_path / "peer" / "stamp.json").write_text(stamp)
    assert envs.ensure(tmp_path / "peer", ["thing==1"], builder) == {"thing": "1.2"}


def test_the_stamp_is_the_last_thing_written(tmp_path: Path) -> None:
    def build(folder: Path) -> dict[str, str]:
        assert not (folder / "stamp.json").exists()
        return {}

    envs.ensure(tmp_path / "peer", ["thing==1"], build)
    assert json.loads((tmp_path / "peer" / "stamp.json").read_text())["pins"] == ["thing==1"]


def test_an_editable_one_is_stale_when_the_checkout_depends_on_something_else(
    tmp_path: Path, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    project = checkout / "pyproject.toml"
    project.write_text("dependencies = []")
    monkeypatch.setattr(envs, "CHECKOUT", checkout)
    monkeypatch.setattr(envs, "_install", lambda folder, requirements, editable: builder(folder))
    folder = tmp_path / "peer"
    assert envs.venv(folder, ["it"], editable=True) == envs.venv(folder, ["it"], editable=True) == {"thing": "1.1"}
    project.write_text('dependencies = ["more"]')
    assert envs.venv(folder, ["it"], editable=True) == {"thing": "1.2"}


def test_an_installer_that_fails_gives_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho first >&2\necho 'no room on the disk' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(envs.sys, "executable", str(python))
    with pytest.raises(Missing, match="could not be installed: no room on the disk"):
        envs.venv(tmp_path / "peer", ["thing==1"])


def test_a_machine_without_node_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Missing, match=r"apt-get install .*npm"):
        envs.node_modules(tmp_path / "peer", ["thing@1"])


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHRO_ASGI_BENCH_CACHE", str(tmp_path))
    assert envs.cache() == tmp_path
    monkeypatch.delenv("ANTHRO_ASGI_BENCH_CACHE")
    assert envs.cache() == envs.CHECKOUT / "bench" / ".cache"

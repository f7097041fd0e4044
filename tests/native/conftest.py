"""The tests of the native path exist where its extension module is built. `.ci/run` checks that it is."""

from anthro_asgi._native import new_pump

collect_ignore_glob = ["test_*.py"] if new_pump is None else []

"""Builds the optional extension module `anthro_asgi._native._pump`. All other metadata stands in `pyproject.toml`.

`optional`: without a C compiler or the headers of Python the package is installed without it, and stays complete.
"""

import sysconfig

from setuptools import Extension, setup

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))  # such a Python has no stable ABI

pump = Extension(
    "anthro_asgi._native._pump",
    ["anthro_asgi/_native/pump.c"],
    depends=[f"anthro_asgi/_native/{name}.h" for name in ("client_chunk", "convert", "thread", "tool_json")],
    extra_compile_args=["-std=c11", "-O2", "-Wall", "-Wextra", "-pthread"],
    extra_link_args=["-pthread"],
    py_limited_api=True,
    optional=True,
)

setup(
    ext_modules=[] if FREE_THREADED else [pump],
    options={} if FREE_THREADED else {"bdist_wheel": {"py_limited_api": "cp311"}},
)

"""What all tests stand on."""

import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # how long an example takes is the machine's business
settings.load_profile("untimed")

# Started in the background of a script, the tests would hand "ignore Ctrl-C" on to every program that they start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Where Python is told to keep no bytecode, each of some hundred programs that the tests start would compile everything anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# The longest files. The first two, each by one process, so that no other waits for the walk that the pages are shown on.
LONG = (
    "flows/test_loop.py", "flows/test_demo.py", "faults/test_crash_store.py", "engines/test_engines.py", "flows/test_distil.py",
    "serve/test_restarts.py", "flows/test_engines.py", "flows/test_leaks.py", "flows/test_export.py", "serve/test_schemathesis.py",
)  # fmt: skip
TESTS = Path(__file__).parent


def pytest_configure(config):
    """Files come in our order: with most tests first, the few long ones would end the run with one process at work."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    """The longest files first; what takes minutes by itself, and so many beside other work, has an hour."""
    order = {TESTS / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path, len(order)))
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(3600))

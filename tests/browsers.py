"""The machine's own Chromium, for tests that look at pages."""

import shutil
from contextlib import contextmanager

import pytest


@contextmanager
def chromium():
    """A browser for as long as the block runs; skips where the machine has none. Its loop is this thread's meanwhile."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield running
        running.close()

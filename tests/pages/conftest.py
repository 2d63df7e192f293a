"""Pages are looked at in a real browser, headless, with every other host out of reach."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "render"))
sys.path.append(str(Path(__file__).parent))


def pytest_configure(config):
    config.addinivalue_line("markers", "browser: looks at pages in headless chromium")


@pytest.fixture(scope="session")
def browser() -> "Iterator":
    import chromium

    program = chromium.program()
    if program is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    with chromium.Browser(program) as started:
        yield started

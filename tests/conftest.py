"""What holds for all tests."""

import signal


def pytest_configure() -> None:
    """Let child processes be interrupted: a runner in the background starts us with Ctrl-C ignored, they inherit it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)

"""What holds for every test."""

import signal

import pytest

# What helpers assert tells what was there instead, as in a test.
pytest.register_assert_rewrite("acceptance", "chaos", "containers", "fuzz", "systemd", "unit")

# A shell that starts the tests in the background has them ignore these, and every daemon would inherit that.
for signum in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(signum, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

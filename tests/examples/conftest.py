"""The examples, as somebody has copied them: each test has one in its own directory, and a daemon to run it."""

from acceptance.conftest import command, launch

__all__ = ["command", "launch"]

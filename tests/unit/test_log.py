"""The log's level, which can be changed."""

from .helpers import python


def test_a_level_is_changed_as_a_whole_or_not_at_all() -> None:
    """Where memory runs out in between, it is changed when that is tried again."""
    said = python(
        """
        import os, structlog
        from jobd import events, log
        to = log.Log("warning", "json")
        to.emit(events.DAEMON_RELOADED, added=[], changed=[], removed=[])
        wrap = log._wrap_logger
        for lacking in range(1, 5):
            calls = iter(range(1, 9))
            def fails(*arguments, **options):
                if next(calls) == lacking: raise MemoryError
                return wrap(*arguments, **options)
            log._wrap_logger = fails
            try: to.use("info")
            except MemoryError: os.write(1, b"lacking\\n")
            log._wrap_logger = wrap
            to.use("info")
            to.emit(events.DAEMON_RELOADED, added=[lacking], changed=[], removed=[])
            to.teller("info")(events.DAEMON_RELOADED, added=["told"], changed=[], removed=[])
            to.push()
            to.flush(5)
            to.use("error")
            assert to.teller("info") is None
        """
    )
    lines = said.splitlines()
    assert lines[::3] == ["lacking"] * 4
    assert [f'"added":[{number}]' in line for number, line in enumerate(lines[1::3], 1)] == [True] * 4
    assert all('"added":["told"]' in line for line in lines[2::3])


def test_loggers_of_jobs_follow_the_level_without_a_lock() -> None:
    """Those that have been used before, of structlog and of logging; those of a level of their own keep that."""
    said = python(
        """
        import logging, structlog
        from jobd import log
        to = log.Log("error", "json")
        cached, std, own = structlog.get_logger(), logging.getLogger("a.b"), logging.getLogger("own")
        own.setLevel(logging.INFO)
        def say(word):
            cached.info(word + " structlog"); std.info(word + " logging"); own.debug(word + " never")
            structlog.get_logger().bind(x=1).info(word + " bound")
        say("first")
        with logging._lock:
            import threading
            thread = threading.Thread(target=to.use, args=("debug",))
            thread.start(); thread.join(10)
            assert not thread.is_alive()
        say("second")
        to.use("error")
        say("third")
        to.flush(5)
        """
    )
    assert [line.split('"event":"')[1].split('"')[0] for line in said.splitlines()] == [
        "second structlog",
        "second logging",
        "second bound",
    ]

"""Garbage is collected even where nobody says that there is some."""

from .helpers import python


def test_an_idle_daemon_collects_too() -> None:
    """No run is in flight, but a library's thread, say, makes cycles."""
    code = """
        import gc, time, weakref
        from jobd import garbage
        garbage.IDLE_S = 0.05
        collector = garbage.Collector()
        class Node: pass
        gone = []
        end = time.monotonic() + 10
        while not gone and time.monotonic() < end:
            for _ in range(1000):
                node = Node()
                node.itself = node
                weakref.finalize(node, gone.append, 1)
            time.sleep(0.05)
        print(bool(gone))
    """
    assert python(code) == "True\n"

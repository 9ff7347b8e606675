"""Being told of a wall clock that is set, where that cannot be."""

from .helpers import python


def test_a_descriptor_that_the_loop_cannot_wait_for_is_not_used() -> None:
    """With a thousand others open, select(2) could not wait for it: it is closed again."""
    code = """
        import asyncio, os, resource, selectors
        from jobd import clockset
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
        taken = [os.dup(0) for _ in range(1100)]
        before = len(os.listdir("/proc/self/fd"))
        print(clockset.listen(loop, print), len(os.listdir("/proc/self/fd")) - before)
        loop.call_soon(loop.stop)
        loop.run_forever()
    """
    assert python(code) == "False 0\n"

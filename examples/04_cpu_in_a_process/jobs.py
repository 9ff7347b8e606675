"""Computes in a process of its own: the event loop, the other jobs and the stop do not notice."""

import structlog

from jobd import every

log = structlog.get_logger()


@every("10s", isolation="process", timeout="1m", overlap="skip")
def count_primes(below: int = 200_000) -> int:
    """Nothing but computing; in a thread it would keep the interpreter's lock from all others."""
    sieve = bytearray([1]) * below
    sieve[:2] = b"\0\0"
    for number in range(2, int(below**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, below, number)))
    log.info("primes", below=below, count=sum(sieve))
    return sum(sieve)

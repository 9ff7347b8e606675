"""`make chaos`: plays rounds, some at once, and says which seeds failed and why.

``SEED=1234`` plays that round alone and shows everything about it.
"""

import argparse
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from .expectation import expectation
from .plan import plan
from .round import module_text, play
from .verdict import complaints

KEPT = Path(__file__).resolve().parents[2] / ".chaos"


@dataclass(frozen=True)
class Verdict:
    """How a round went."""

    seed: int
    complaints: tuple[str, ...]

    def __str__(self) -> str:
        return f"seed {self.seed}: " + ("; ".join(self.complaints) or "good")


def one(seed: int, kept: Path = KEPT, *, always: bool = False) -> Verdict:
    """Play the round of this seed; if it failed, or `always`, keep what was seen in a directory of its own."""
    directory = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
    try:
        intended = plan(seed)
        seen = play(intended, directory)
        found = complaints(intended, expectation(intended), seen)
        if found or always:
            place = kept / str(seed)
            place.mkdir(parents=True, exist_ok=True)
            texts = {
                "plan": f"{intended}\n",
                "jobs.py": module_text(intended),
                "verdict": "\n".join([*found, "", f"{expectation(intended)}", f"exit code {seen.exit_code}", ""]),
            }
            for name, text in texts.items():
                (place / name).write_text(text)
            (place / "log").write_bytes(seen.log)
            (place / "stderr").write_bytes(seen.stderr)
        return Verdict(seed, tuple(found))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def many(seeds: Iterable[int], at_once: int, kept: Path = KEPT) -> Iterator[Verdict]:
    """Play these rounds, `at_once` at a time; how each went, as they end."""
    with get_context("fork").Pool(at_once, maxtasksperchild=1) as pool:  # a round needs a process of its own
        yield from pool.imap_unordered(_One(kept), seeds)


@dataclass(frozen=True)
class _One:
    """`one`, as something that can be sent to another process."""

    kept: Path

    def __call__(self, seed: int) -> Verdict:
        return one(seed, self.kept)


def fresh_seeds(count: int) -> list[int]:
    """Seeds that nobody has chosen."""
    return [secrets.randbelow(10**6) for _ in range(count)]


def main() -> int:
    """Play what the command line asks for; 1 if a round failed."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this round alone, and show it")
    parser.add_argument("--first", type=int, help="play the rounds from this seed on instead of fresh ones")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="rounds at once")
    given = parser.parse_args()
    if given.seed is not None:
        return _show(given.seed)
    first = given.first
    seeds = fresh_seeds(given.rounds) if first is None else list(range(first, first + given.rounds))
    failed: list[Verdict] = []
    for number, verdict in enumerate(many(seeds, given.jobs), 1):
        print(f"{number}/{len(seeds)} {verdict}", flush=True)
        failed += [verdict] if verdict.complaints else []
    print(f"\n{len(seeds) - len(failed)} of {len(seeds)} rounds went well")
    for verdict in sorted(failed, key=lambda one: one.seed):
        print(f"{verdict}\n  {KEPT / str(verdict.seed)}; make chaos SEED={verdict.seed}")
    return 1 if failed else 0


def _show(seed: int) -> int:
    print(plan(seed), flush=True)
    verdict = one(seed, always=True)
    for name in ("log", "stderr"):
        text = (KEPT / str(seed) / name).read_bytes().decode("utf-8", "backslashreplace")
        print(f"--- {name}", *(line[:500] for line in text.splitlines()), sep="\n")
    print("---", verdict, sep="\n")
    return 1 if verdict.complaints else 0


if __name__ == "__main__":
    sys.exit(main())

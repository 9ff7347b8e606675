"""Reads a Containerfile, as far as ours goes (https://docs.docker.com/reference/dockerfile)."""

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    """One instruction, such as ``COPY``, and what follows it."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """The text as words: of the exec form, which is JSON, or as a shell would split it."""
        return list(json.loads(self.text)) if self.text.startswith("[") else shlex.split(self.text)


@dataclass
class Stage:
    """What stands between one ``FROM`` and the next."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def one(self, name: str) -> Instruction:
        """The only instruction of this name."""
        (found,) = (instruction for instruction in self.instructions if instruction.name == name)
        return found

    @property
    def environment(self) -> dict[str, str]:
        """What ``ENV`` sets."""
        pairs = (word.partition("=") for i in self.instructions if i.name == "ENV" for word in i.words)
        return {name: value for name, _, value in pairs}


def read(path: Path) -> list[Stage]:
    """The stages of the file, in order."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    stages: list[Stage] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, text = line.split(maxsplit=1)
        if name == "FROM":
            base, _, alias = text.partition(" AS ")
            stages.append(Stage(base, alias))
        else:
            stages[-1].instructions.append(Instruction(name, re.sub(" +", " ", text.strip())))
    return stages

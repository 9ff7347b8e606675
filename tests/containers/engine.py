"""As much of a container engine as it takes to build our image and to run it: namespaces, mounts and an ordinary user.

The image's base is this machine's ``/usr``, which has a Python as well. What the Containerfile copies or makes lies in
three directories of the image: ``/src``, ``/opt`` and ``/app``. Everything else of the container's root is empty and
its own; it is taken away with its mount namespace.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from .containerfile import Instruction, Stage, read

CHECKOUT = Path(__file__).resolve().parents[2]
CONTAINERFILE = CHECKOUT / "containers/Containerfile"
#: What an image can have that its base has not.
PLACES = ("src", "opt", "app")
NAMESPACES = ("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child")
#: How pip finds packages on this machine may stand in these.
PASSED_ON = ("PIP_", "SSL_CERT_", "REQUESTS_CA_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
#: A build takes some ten seconds, most of them pip's.
BUILD_S = 100.0

#: Makes a root directory at $1 from this machine's /usr and the image in $2, which is mounted with the options $3; then
#: becomes the rest of the arguments.
ROOT = """
set -e
root=$1 image=$2 options=$3
shift 3
mount --make-rprivate /
mount -t tmpfs -o mode=755 root "$root"
mkdir "$root/proc" "$root/dev" "$root/tmp" "$root/usr" "$root/etc" "$root/run"
for name in bin sbin lib lib64; do [ ! -e "/$name" ] || ln -s "usr/$name" "$root/$name"; done
for name in usr etc; do mount --rbind "/$name" "$root/$name"; mount -o remount,bind,ro "$root/$name"; done
for name in src opt app; do
    mkdir "$root/$name"
    mount --bind "$image/$name" "$root/$name"
    mount -o "remount,bind,$options" "$root/$name"
done
ln -s /usr/bin/python3 "$root/run/python"
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mount -o "remount,$options" "$root"
exec "$@"
"""


class Image:
    """What building the Containerfile has made."""

    def __init__(self, directory: Path) -> None:
        """Build it, in `directory`."""
        self._root = directory / "root"
        self._root.mkdir()
        self._directory = directory
        stages = read(CONTAINERFILE)
        for stage in stages:
            for place in PLACES:
                (self._of(stage) / place).mkdir(parents=True)
            for instruction in stage.instructions:
                self._perform(stage, instruction)
        #: What is left of it all.
        self.stage = stages[-1]

    @property
    def app(self) -> Path:
        """Where the image has modules of jobs."""
        return self._of(self.stage) / "app"

    def command(self, settings: Mapping[str, str]) -> tuple[str, ...]:
        """What runs the image's ENTRYPOINT as PID 1, read-only and without any privilege; CMD is to be added."""
        variables = self.stage.environment | dict(settings)
        user, _, group = self.stage.one("USER").text.partition(":")
        unprivileged = ("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs")
        powerless = ("--bounding-set=-all", "--inh-caps=-all")
        return (
            *self._in_root(self.stage, "ro"),
            *unprivileged, *powerless,
            "env", "-i", f"--chdir={self.stage.one('WORKDIR').text}",
            *(f"{name}={value}" for name, value in variables.items()),
            *self.stage.one("ENTRYPOINT").words,
        )  # fmt: skip

    def _of(self, stage: Stage) -> Path:
        return self._directory / (stage.name or "final")

    def _in_root(self, stage: Stage, options: str) -> tuple[str, ...]:
        make = ("sh", "-c", ROOT, "sh", str(self._root), str(self._of(stage)), options)
        return (*NAMESPACES, *make, "chroot", str(self._root))

    def _perform(self, stage: Stage, instruction: Instruction) -> None:
        if instruction.name == "RUN":
            self._run(stage, instruction.text)
        elif instruction.name == "COPY":
            self._copy(stage, *instruction.words)

    def _run(self, stage: Stage, command: str) -> None:
        env = {name: value for name, value in os.environ.items() if name.upper().startswith(PASSED_ON)}
        done = subprocess.run(
            [*self._in_root(stage, "rw"), "sh", "-e", "-c", command],
            env=env | {"PATH": "/run:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BUILD_S, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise AssertionError(f"{shlex.quote(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")

    def _copy(self, stage: Stage, *words: str) -> None:
        origin = CHECKOUT
        if words[0].startswith("--from="):
            origin = self._directory / words[0].removeprefix("--from=")
            words = words[1:]
        *sources, target = words
        for source in (origin / word.lstrip("/") for word in sources):
            to = self._of(stage) / target.lstrip("/")
            if source.is_dir():  # its contents are copied
                shutil.copytree(source, to, symlinks=True, dirs_exist_ok=True)
            else:
                assert target.endswith("/"), "several files need a directory"
                to.mkdir(exist_ok=True)
                shutil.copy(source, to)


def why_not() -> str | None:
    """Why this machine cannot run a container; None if it can."""
    if missing := [name for name in ("unshare", "setpriv", "chroot", "mount") if shutil.which(name) is None]:
        return f"not installed: {', '.join(missing)}"
    if not Path("/usr/bin/python3").exists():
        return "/usr/bin/python3 is not there"
    tried = subprocess.run([*NAMESPACES, "mount", "--make-rprivate", "/"], capture_output=True, text=True, check=False)
    return f"namespaces need root: {tried.stderr.strip()}" if tried.returncode else None

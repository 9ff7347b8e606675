"""Keeps a box: boots systemd as PID 1 in namespaces of its own, and takes everything away again when it is let go.

Run as a script, as root: ``keeper.py CHECKOUT``. It prints the process id of the box's PID 1, and ends the
box when its standard input does. A test session holds the other end of that pipe, so the box ends with the session,
however that does. Imports nothing but the standard library.

The box sees this machine's files through an overlay whose changes live in memory, and none of its mounts: /proc,
/sys, /dev, /run and /tmp are its own, as is its control group. What would reach beyond it (the kernel's settings, the
clock, modules, devices, units that are enabled on this machine) is read-only, dropped or hidden. It shares the
network, because pip needs one.
"""

import ctypes
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID = (
    0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x20000000,
)  # fmt: skip
PR_SET_PDEATHSIG, PR_CAPBSET_DROP = 1, 24
MNT_DETACH = 2
#: What namespaces do not hold in: CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_TIME.
REACHING_BEYOND = (16, 17, 25)
SYSTEMD = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Names of files that tell how names are resolved; often links to what the box does not see.
RESOLVING = ("etc/resolv.conf", "etc/hosts")
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}

_libc = ctypes.CDLL(None, use_errno=True)


def main(checkout: Path) -> None:
    """Boot a box, say so, and keep it until standard input ends."""
    unshare(CLONE_NEWNS)
    command("mount", "--make-rprivate", "/")
    with room() as directory, control_group(directory) as group:
        unshare(CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS)  # the first is for children: the next one is PID 1
        init = os.fork()
        if init == 0:
            boot(directory, checkout, group)
        print(init, flush=True)
        wait_for_end(init)
        os.kill(init, signal.SIGKILL)  # not reaped yet, so nobody else can have this id; all others in the box follow
        os.waitpid(init, 0)


def wait_for_end(init: int) -> None:
    """Return when nobody holds the other end of standard input any more, or the box has ended by itself."""
    select.select([sys.stdin, os.pidfd_open(init)], [], [])


@contextmanager
def room() -> Iterator[Path]:
    """A directory whose contents only this process and the box see, and which are never written to a disk."""
    directory = Path(tempfile.mkdtemp(prefix=f"jobd-box-{os.getpid()}-"))
    try:
        mount("tmpfs", directory, "-o", "mode=755")
        yield directory
        # No command can be run any more: where PID 1 has died no process can be forked.
        called(_libc.umount2(os.fsencode(directory), MNT_DETACH), "umount")
    finally:
        directory.rmdir()


@contextmanager
def control_group(directory: Path) -> Iterator[Path]:
    """A control group for the box, below our own."""
    hierarchy = directory / "groups"
    hierarchy.mkdir()
    mount("cgroup2", hierarchy)
    own = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    group = hierarchy / own.lstrip("/") / f"jobd-box-{os.getpid()}"
    group.mkdir()
    try:
        yield group
    finally:
        for path, _, _ in os.walk(group, topdown=False):
            Path(path).rmdir()


def boot(directory: Path, checkout: Path, group: Path) -> NoReturn:
    """Become systemd, in a child that is PID 1 already."""
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        (group / "cgroup.procs").write_text("0")
        unshare(CLONE_NEWCGROUP | CLONE_NEWNS)
        root = overlay(directory)
        furnish(root)
        show(checkout, root / "checkout")
        move_in(root)
        for capability in REACHING_BEYOND:
            prctl(PR_CAPBSET_DROP, capability)
        become_systemd()
    except BaseException:
        traceback.print_exc()
    os._exit(1)  # this is a copy of the keeper, and must not go on as if it were one


def become_systemd() -> NoReturn:
    """Replace this process by systemd, which hears from the environment that it is in a container."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.setsid()
    systemd = next(path for path in SYSTEMD if Path(path).exists())
    arguments = [systemd, "--system", "--unit=basic.target", "--log-target=journal", "--show-status=0"]
    os.execve(systemd, arguments, {"container": "jobd-box", "PATH": PATH})


def overlay(directory: Path) -> Path:
    """This machine's files, with room for changes that are kept in memory."""
    changes, work, root = (directory / name for name in ("changes", "work", "root"))
    for path in (changes, work, root):
        path.mkdir()
    mount("overlay", root, "-o", f"lowerdir=/,upperdir={changes},workdir={work}")
    return root


def furnish(root: Path) -> None:
    """Give the box what a container manager gives to a system (https://systemd.io/CONTAINER_INTERFACE)."""
    for name in ("run", "tmp", "dev", "etc/systemd/system"):  # the last hides what is enabled on this machine
        mount("tmpfs", root / name, "-o", f"mode={'1777' if name == 'tmp' else '755'}")
    mount("proc", root / "proc")
    show(root / "proc/sys", root / "proc/sys")
    mount("sysfs", root / "sys")
    command("mount", "-o", "remount,bind,ro", str(root / "sys"))
    mount("cgroup2", root / "sys/fs/cgroup")
    devices(root / "dev")
    (root / "etc/fstab").unlink(missing_ok=True)
    for name in RESOLVING:
        replace(root / name, Path("/", name))


def devices(dev: Path) -> None:
    """Make the few devices that every program may expect."""
    os.umask(0)
    for name, (major, minor) in DEVICES.items():
        os.mknod(dev / name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
    os.umask(0o022)
    for name in ("pts", "shm"):
        (dev / name).mkdir()
    mount("devpts", dev / "pts", "-o", "newinstance,ptmxmode=666,mode=620")
    mount("tmpfs", dev / "shm", "-o", "mode=1777")
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
    for name, target in links.items():
        (dev / name).symlink_to(target)


def replace(file: Path, by: Path) -> None:
    """Put the text of `by`, which may be a link or a mount of this machine's, in place of `file`."""
    text = by.read_text() if by.exists() else ""
    file.unlink(missing_ok=True)
    file.write_text(text)


def show(directory: Path, at: Path) -> None:
    """Mount `directory` at `at`, read-only."""
    at.mkdir(exist_ok=True)
    command("mount", "--bind", str(directory), str(at))
    command("mount", "-o", "remount,bind,ro", str(at))


def move_in(root: Path) -> None:
    """Make `root` the root directory, and let go of the one that was."""
    old = root / "run/old"
    old.mkdir()
    os.chdir(root)
    command("pivot_root", ".", str(old.relative_to(root)))
    os.chroot(".")
    os.chdir("/")
    command("umount", "--lazy", "/run/old")
    Path("/run/old").rmdir()


def mount(kind: str, at: Path, *options: str) -> None:
    """Mount a new file system."""
    command("mount", "-t", kind, *options, kind, str(at))


def command(*arguments: str) -> None:
    """Run a command, which must succeed."""
    program = shutil.which(arguments[0], path=PATH)
    if program is None:
        raise FileNotFoundError(f"{arguments[0]} is not installed")
    subprocess.run([program, *arguments[1:]], check=True)


def unshare(flags: int) -> None:
    """Leave the namespaces that `flags` name for new ones; as os.unshare, which Python has had since 3.12 only."""
    called(_libc.unshare(flags), "unshare")


def prctl(option: int, value: int) -> None:
    """Change a property of this process."""
    called(_libc.prctl(option, value, 0, 0, 0), "prctl")


def called(result: int, name: str) -> None:
    """Raise what a call into the C library has reported."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())

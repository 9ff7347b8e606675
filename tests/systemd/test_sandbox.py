"""The sandbox: what jobs can do in it, and what they cannot."""

import json
import re
from typing import Any

import pytest

from .box import Box
from .service import CONFIGURATION, Service

pytestmark = pytest.mark.systemd

ORDINARY = """
import asyncio, http.server, os, subprocess, sys, threading, urllib.request
from pathlib import Path
import jobd

STATE = Path(os.environ["STATE_DIRECTORY"])

@jobd.every("1h")
async def talks_http():
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.handle_request, daemon=True).start()
    def get():
        with urllib.request.urlopen(f"http://localhost:{server.server_port}/", timeout=10) as answer:
            return answer.status
    assert await asyncio.to_thread(get) == 200

@jobd.every("1h")
def keeps_files():
    (STATE / "kept").write_text("kept")
    assert (STATE / "kept").read_text() == "kept"
    (Path.home() / ".cache").mkdir()
    Path("/tmp/scratch").write_text("gone with the service")

@jobd.every("1h")
async def runs_a_command():
    command = await asyncio.create_subprocess_exec("sh", "-c", "echo hello", stdout=subprocess.PIPE)
    assert await command.communicate() == (b"hello\\n", None)

@jobd.every("1h")
def runs_a_python():
    subprocess.run([sys.executable, "-c", "import multiprocessing; multiprocessing.Lock()"], check=True)

@jobd.every("1h")
def uses_threads():
    threads = [threading.Thread(target=sum, args=([1, 2],)) for _ in range(20)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
"""

FORBIDDEN = """
import os, socket
from pathlib import Path
import jobd

def search_the_network():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as searching:
        searching.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        searching.sendto(b"", ("239.255.255.250", 1900))

def refused(attempt, *args):
    try:
        attempt(*args)
    except OSError:
        return True
    return False

@jobd.every("1h")
def tries():
    attempts = {
        "change its own code": refused(Path("jobs.py").write_text, ""),
        "put code where it is imported from": refused(Path("new.py").touch),
        "change the packages": refused(Path("/opt/jobd/new").touch),
        "read the settings of the service": refused(Path("jobd.env").read_text),
        "read a home directory": refused(os.listdir, "/root"),
        "capture packets": refused(socket.socket, socket.AF_PACKET, socket.SOCK_RAW),
        "search the network": refused(search_the_network),
        "become root": refused(os.setuid, 0),
        "see other processes": not Path("/proc/1/comm").exists(),
    }
    done = [name for name, failed in attempts.items() if not failed]
    assert not done, done
"""

TELLS = """
import json, os, subprocess, sys
from pathlib import Path
import jobd

def look():
    return {"uid": os.getuid(), "cwd": os.getcwd(), "environment": dict(os.environ)}

@jobd.every("1h")
def tells():
    of_a_child = subprocess.run(["env", "--null"], capture_output=True, text=True).stdout.split("\\0")
    found = look() | {"child": [entry.partition("=")[0] for entry in of_a_child]}
    Path(os.environ["STATE_DIRECTORY"], "found.json").write_text(json.dumps(found))
"""


def ends(jobd: Service) -> dict[str, Any]:
    """How each job's only run ended: None, or the error."""
    jobd.settings(JOBD_JOBS="jobs")
    jobd.systemctl("start")
    count = jobd.wait_for_line("daemon.ready")["jobs"]
    jobd.wait_for_lines("run.finished", count)
    return {line["job"]: line.get("error") for line in jobd.logged("run.finished")}


def test_an_ordinary_job_works(jobd: Service) -> None:
    """HTTP, files, commands, processes and threads are what jobs are made of; the sandbox lets all of them be."""
    jobd.jobs(ORDINARY)
    done = ends(jobd)
    assert done == dict.fromkeys(
        ("talks_http", "keeps_files", "runs_a_command", "runs_a_python", "uses_threads"),
    )


def test_a_job_can_change_neither_code_nor_system(jobd: Service) -> None:
    """What a job could not undo, or would come back with the next start, is refused with an ordinary error."""
    jobd.jobs(FORBIDDEN)
    assert ends(jobd) == {"tries": None}


def test_a_directory_that_systemd_has_made_is_closed_to_jobs_as_well(jobd: Service) -> None:
    """What systemd creates for a service belongs to the service's user: a first start without any configuration."""
    jobd.box.run("rm", "-rf", CONFIGURATION)
    jobd.systemctl("start")
    jobd.systemctl("stop")
    assert jobd.box.out("stat", "--format=%u", CONFIGURATION) != "0"
    jobd.jobs(FORBIDDEN)
    assert ends(jobd)["tries"] is None


def test_the_service_is_nobody_and_its_jobs_see_nothing_of_systemds_protocol(jobd: Service) -> None:
    """A user that exists only meanwhile, its own state directory, and no NOTIFY_SOCKET to answer for jobd with."""
    jobd.jobs(TELLS)
    assert ends(jobd) == {"tells": None}
    found = json.loads(jobd.box.out("cat", "/var/lib/jobd/found.json"))
    assert 61184 <= found["uid"] <= 65519  # the range that systemd takes dynamic users from
    assert found["cwd"] == "/etc/jobd"
    assert found["environment"]["STATE_DIRECTORY"] == found["environment"]["HOME"] == "/var/lib/jobd"
    seen = set(found["environment"]) | set(found["child"])
    assert not seen & {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}
    assert "PATH" in found["child"]


@pytest.mark.parametrize("unit", ["jobd.service", "jobd@x.service"])
def test_the_exposure_is_at_most_one(box: Box, unit: str) -> None:
    """`systemd-analyze security`: from 0.0, a sealed box, to 10.0, a root shell."""
    answer = box.out("systemd-analyze", "security", "--no-pager", unit)
    figure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", answer)
    assert figure is not None, answer
    assert float(figure[1]) <= 1.0, answer

"""What a process of ours is called where all processes are listed. Imports nothing of ours and nothing heavy."""


def tell(name: str) -> None:
    """Be told apart from the daemon in `ps -o comm` and `top`, by at most 15 characters (`proc(5)`)."""
    try:
        with open("/proc/self/comm", "w", encoding="ascii") as comm:
            comm.write(name)
    except OSError:  # no /proc
        pass

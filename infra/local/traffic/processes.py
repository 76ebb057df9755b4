"""Which process is behind a connection, and which processes are a function's: by /proc, of one emulator only."""

import os
import signal
from pathlib import Path

LOOPBACK = "0100007F"


def children(parent: int) -> list[int]:
    """Processes that this one started: an emulator's are its functions' environments."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path(f"/proc/{entry}/stat").read_text()
        except OSError:
            continue
        # Behind the name, which may hold anything but ends at the last bracket: state, parent.
        if int(stat.rpartition(")")[2].split()[1]) == parent:
            found.append(int(entry))
    return found


def behind(port: int, to: int, emulator: int) -> int | None:
    """The child of the emulator whose connection goes from this port to that one."""
    inode = socket_inode(port, to)
    if inode is None:
        return None
    wanted = f"socket:[{inode}]"
    for pid in children(emulator):
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for name in names:
            try:
                if os.readlink(f"/proc/{pid}/fd/{name}") == wanted:
                    return pid
            except OSError:
                continue
    return None


def socket_inode(port: int, to: int) -> str | None:
    # One port serves several connections, to different ends.
    ends = [f"{LOOPBACK}:{port:04X}", f"{LOOPBACK}:{to:04X}"]
    with open("/proc/net/tcp") as table:
        for line in table:
            fields = line.split()
            # Without an inode it has been closed already.
            if fields[1:3] == ends and fields[9] != "0":
                return fields[9]
    return None


def of_function(function: str, emulator: int) -> list[int]:
    """The environments of a function."""
    name = f"AWS_LAMBDA_FUNCTION_NAME={function}\0".encode()
    found = []
    for pid in children(emulator):
        try:
            if name in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


def cpu_ticks(pid: int) -> int:
    """How much it has worked so far; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def kill(pid: int, emulator: int) -> bool:
    """SIGKILL, to a child of the emulator and nobody else."""
    if pid not in children(emulator):
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True

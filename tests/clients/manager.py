"""Plays the service manager: starts a daemon, keeps the sockets that it is given to keep, and passes them to the next one.

manager.py NOTIFY-SOCKET PROGRAM [ARGUMENT...]. SIGHUP restarts the daemon, SIGTERM stops it. What the daemon says of itself
is printed, one word a line.
"""

import array
import fcntl
import os
import select
import signal
import socket
import sys

FIRST = 3  # sd_listen_fds(3)
path, command = sys.argv[1], sys.argv[2:]
listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
listening.bind(path)
stored = {}
asked = []
for number in (signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, lambda number, _: asked.append(number))


def start():
    child = os.fork()
    if child:
        return child
    environment = dict(os.environ, NOTIFY_SOCKET=path, WATCHDOG_USEC="30000000", WATCHDOG_PID=str(os.getpid()))
    # First out of the way, then in their places.
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 1000) for fd in stored.values()]
    for at, fd in enumerate(high):
        os.dup2(fd, FIRST + at, inheritable=True)
    os.closerange(FIRST + len(high), 2000)
    if high:
        environment.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(high)), LISTEN_FDNAMES=":".join(stored))
    os.execve(command[0], command, environment)


def hear():
    message, control, _, _ = listening.recvmsg(4096, socket.CMSG_SPACE(64 * 4))
    fds = array.array("i")
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    said = dict(line.split("=", 1) for line in message.decode().split("\n") if "=" in line)
    name = said.get("FDNAME", "stored")
    if "FDSTORE" in said and fds:
        if name in stored:
            os.close(fds[0])  # the same file again
        else:
            stored[name] = fds[0]
            print("stored", flush=True)
    elif "FDSTOREREMOVE" in said and name in stored:
        os.close(stored.pop(name))
    elif "READY" in said:
        print("ready", flush=True)
    elif "WATCHDOG" in said:
        print("alive", flush=True)


child, stopping = start(), False
while True:
    if select.select([listening], [], [], 0.05)[0]:
        hear()
    gone, status = os.waitpid(child, os.WNOHANG)
    if gone and asked[:1] == [signal.SIGHUP]:
        del asked[0]
        child, stopping = start(), False
        print("restarted", flush=True)
    elif gone:
        sys.exit(os.waitstatus_to_exitcode(status))
    elif asked and not stopping:
        os.kill(child, signal.SIGTERM)
        stopping = True

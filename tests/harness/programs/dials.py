"""Connects one after the other, without waiting for answers, until the file STOP exists.

    dials.py PORT HOST... STOP PROGRESS

Keeps in the file PROGRESS, one line an attempt, what came of it: `connected`, or the name of an errno.
"""

import errno
import os
import select
import socket
import sys

port, hosts, stop, progress = int(sys.argv[1]), sys.argv[2:-2], sys.argv[-2], sys.argv[-1]
# Of connections on their way: a proxy that is gone lets none of them wait for long.
LIMIT = 500

poll = select.epoll()
waiting = {}


def ended(lines, code):
    print(errno.errorcode[code] if code else "connected", file=lines)


def dial(lines, host):
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setblocking(False)
    code = sock.connect_ex((host, port))
    if code == errno.EINPROGRESS:
        waiting[sock.fileno()] = sock
        poll.register(sock.fileno(), select.EPOLLOUT)
    else:
        ended(lines, code)


with open(progress, "w", buffering=1) as lines:
    while not os.path.exists(stop):
        for host in hosts:
            if len(waiting) < LIMIT:
                dial(lines, host)
        for fd, _ in poll.poll(0.001):
            sock = waiting.pop(fd)
            poll.unregister(fd)
            ended(lines, sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            sock.close()

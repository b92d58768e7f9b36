"""Many connects at once to one address, and what became of them.

    connects.py HOST PORT COUNT STOP    waits for all answers, or until the file STOP exists

Prints `started COUNT` when all are under way, and at the end `<result> <how many>`, a line for each result:
`connected`, the name of an errno, or `waiting`.
"""

import collections
import errno
import os
import resource
import select
import socket
import sys

host, port, count, stop = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

poll = select.epoll()
waiting, results = {}, collections.Counter()
for _ in range(count):
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setblocking(False)
    code = sock.connect_ex((host, port))
    if code == errno.EINPROGRESS:
        waiting[sock.fileno()] = sock
        poll.register(sock.fileno(), select.EPOLLOUT)
    else:
        results[errno.errorcode[code]] += 1
print("started", count, flush=True)

connected = []
while waiting and not os.path.exists(stop):
    for fd, _ in poll.poll(0.02):
        sock = waiting.pop(fd)
        poll.unregister(fd)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        results[errno.errorcode[code] if code else "connected"] += 1
        if not code:
            connected.append(sock)
if waiting:
    results["waiting"] = len(waiting)
for name in sorted(results):
    print(name, results[name], flush=True)

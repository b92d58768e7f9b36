"""One long-lived connection to an echo server: sends numbered lines and checks each echo, until the file STOP exists.

    ticker.py HOST PORT STOP PROGRESS

The file PROGRESS holds how many lines came back. Ends with status 1 on the first wrong or missing byte.
"""

import os
import socket
import sys

host, port, stop, progress = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
sock = socket.create_connection((host, port))
reader = sock.makefile("rb")
count = 0
while not os.path.exists(stop):
    line = f"line {count}\n".encode()
    sock.sendall(line)
    answer = reader.readline()
    if answer != line:
        sys.exit(f"line {count}: sent {line!r}, got {answer!r}")
    count += 1
    if count % 50 == 0:
        with open(progress + ".new", "w") as out:
            out.write(str(count))
        os.replace(progress + ".new", progress)
sock.shutdown(socket.SHUT_WR)
rest = reader.read()
if rest:
    sys.exit(f"after the end came {rest!r}")
print(count)

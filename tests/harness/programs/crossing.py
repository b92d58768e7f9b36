"""A client whose handshake stands still after the SYN: `crossing.py OWN_MAC MAC SOURCE HOST PORT COUNT GO`.

Sends a SYN each from COUNT ports of SOURCE, an IPv4 address that nobody has, in frames of its own, and waits for the answers; MAC
is that of the host. Prints `answered <how many>`. When the file GO exists it ends each handshake with a byte of data, and prints
`served <how many>` for those where it comes back, and `reset <how many>`.
"""

import os
import select
import socket
import struct
import sys
import time

own_mac, mac = (bytes.fromhex(text.replace(":", "")) for text in sys.argv[1:3])
source, host = (socket.inet_aton(text) for text in sys.argv[3:5])
port, count, go = int(sys.argv[5]), int(sys.argv[6]), sys.argv[7]
SYN, RST, PSH, ACK = 2, 4, 8, 16
FIRST = 40000
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
wire.bind(("eth0", 0x0800))


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def send(own_port, sequence, acknowledged, flags, data=b""):
    def tcp(check):
        return struct.pack("!HHIIBBHHH", own_port, port, sequence, acknowledged, 5 << 4, flags, 65535, check, 0) + data

    pseudo = source + host + struct.pack("!BBH", 0, 6, 20 + len(data))
    segment = tcp(checksum(pseudo + tcp(0)))
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), 0, 0, 64, 6, 0, source, host)
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    wire.send(mac + own_mac + b"\x08\x00" + head + segment)


def receive(limit):
    """The port, sequence number, flags and data of each segment that comes until then."""
    end = time.monotonic() + limit
    while (left := end - time.monotonic()) > 0:
        if not select.select([wire], [], [], left)[0]:
            return
        packet = wire.recv(2048)[14:]
        if packet[9] != 6 or packet[12:16] != host or packet[16:20] != source:
            continue
        length = struct.unpack("!H", packet[2:4])[0]
        segment = packet[(packet[0] & 15) * 4:length]
        _, own_port, sequence = struct.unpack("!HHI", segment[:8])
        yield own_port, sequence, segment[13], segment[(segment[12] >> 4) * 4:]


theirs = {}
for number in range(count):
    send(FIRST + number, 1000, 0, SYN)
for own_port, sequence, flags, _ in receive(5):
    if flags & (SYN | ACK) == SYN | ACK:
        theirs[own_port] = sequence + 1
    if len(theirs) == count:
        break
print("answered", len(theirs), flush=True)
while not os.path.exists(go):
    time.sleep(0.01)
for own_port, sequence in theirs.items():
    send(own_port, 1001, sequence, ACK | PSH, b"x")
served, reset = set(), set()
for own_port, _, flags, data in receive(5):
    if flags & RST:
        reset.add(own_port)
    elif data == b"x":
        served.add(own_port)
    if len(served | reset) == len(theirs):
        break
print("served", len(served), flush=True)
print("reset", len(reset), flush=True)

"""An eBPF program of another owner on connect(2) by IPv4, for as long as this runs.

    neighbour.py CGROUP NAME allow|deny|rewrite before|after

`rewrite` sends everybody to 192.0.2.1. `before`: ahead of all programs that are there, which takes Linux 6.17. Prints
`attached`, or `unsupported` where the kernel cannot.
"""

import ctypes
import errno
import os
import platform
import signal
import struct
import sys

NR_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
PROG_LOAD, LINK_CREATE = 5, 28
CGROUP_SOCK_ADDR, CGROUP_INET4_CONNECT = 18, 10
F_BEFORE = 8

libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, attr):
    buffer = ctypes.create_string_buffer(attr, len(attr))
    result = libc.syscall(NR_BPF, command, buffer, len(attr))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def instruction(code, registers, offset, immediate):
    return struct.pack("<BBhi", code, registers, offset, immediate)


cgroup, name, what, place = sys.argv[1:]
program = b""
if what == "rewrite":
    address = int.from_bytes(bytes([192, 0, 2, 1]), "little")
    address -= (address >> 31) << 32
    program += instruction(0xB7, 0x02, 0, address)  # r2 = address
    program += instruction(0x63, 0x21, 4, 0)  # ctx->user_ip4 = r2
program += instruction(0xB7, 0x00, 0, 0 if what == "deny" else 1)  # r0 = verdict
program += instruction(0x95, 0, 0, 0)  # exit
code = ctypes.create_string_buffer(program, len(program))
licence = ctypes.create_string_buffer(b"GPL")
attr = struct.pack(
    "<IIQQIIQII16sII",
    CGROUP_SOCK_ADDR,
    len(program) // 8,
    ctypes.addressof(code),
    ctypes.addressof(licence),
    0,
    0,
    0,
    0,
    0,
    name.encode()[:15],
    0,
    CGROUP_INET4_CONNECT,
)
loaded = bpf(PROG_LOAD, attr)
target = os.open(cgroup, os.O_RDONLY)
flags = F_BEFORE if place == "before" else 0
try:
    link = bpf(LINK_CREATE, struct.pack("<IIIIIIQ", loaded, target, CGROUP_INET4_CONNECT, flags, 0, 0, 0))
except OSError as error:
    if flags and error.errno == errno.EINVAL:
        print("unsupported", flush=True)
        sys.exit(0)
    raise
print("attached", flush=True)
signal.pause()

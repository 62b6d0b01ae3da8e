# The rest of the arguments is run with the loopback interface up, and with another address on it.
import fcntl
import os
import socket
import struct
import sys

SIOCSIFFLAGS, SIOCSIFADDR, IFF_UP = 0x8914, 0x8916, 1

address, *command = sys.argv[1:]
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
    request = struct.pack("16sHH4s16x", b"lo:1", socket.AF_INET, 0, socket.inet_aton(address))
    fcntl.ioctl(any_socket, SIOCSIFADDR, request)
os.execvp(command[0], command)

"""Ports on loopback for programs that the tests start."""

import socket
import sys


def reserve_port() -> int:
    """
    Return a port on which a program may listen, also repeatedly, and that no other program gets.

    The port stays bound until this process ends. Nothing listens on it until the program does, so connections to it are
    refused, and none gets it as its local port and connects to itself.
    """
    holder = socket.socket()
    # One of them lets the program bind the port, too.
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    holder.bind(("127.0.0.1", 0))
    port = holder.getsockname()[1]
    if sys.platform == "linux":
        holder.detach()
    else:  # other systems would not let the program bind the port
        holder.close()
    return port

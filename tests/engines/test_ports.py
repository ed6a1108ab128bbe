"""Ports that are reserved for programs."""

import socket

import pytest
from engines.ports import reserve_port


def test_a_program_may_listen_on_a_reserved_port_repeatedly():
    """Connections are refused before and after that."""
    port = reserve_port()
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        with socket.create_server(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
            pass


def test_a_reserved_port_is_given_to_no_other_socket():
    """Even to one that may share its port."""
    reserved = {reserve_port() for _ in range(50)}
    opened = []
    try:
        for _ in range(300):
            opened.append(socket.socket())
            opened[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            opened[-1].bind(("127.0.0.1", 0))
        assert reserved.isdisjoint(other.getsockname()[1] for other in opened)
    finally:
        for other in opened:
            other.close()

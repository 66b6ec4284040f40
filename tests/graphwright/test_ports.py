import socket
from collections.abc import Generator

import pytest

from graphwright.ports import NoPortFree, PortClaims

HOST = "127.0.0.1"


@pytest.fixture
def busy() -> Generator[socket.socket]:
    with socket.create_server((HOST, 0)) as listener:
        yield listener


def test_a_port_on_which_somebody_listens_is_passed_over(busy: socket.socket) -> None:
    port = busy.getsockname()[1]
    claims = PortClaims()
    assert claims.claim(HOST, port) > port
    claims.close()


def test_two_stacks_never_choose_the_same_port_though_neither_listens_yet() -> None:
    one, other = PortClaims(), PortClaims()
    first = one.claim(HOST, 0)
    assert other.claim(HOST, first) != first
    one.close()
    assert other.claim(HOST, first) == first
    other.close()


def test_a_claimed_port_is_there_to_listen_on() -> None:
    claims = PortClaims()
    port = claims.claim(HOST, 0)
    with socket.create_server((HOST, port)):
        pass
    claims.close()


def test_nobody_who_asks_for_any_port_is_given_a_claimed_one() -> None:
    claims = PortClaims()
    port = claims.claim(HOST, 0)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind((HOST, port))  # the kernel, when it chooses, passes over what this may not take
    claims.close()


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(NoPortFree, match=r"cannot listen on 192\.0\.2\.1"):
        PortClaims().claim("192.0.2.1", 0)

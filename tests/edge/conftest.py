"""One server for a module, and connections that are closed behind each test."""

from collections.abc import Callable, Iterator

import pytest
from tests.support.http_site import Client, Site


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as running:
        yield running


@pytest.fixture
def connect(site: Site) -> Iterator[Callable[[], Client]]:
    made: list[Client] = []

    def make() -> Client:
        made.append(Client(site.port))
        return made[-1]

    yield make
    for client in made:
        client.socket.close()

"""Fixtures of several tests of the client."""

import pytest
from client.http_libraries import LIBRARIES


@pytest.fixture(params=LIBRARIES, ids=lambda library: library.__name__)
def library(request):
    """Each HTTP library whose clients `http_client=` accepts."""
    return request.param

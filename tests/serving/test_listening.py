"""Where a server listens."""

from __future__ import annotations

import pytest

from triptych.errors import ContractError
from triptych.serving import Ports
from triptych.serving.listening import Listening


@pytest.mark.parametrize(
    ("host", "address", "is_open", "options"),
    [
        ("127.0.0.1", "127.0.0.1:2", False, {"127.0.0.1"}),
        ("0.0.0.0", "127.0.0.1:2", True, {"0.0.0.0"}),
        ("10.1.2.3", "10.1.2.3:2", True, {"10.1.2.3"}),
        ("::1", "[::1]:2", False, {"[::1]", "ipv6:::1"}),
        ("::", "[::1]:2", True, {"[::]", "ipv6:::"}),
    ],
)
def test_addresses(host: str, address: str, is_open: bool, options: set[str]) -> None:
    listening = Listening(host, Ports(http=1, grpc=2, metrics=3), http=True)
    assert (listening.grpc_address, listening.is_open) == (address, is_open)
    assert listening.metrics_url == f"http://{address.removesuffix('2')}3/metrics"
    triton = listening.options("model-repository:key=secret")
    assert {triton[i + 1] for i, option in enumerate(triton) if option.endswith("-address")} == options


@pytest.mark.parametrize("host", ["localhost", "", "0.0.0.0:8001", "[::]"])
def test_a_host_that_is_no_address(host: str) -> None:
    with pytest.raises(ContractError, match=r"host must be an IP address such as 0\.0\.0\.0, but got"):
        Listening(host)

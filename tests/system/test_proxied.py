"""Behind a real nginx that keeps its connections: none closes under a request."""

from pathlib import Path

import pytest

from benchmarks.reliability.proxied import nginx_program, passed


@pytest.mark.skipif(nginx_program() is None, reason="needs nginx")
def test_a_proxy_that_keeps_connections_for_less_time_never_meets_a_closed_one(
    tmp_path: Path,
) -> None:
    # idle for as long as the proxy keeps a connection, give or take, and less than the server does
    found = passed(tmp_path, keep_alive=4, proxy=1, every=1, count=8)
    assert found.statuses == {200: 8}, (tmp_path / "error.log").read_text()

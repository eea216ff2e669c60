"""The state benchmark on a machine without a PostgreSQL server."""

import pytest

pytest.importorskip("benchmarks.bench_state")  # mutation testing copies the tests alone
from benchmarks import bench_state, table


def test_without_a_server_its_target_stays_in_the_table_not_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(bench_state, "SERVER", "postgresql://nobody@127.0.0.1:1/none")
    (cells,) = table.rows([("State: x", list(bench_state._server(tmp_path)))])
    found = dict(zip(table.HEADS, cells, strict=True))
    assert found["benchmark"] == "State: durable intent, PostgreSQL"
    assert found["verdict"] == "not measured"

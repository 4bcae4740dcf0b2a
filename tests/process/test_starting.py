"""The command before it serves: what is wrong is one line and an exit status, never a traceback."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

SECRET = "dsn-that-no-log-may-hold"
TOY = """
    import asyncio, os, sys
    from contextlib import asynccontextmanager
    from pathlib import Path
    from backends.memory import MemorySink

    class BrokenSink(MemorySink):
        '''Cannot be opened.'''
        @classmethod
        @asynccontextmanager
        async def open(cls, options):
            raise RuntimeError(os.environ["TOY_SECRET"])
            yield

    class SlowSink(MemorySink):
        '''Is opened when somebody says so on stdin.'''
        @classmethod
        @asynccontextmanager
        async def open(cls, options):
            print('{"event": "opening"}', file=sys.stderr, flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            async with super().open(options) as sink:
                yield sink
"""


@pytest.fixture
def toy_sinks(tmp_path: Path) -> dict[str, str]:
    """An environment in which a distribution with the sinks ``broken`` and ``slow`` is installed."""
    folder = tmp_path / "installed"
    metadata = folder / "toy_sinks-1.0.dist-info"
    metadata.mkdir(parents=True)
    (folder / "toy_sinks.py").write_text(dedent(TOY))
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-sinks\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[tallygate.sinks]\nbroken = toy_sinks:BrokenSink\nslow = toy_sinks:SlowSink\n"
    )
    return {"PYTHONPATH": str(folder), "TOY_SECRET": SECRET}


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


async def test_port_in_use_is_one_line_and_exit_1(run, configuration, taken_port) -> None:
    config = str(configuration())
    status, out, err = await run("serve", "--config", config, "--port", str(taken_port))
    assert (status, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith(f"cannot listen on 127.0.0.1:{taken_port}: ") and "in use" in line


async def test_host_that_is_not_ours_is_one_line_and_exit_1(run, configuration) -> None:
    status, _, err = await run(
        "serve", "--config", str(configuration()), "--host", "192.0.2.1", "--port", "0"
    )
    assert status == 1
    (line,) = err.splitlines()
    assert line.startswith("cannot listen on 192.0.2.1:0: ")


@pytest.mark.parametrize(
    ("command", "wrong", "named"),
    [
        ("serve", {"batching": {"max_rowz": 5}}, "batching.max_rowz"),
        ("serve", {"shutdown": {"drain_s": 100}}, "shutdown"),
        ("check", {"log_writer_strategy": "batch:nowhere"}, "log_writer_strategy"),
        ("check", {"master_key": ""}, "master_key"),
        ("serve", {"store": {"url": "redis://127.0.0.1"}}, "store.url"),
        ("serve", {"budget_strategy": "redis"}, "budget_strategy"),
    ],
)
async def test_wrong_configuration_is_one_line_that_names_the_key_and_exit_2(
    run, configuration, command, wrong, named
) -> None:
    config = configuration(**wrong)
    status, out, err = await run(command, "--config", str(config))
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith(str(config)) and named in line


async def test_configuration_that_is_not_there_is_one_line_and_exit_2(run) -> None:
    status, _, err = await run("serve", "--config", "nowhere.yml")
    assert status == 2
    (line,) = err.splitlines()
    assert "nowhere.yml" in line


async def test_check_shows_what_is_in_force_with_secrets_masked(run, configuration) -> None:
    status, out, err = await run("check", "--config", str(configuration()), env={"GATEWAY_PORT": "9000"})
    assert (status, err) == (0, "")
    shown = yaml.safe_load(out)
    assert shown["port"] == 9000
    assert "that-no-log-may-hold" not in out


async def test_check_connect_asks_the_sink(run, configuration, tmp_path) -> None:
    status, _, err = await run("check", "--connect", "--config", str(configuration()))
    assert (status, err) == (0, "")
    assert (tmp_path / "data" / "usage.db").exists()


@pytest.mark.parametrize("arguments", [("serve",), ("serve", "--workers", "2"), ("check",)])
async def test_a_url_that_is_none_of_its_stores_is_one_line_without_it_and_exit_2(
    run, configuration, arguments
) -> None:
    config = str(configuration(store={"url": f"sqlite:{SECRET}?{SECRET}"}))
    status, out, err = await run(*arguments, "--config", config)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("store.url: ") and SECRET not in line


async def test_check_connect_asks_the_store(run, configuration, tmp_path) -> None:
    (tmp_path / "a_file").touch()
    store = {"url": f"sqlite:///{tmp_path}/a_file/gateway.db"}
    status, _, err = await run("check", "--connect", "--config", str(configuration(store=store)))
    assert status == 2
    (line,) = err.splitlines()
    assert line.startswith("store.url: ")


async def test_check_connect_to_a_locked_file_is_one_line_and_exit_2(
    run, configuration, locked, tmp_path
) -> None:
    with locked(tmp_path / "data" / "usage.db"):
        status, _, err = await run("check", "--connect", "--config", str(configuration()))
    assert status == 2
    (line,) = err.splitlines()
    assert line.startswith("sinks.sqlite: ") and "locked" in line


@pytest.mark.parametrize("path", ["a_file/usage.db", "a_folder"])
async def test_check_connect_to_a_path_that_cannot_be_written_is_one_line_and_exit_2(
    run, configuration, tmp_path, path
) -> None:
    (tmp_path / "a_file").touch()
    (tmp_path / "a_folder").mkdir()
    sinks = {"sqlite": {"path": str(tmp_path / path)}}
    status, _, err = await run("check", "--connect", "--config", str(configuration(sinks=sinks)))
    assert status == 2
    (line,) = err.splitlines()
    assert line.startswith("sinks.sqlite: ")


@pytest.mark.parametrize("arguments", [("serve",), ("check", "--connect")])
async def test_sink_that_breaks_on_opening_shows_no_traceback_and_no_secret(
    run, configuration, toy_sinks, arguments
) -> None:
    config = str(configuration(log_writer_strategy="batch:broken", sinks={}))
    status, _, err = await run(*arguments, "--config", config, env=toy_sinks)
    assert status == (1 if arguments == ("serve",) else 2)
    (line,) = err.splitlines()
    assert SECRET not in line
    assert "RuntimeError" in line


async def test_signal_while_starting_is_a_stop(serve_unready, toy_sinks) -> None:
    async with serve_unready(toy_sinks, log_writer_strategy="batch:slow", sinks={}) as process:
        await process.said("opening")
        process.send(signal.SIGTERM)
        await process.said("signal", count=1)
        process.tell("open")
        assert await process.exit_status() == 0
        assert (await process.said("shutdown_report"))["clean"]


@pytest.mark.parametrize("strategy", ["memory", "noop"])
async def test_strategy_without_a_file_stops_cleanly(serve, strategy) -> None:
    async with serve(log_writer_strategy=strategy, sinks={}) as gateway:
        async with gateway.chat() as response:
            assert response.status == 200
        assert await gateway.stop() == 0
        assert gateway.report["accepted"] == (strategy == "memory")

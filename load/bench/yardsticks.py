"""The others: a bare aiohttp pass-through, nginx, and the peers that `make bench-peers` installs.

Each is started on the core that is measured. One that is not there is left out, and it is said why.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from socket import socket
from typing import TypeAlias

from processes import ROOT, child

from .cores import Cores, on
from .servers import Server, program
from .waiting import until_it_answers

BARE, PORTKEY, LITELLM = "aiohttp, bare pass-through", "Portkey gateway", "LiteLLM proxy, no database"
PEER_KEY = "sk-bench"
PEERS = ROOT / ".bench-peers"
NGINX_CONF = """
daemon off; master_process off; error_log stderr error; pid {folder}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000; client_body_buffer_size 64k;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream provider {{ server {upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{ proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


class LeftOut(Exception):
    """A yardstick that is not on this machine; the message says how to get it."""


@asynccontextmanager
async def bare(folder: Path, cores: Cores, provider_url: str) -> AsyncIterator[Server]:
    async with program(folder, cores.measured, "passthrough", provider_url) as (url, pid):
        yield Server(BARE, url, pid, streams=f"{url}/streamed")


@asynccontextmanager
async def nginx(folder: Path, cores: Cores, provider_url: str) -> AsyncIterator[Server]:
    own = PEERS / "nginx" / "usr" / "sbin" / "nginx"
    binary = str(own) if own.exists() else shutil.which("nginx")
    if binary is None:
        raise LeftOut("no nginx on this machine: `make bench-peers`, or apt-get install nginx")
    port, config = free_port(), folder / "nginx.conf"
    config.write_text(
        NGINX_CONF.format(folder=folder, port=port, upstream=provider_url.removeprefix("http://"))
    )
    command = on(cores.measured, binary, "-p", str(folder), "-c", str(config))
    async with child("nginx", *command, env=os.environ, folder=folder) as running:
        url = f"http://127.0.0.1:{port}"
        await until_it_answers(url, running)
        yield Server("nginx, reverse proxy", url, running.pid)


@asynccontextmanager
async def portkey(folder: Path, cores: Cores, provider_url: str) -> AsyncIterator[Server]:
    program = PEERS / "portkey" / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    node = shutil.which("node")
    if node is None or not program.exists():
        raise LeftOut("the Portkey gateway is not installed: `make bench-peers`, which needs node and npm")
    port = free_port()
    env = {**os.environ, "NODE_ENV": "production"}
    command = on(cores.measured, node, str(program), f"--port={port}", "--headless")
    async with child("portkey", *command, env=env, folder=folder) as running:
        url = f"http://127.0.0.1:{port}"
        await until_it_answers(url, running)
        headers = {
            "Authorization": "Bearer none",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"{provider_url}/v1",
        }
        yield Server(PORTKEY, url, running.pid, headers=headers)


@asynccontextmanager
async def litellm(folder: Path, cores: Cores, provider_url: str) -> AsyncIterator[Server]:
    program = PEERS / "litellm" / "bin" / "litellm"
    if not program.exists():
        raise LeftOut("the LiteLLM proxy is not installed: `make bench-peers`")
    port, config = free_port(), folder / "litellm.yml"
    upstream = {"model": "openai/fake", "api_base": f"{provider_url}/v1", "api_key": "none"}
    models = [{"model_name": "fake", "litellm_params": upstream}]
    config.write_text(json.dumps({"model_list": models, "general_settings": {"master_key": PEER_KEY}}))
    flags = ("--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1")
    env = {**os.environ, "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    async with child("litellm", *on(cores.measured, str(program), *flags), env=env, folder=folder) as running:
        url = f"http://127.0.0.1:{port}"
        await until_it_answers(url, running)
        yield Server(LITELLM, url, running.pid, headers={"Authorization": f"Bearer {PEER_KEY}"})


def free_port() -> int:
    """A port that nobody has, a moment ago."""
    with socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


Start: TypeAlias = Callable[[Path, Cores, str], AbstractAsyncContextManager[Server]]
YARDSTICKS: Mapping[str, Start] = {"nginx": nginx, PORTKEY: portkey, LITELLM: litellm}
"""Beside the bare pass-through, which must be there."""

"""The same client against servers other people wrote: nginx and uvicorn."""

import asyncio
import shutil
import socket
import subprocess

import pytest
import uvicorn

from farebox.transport import Client, Origin, Tls, prepare

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")

CONFIG = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr crit;
events {{ worker_connections 64; }}
http {{
  access_log off; keepalive_requests 3;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{plain};
    listen 127.0.0.1:{tls} ssl;
    ssl_certificate {server_pem}; ssl_certificate_key {server_pem};
    ssl_client_certificate {ca_pem}; ssl_verify_client optional;
    root {folder};
    location / {{ add_header x-client $ssl_client_verify always; add_header x-connection $connection always; }}
    location /empty {{ return 204; }}
    location /upstream/ {{
      proxy_pass http://127.0.0.1:{upstream}/; proxy_buffering off; proxy_http_version 1.1; proxy_set_header Connection "";
    }}
  }}
}}
"""


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def nginx(tmp_path_factory, certificates):
    """A running nginx: plain port, TLS port, and the port it proxies `/upstream/` to."""
    folder = tmp_path_factory.mktemp("nginx")
    plain, tls, upstream = free_ports(3)
    (folder / "big.bin").write_bytes(bytes(range(256)) * 4096)
    (folder / "small.txt").write_text("small")
    config = CONFIG.format(
        folder=folder, plain=plain, tls=tls, upstream=upstream, server_pem=certificates.server_file, ca_pem=certificates.ca_file
    )
    (folder / "nginx.conf").write_text(config)
    command = [NGINX, "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", plain)).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None, (folder / "log").read_text()
        yield plain, tls, upstream
    finally:
        process.terminate()
        process.wait()


async def get(client, origin, target, method="GET", body=b""):
    response = await client.send(prepare(origin, method, target), body)
    return response, await response.read(10_000_000)


@needs_nginx
def test_nginx_static_files_and_keep_alive(run, nginx):
    async def scenario():
        origin = Origin("http", "127.0.0.1", nginx[0])
        client = Client()
        connections = set()
        for _ in range(7):
            response, body = await get(client, origin, "/small.txt")
            assert (response.status, body, response.header(b"content-type")) == (200, b"small", b"text/plain")
            connections.add(response.header(b"x-connection"))
        # `keepalive_requests 3`: nginx says `Connection: close` on every third response.
        assert len(connections) == 3
        response, body = await get(client, origin, "/big.bin")
        assert body == bytes(range(256)) * 4096
        response, body = await get(client, origin, "/big.bin", "HEAD")
        assert (response.header(b"content-length"), body) == (b"1048576", b"")
        response, body = await get(client, origin, "/empty")
        assert (response.status, body) == (204, b"")
        response, body = await get(client, origin, "/missing")
        assert response.status == 404
        response, body = await get(client, origin, "/small.txt", "POST", bytes(100))
        assert response.status == 405
        await client.aclose()

    run(scenario())


@needs_nginx
def test_nginx_refuses_a_large_body_early(run, nginx):
    """`client_max_body_size` is 1 MB: nginx answers 413 from the head alone."""

    async def scenario():
        client = Client()
        response, body = await get(client, Origin("http", "127.0.0.1", nginx[0]), "/small.txt", "POST", bytes(8_000_000))
        assert (response.status, b"413" in body) == (413, True)
        await client.aclose()

    run(scenario())


@needs_nginx
def test_nginx_tls_and_client_certificate(run, nginx, certificates):
    async def scenario():
        client = Client()
        for tls, verdict in (
            (certificates.trust, b"NONE"),
            (Tls(ca_file=certificates.ca_file, client_cert_file=certificates.client_file), b"SUCCESS"),
        ):
            for _ in range(2):
                response, body = await get(client, Origin("https", "127.0.0.1", nginx[1], tls), "/small.txt")
                assert (body, response.header(b"x-client")) == (b"small", verdict)
        await client.aclose()

    run(scenario())


async def application(scope, receive, send):
    """Echo for POST, a stream of ten events for GET."""
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if scope["method"] == "POST":
        headers = [(b"content-length", b"%d" % len(body)), (b"x-path", scope["raw_path"])]
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for number in range(10):
        await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b""})


class Uvicorn:
    """uvicorn in the running loop."""

    def __init__(self, port=0, **settings):
        self._config = uvicorn.Config(application, host="127.0.0.1", port=port, log_config=None, lifespan="off", **settings)
        self._server = uvicorn.Server(self._config)

    async def __aenter__(self):
        self._config.load()
        self._server.lifespan = self._config.lifespan_class(self._config)
        await self._server.startup()
        return Origin("http", "127.0.0.1", self._server.servers[0].sockets[0].getsockname()[1])

    async def __aexit__(self, *exc_info):
        await self._server.shutdown()


EVENTS = b"".join(b"data: %d\n\n" % number for number in range(10))


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_uvicorn_echo_and_stream(http, run):
    async def scenario():
        async with Uvicorn(http=http) as origin:
            client = Client()
            for size in (0, 1, 1400, 100_000, 3_000_000):
                response, body = await get(client, origin, "/v1/chat%20x?y", "POST", bytes(size))
                assert (response.status, body, response.header(b"x-path")) == (201, bytes(size), b"/v1/chat%20x")
            for _ in range(3):
                response, body = await get(client, origin, "/")
                assert (response.header(b"transfer-encoding"), body) == (b"chunked", EVENTS)
            await client.aclose()

    run(scenario())


def test_uvicorn_many_at_once(run):
    async def scenario():
        async with Uvicorn(http="httptools") as origin:
            client = Client()

            async def worker(number):
                for turn in range(5):
                    body = b"%d-%d" % (number, turn) * (1 + 50 * (turn % 3))
                    assert (await get(client, origin, "/", "POST", body))[1] == body

            await asyncio.gather(*[worker(number) for number in range(32)])
            await client.aclose()

    run(scenario())


@needs_nginx
def test_nginx_in_front_of_uvicorn(run, nginx):
    """Chunked bodies that nginx re-frames, with its own keep-alive on both sides."""

    async def scenario():
        async with Uvicorn(nginx[2], http="httptools"):
            origin = Origin("http", "127.0.0.1", nginx[0])
            client = Client()
            for _ in range(3):
                response, body = await get(client, origin, "/upstream/")
                assert (response.header(b"transfer-encoding"), body) == (b"chunked", EVENTS)
                response, body = await get(client, origin, "/upstream/echo", "POST", b"x" * 50_000)
                assert (response.status, body) == (201, b"x" * 50_000)
            await client.aclose()

    run(scenario())

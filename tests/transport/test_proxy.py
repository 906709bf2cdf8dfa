"""Through an HTTP proxy: tunnels for https, absolute-form for http."""

import asyncio
import ssl

import pytest

from farebox.transport import Client, Origin, ProxyError, ProxySettings, Timeouts, TlsError, prepare

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def serve_ok(peer):
    while True:
        await peer.request()
        await peer.send(OK)


async def pipe(source, sink):
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except ConnectionError:
        pass
    finally:
        sink.close()


def tunnelling(port, requests, answer=b"HTTP/1.1 200 Connection established\r\n\r\n"):
    """A proxy whose every tunnel leads to `port`."""

    async def script(peer):
        requests.append(await peer.reader.readuntil(b"\r\n\r\n"))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await peer.send(answer)
        await asyncio.gather(pipe(peer.reader, writer), pipe(reader, peer.writer))

    return script


def through(proxy, userinfo="", **more):
    url = f"http://{userinfo}127.0.0.1:{proxy.port}"
    return ProxySettings.from_env({"HTTP_PROXY": url, "HTTPS_PROXY": url, **more})


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 Connection established\r\nvia: x\r\n\r\n"])
def test_https_goes_through_a_tunnel(answer, run, listen, certificates):
    async def scenario():
        requests = []
        context = certificates.server_context()
        async with (
            listen(serve_ok, context=context) as server,
            listen(tunnelling(server.port, requests, answer)) as proxy,
        ):
            # `localhost` is resolved by nobody here but the proxy, which leads every tunnel to the server.
            origin = Origin("https", "localhost", 8443, certificates.trust)
            client = Client(proxies=through(proxy, "user:p%40ss@"))
            for _ in range(2):
                assert await (await client.send(prepare(origin, "POST", "/v1"), b"x")).read(10) == b"ok"
            connect = b"CONNECT localhost:8443 HTTP/1.1\r\nhost: localhost:8443\r\n"
            assert requests == [connect + b"proxy-authorization: Basic dXNlcjpwQHNz\r\n\r\n"]
            await client.aclose()

    run(scenario())


def test_http_goes_in_absolute_form(run, listen):
    async def scenario():
        requests = []

        async def script(peer):
            while True:
                requests.append((await peer.request())[0])
                await peer.send(OK)

        async with listen(script) as proxy:
            client = Client(proxies=through(proxy, "u:p@"))
            for _ in range(2):
                response = await client.send(prepare(Origin("http", "origin.test", 8080), "GET", "/a?b"))
                assert await response.read(10) == b"ok"
            head = b"GET http://origin.test:8080/a?b HTTP/1.1\r\nhost: origin.test:8080\r\nproxy-authorization: Basic dTpw\r\n"
            assert requests == [head + b"accept-encoding: identity\r\n\r\n"] * 2
            assert len(proxy.peers) == 1
            await client.aclose()

    run(scenario())


def test_no_proxy_goes_directly(run, listen):
    async def scenario():
        async def never(peer):
            raise AssertionError("the proxy was used")

        async with listen(serve_ok) as server, listen(never) as proxy:
            client = Client(proxies=through(proxy, NO_PROXY="127.0.0.0/8"))
            assert await (await client.send(server.prepare())).read(10) == b"ok"
            await client.aclose()

    run(scenario())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n", "status 407"),
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 5\r\n\r\nhello", "status 502"),
        (b"nonsense\r\n\r\n", "does not start with|status line"),
        (b"", "closed"),
    ],
)
def test_refused_tunnel(answer, message, run, listen):
    async def scenario():
        async def script(peer):
            await peer.request()
            await peer.send(answer)
            if answer:
                await peer.gone()
                gone.set()

        gone = asyncio.Event()
        async with listen(script) as proxy:
            client = Client(proxies=through(proxy))
            with pytest.raises(ProxyError, match=message) as caught:
                await client.send(prepare(Origin("https", "origin.test", 443), "POST", "/"), b"x")
            assert (caught.value.sent, caught.value.phase) == (False, "proxy")
            if answer:
                await gone.wait()
            await client.aclose()

    run(scenario())


def test_proxy_cannot_speak_for_the_server(run, listen, certificates):
    """Bytes behind the answer to CONNECT are not a response."""

    async def scenario():
        async def script(peer):
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\n\r\n" + OK)
            await peer.gone()

        async with listen(script) as proxy:
            client = Client(proxies=through(proxy))
            with pytest.raises(TlsError):
                prepared = prepare(Origin("https", "origin.test", 443, certificates.trust), "POST", "/")
                await client.send(prepared, b"x", timeouts=Timeouts(tls_s=0.2))
            await client.aclose()

    run(scenario())


def test_certificate_is_the_servers_not_the_proxys(run, listen, certificates):
    async def scenario():
        requests = []
        async with (
            listen(serve_ok, context=certificates.server_context()) as server,
            listen(tunnelling(server.port, requests)) as proxy,
        ):
            client = Client(proxies=through(proxy))
            origin = Origin("https", "elsewhere.test", 443, certificates.trust)
            with pytest.raises(TlsError, match="certificate verify failed") as caught:
                await client.send(prepare(origin, "GET", "/"))
            assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
            await client.aclose()

    run(scenario())

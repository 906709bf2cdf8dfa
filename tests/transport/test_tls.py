"""TLS: who is trusted, what is presented, what a refusal looks like."""

import asyncio
import ssl

import pytest

from farebox.transport import Client, Origin, Tls, TlsError, TransportError, prepare

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def serve_ok(peer):
    while True:
        await peer.request()
        await peer.send(OK)


def test_custom_authority_alpn_and_reuse(run, listen, certificates):
    async def scenario():
        chosen = []

        async def script(peer):
            chosen.append(peer.writer.get_extra_info("ssl_object").selected_alpn_protocol())
            await serve_ok(peer)

        async with listen(script, context=certificates.server_context(), tls=certificates.trust) as server:
            client = Client()
            for _ in range(3):
                response = await client.send(server.prepare(), b"x")
                assert await response.read(10) == b"ok"
            assert chosen == ["http/1.1"]
            await client.aclose()

    run(scenario())


def test_server_name_is_checked_and_sent(run, listen, certificates):
    async def scenario():
        async with listen(serve_ok, context=certificates.server_context(), tls=certificates.trust) as server:
            client = Client()
            named = Origin("https", "localhost", server.port, certificates.trust)
            assert await (await client.send(prepare(named, "GET", "/"))).read(10) == b"ok"
            await client.aclose()

    run(scenario())


@pytest.mark.parametrize("case", ["system authorities", "another authority", "another name"])
def test_untrusted_server_is_refused_before_the_request(case, run, listen, certificates):
    async def scenario():
        context = certificates.server_context()
        async with listen(serve_ok, context=context) as server:
            client = Client()
            origin = {
                "system authorities": Origin("https", "127.0.0.1", server.port),
                "another authority": Origin("https", "127.0.0.1", server.port, Tls(ca_file=certificates.other_ca_file)),
                "another name": Origin("https", "127.0.0.2", server.port, certificates.trust),
            }[case]
            if case == "another name":
                listener = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.2", server.port, ssl=context)
            with pytest.raises(TlsError, match="certificate verify failed") as caught:
                await client.send(prepare(origin, "POST", "/"), b"x")
            assert (caught.value.sent, caught.value.phase) == (False, "tls")
            if case == "another name":
                listener.close()
            await client.aclose()

    run(scenario())


def test_verification_can_be_switched_off(run, listen, certificates):
    async def scenario():
        async with listen(serve_ok, context=certificates.server_context(), tls=Tls(verify=False)) as server:
            client = Client()
            assert await (await client.send(server.prepare())).read(10) == b"ok"
            await client.aclose()

    run(scenario())


def test_client_certificate(run, listen, certificates):
    async def scenario():
        seen = []

        async def script(peer):
            seen.append(peer.writer.get_extra_info("peercert")["subjectAltName"])
            await serve_ok(peer)

        tls = Tls(ca_file=certificates.ca_file, client_cert_file=certificates.client_file)
        async with listen(script, context=certificates.server_context(client_required=True), tls=tls) as server:
            client = Client()
            assert await (await client.send(server.prepare())).read(10) == b"ok"
            assert seen == [(("email", "client@example.org"),)]
            # In TLS 1.3 the client's handshake ends before the server has seen its certificate, so the refusal can come
            # in the handshake or in place of the response.
            without = Origin("https", "127.0.0.1", server.port, certificates.trust)
            with pytest.raises(TransportError):
                await client.send(prepare(without, "GET", "/"))
            await client.aclose()

    run(scenario())


def test_plain_server_is_no_tls_server(run, listen):
    async def scenario():
        async def script(peer):
            await peer.reader.read(1)
            await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        async with listen(script) as server:
            client = Client()
            origin = Origin("https", "127.0.0.1", server.port, Tls(verify=False))
            with pytest.raises(TlsError):
                await client.send(prepare(origin, "GET", "/"))
            await client.aclose()

    run(scenario())


def test_missing_files_are_tls_errors(run):
    async def scenario():
        client = Client()
        for tls in (Tls(ca_file="missing.pem"), Tls(client_cert_file="missing.pem")):
            with pytest.raises(TlsError, match="TLS settings") as caught:
                await client.send(prepare(Origin("https", "127.0.0.1", 1, tls), "GET", "/"))
            assert caught.value.sent is False
        await client.aclose()

    run(scenario())


def test_cancelled_handshake_closes_the_socket(run, listen):
    async def scenario():
        hello, gone = asyncio.Event(), asyncio.Event()

        async def script(peer):
            await peer.reader.read(1)
            hello.set()
            await peer.gone()
            gone.set()

        async with listen(script) as server:
            client = Client()
            origin = Origin("https", "127.0.0.1", server.port, Tls(verify=False))
            task = asyncio.create_task(client.send(prepare(origin, "GET", "/")))
            await hello.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await gone.wait()
            await client.aclose()

    run(scenario())


def test_large_bodies_both_ways(run, listen, certificates):
    async def scenario():
        async def script(peer):
            _, body = await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body))
            await peer.send(body)
            await peer.gone()

        body = bytes(range(256)) * 8192
        async with listen(script, context=certificates.server_context(), tls=certificates.trust) as server:
            client = Client()
            response = await client.send(server.prepare(), body)
            got = b""
            while chunk := await response.next_chunk():
                got += chunk
            assert got == body
            await client.aclose()

    run(scenario())


def test_closing_a_response_closes_the_tls_socket_at_once(run, listen, certificates):
    async def scenario():
        gone = asyncio.Event()

        async def script(peer):
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart")
            try:
                await peer.gone()
            except ssl.SSLError:
                pass
            gone.set()

        async with listen(script, context=certificates.server_context(), tls=certificates.trust) as server:
            client = Client()
            response = await client.send(server.prepare())
            assert await response.next_chunk() == b"part"
            response.close()
            await gone.wait()
            await client.aclose()

    run(scenario())

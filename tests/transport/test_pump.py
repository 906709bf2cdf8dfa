"""`Response.pump`: the body straight from the socket into a function, without a switch of tasks."""

import asyncio

import pytest

from farebox.transport import Client, Origin, Truncated, prepare


async def serving(script: "list[bytes]", pauses: "list[asyncio.Event] | None" = None) -> tuple[asyncio.Server, Origin]:
    """A server that answers with the pieces of the script, each when its event is set, then closes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for index, piece in enumerate(script):
            if pauses is not None:
                await pauses[index].wait()
            writer.write(piece)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    return server, Origin("http", "127.0.0.1", server.sockets[0].getsockname()[1])


HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


async def test_pieces_arrive_in_order_and_the_end_is_told() -> None:
    server, origin = await serving([HEAD + b"3\r\nabc\r\n", b"2\r\nde\r\n", b"0\r\n\r\n"])
    client = Client()
    response = await client.send(prepare(origin, "GET", "/"))
    got: list[bytes] = []

    def sink(data: bytes) -> bool:
        got.append(data)
        return True

    assert await response.pump(sink) is False
    assert b"".join(got) == b"abcde"
    await client.aclose()
    server.close()


async def test_a_sink_that_stops_is_not_called_again_until_asked() -> None:
    pauses = [asyncio.Event() for _ in range(3)]
    server, origin = await serving([HEAD + b"1\r\na\r\n", b"1\r\nb\r\n", b"0\r\n\r\n"], pauses)
    pauses[0].set()
    client = Client()
    response = await client.send(prepare(origin, "GET", "/"))
    got: list[bytes] = []

    def once(data: bytes) -> bool:
        got.append(data)
        return False

    assert await response.pump(once) is True
    pauses[1].set()
    pauses[2].set()
    assert got == [b"a"]
    assert await response.pump(lambda data: got.append(data) is None) is False
    assert got == [b"a", b"b"]
    await client.aclose()
    server.close()


async def test_a_sinks_exception_reaches_the_caller() -> None:
    pauses = [asyncio.Event() for _ in range(2)]
    server, origin = await serving([HEAD, b"1\r\na\r\n"], pauses)
    pauses[0].set()
    client = Client()
    response = await client.send(prepare(origin, "GET", "/"))

    def broken(_data: bytes) -> bool:
        raise LookupError("no")

    task = asyncio.ensure_future(response.pump(broken))
    await asyncio.sleep(0)
    pauses[1].set()
    with pytest.raises(LookupError):
        await task
    response.close()
    await client.aclose()
    server.close()


async def test_a_cut_body_is_told_after_its_bytes() -> None:
    server, origin = await serving([HEAD + b"3\r\nabc\r\n", b"5\r\nde"])
    client = Client()
    response = await client.send(prepare(origin, "GET", "/"))
    got: list[bytes] = []
    with pytest.raises(Truncated):
        await response.pump(lambda data: got.append(data) is None)
    assert b"".join(got).startswith(b"abc")
    await client.aclose()
    server.close()

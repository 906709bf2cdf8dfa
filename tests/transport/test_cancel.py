"""Giving up really gives up: the server sees the socket close, the slot is free, nothing is left behind."""

import asyncio

import pytest

from farebox.transport import BodyTooLarge, Client, Closed, PoolLimits

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n"
ONE = PoolLimits(connections_per_origin_max=1, acquire_s=0.1)


class Story:
    """A server that says `answer` and then waits for the client to go."""

    def __init__(self, answer=b""):
        self.answer = answer
        self.asked = asyncio.Event()
        self.gone = asyncio.Event()

    async def script(self, peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        self.asked.set()
        if self.answer:
            await peer.send(self.answer)
        await peer.gone()
        self.gone.set()


async def slot_is_free(client, server, story):
    """With one slot per origin, another request only reaches the server when the first has given it back."""
    story.asked.clear()
    task = asyncio.create_task(client.send(server.prepare()))
    await story.asked.wait()
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.parametrize("body", [b"", bytes(10_000_000)], ids=["waiting for the head", "writing the body"])
def test_cancelled_send_closes_the_socket(body, run, listen):
    async def scenario():
        story = Story()
        async with listen(story.script) as server:
            client = Client(limits=ONE)
            task = asyncio.create_task(client.send(server.prepare(), body))
            await story.asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await story.gone.wait()
            await slot_is_free(client, server, story)
            await client.aclose()

    run(scenario())


@pytest.mark.parametrize("whole", [False, True], ids=["next_chunk", "read"])
def test_cancelled_read_closes_the_socket(whole, run, listen):
    async def scenario():
        story = Story(HEAD + b"part")
        async with listen(story.script) as server:
            client = Client(limits=ONE)
            response = await client.send(server.prepare())
            if not whole:
                assert await response.next_chunk() == b"part"
            task = asyncio.create_task(response.read(10_000_000) if whole else response.next_chunk())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await story.gone.wait()
            await slot_is_free(client, server, story)
            await client.aclose()

    run(scenario())


def test_closed_response_closes_the_socket_and_keeps_what_came(run, listen):
    async def scenario():
        story = Story(HEAD + b"part")
        async with listen(story.script) as server:
            client = Client(limits=ONE)
            response = await client.send(server.prepare())
            response.close()
            response.close()
            await story.gone.wait()
            assert await response.next_chunk() == b"part"
            with pytest.raises(Closed):
                await response.next_chunk()
            await slot_is_free(client, server, story)
            await client.aclose()

    run(scenario())


def test_closing_a_complete_response_keeps_the_connection(run, listen):
    async def scenario():
        async def script(peer):
            while True:
                await peer.request()
                await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

        async with listen(script) as server:
            client = Client()
            for _ in range(3):
                (await client.send(server.prepare())).close()
            assert len(server.peers) == 1
            await client.aclose()

    run(scenario())


def test_a_response_that_is_left_to_its_end_gives_its_connection_back_and_takes_no_more_bytes(run, listen):
    async def scenario():
        ends, more, gone = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def script(peer):
            head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n"
            await peer.request()
            await peer.send(head)
            await ends.wait()
            await peer.send(b"0\r\n\r\n")
            await peer.request()
            await peer.send(head)
            await more.wait()
            await peer.send(b"4\r\nmore\r\n")
            await peer.gone()
            gone.set()

        async with listen(script) as server:
            client = Client(limits=PoolLimits(connections_per_origin_max=1))
            response = await client.send(server.prepare())
            assert await response.next_chunk() == b"ok"
            response.leave_to_end()
            response.close()
            ends.set()
            response = await asyncio.wait_for(client.send(server.prepare()), 5)
            assert len(server.peers) == 1, "the connection was free when the response had ended"
            assert await response.next_chunk() == b"ok"
            response.leave_to_end()
            more.set()
            await asyncio.wait_for(gone.wait(), 5)
            await client.aclose()

    run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n", id="announced"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nb\r\n01234567890\r\n", id="chunked"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n01234567890", id="to the end of the connection"),
    ],
)
def test_body_too_large_closes_the_socket(answer, run, listen):
    """Also while the server says no more: the client does not wait for the end to refuse."""

    async def scenario():
        story = Story(answer)
        async with listen(story.script) as server:
            client = Client(limits=ONE)
            response = await client.send(server.prepare())
            task = asyncio.create_task(response.read(10))
            await asyncio.wait([task], timeout=0.05)
            if not task.done():  # an unannounced body is only looked at in larger pieces, or at its end
                server.peers[0].writer.write_eof()
            with pytest.raises(BodyTooLarge):
                await task
            await story.gone.wait()
            await client.aclose()

    run(scenario())


def test_body_of_exactly_the_bound_is_read(run, listen):
    async def scenario():
        async def script(peer):
            while True:
                await peer.request()
                await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n01234")
                await peer.send(b"56789")

        async with listen(script) as server:
            client = Client()
            assert await (await client.send(server.prepare())).read(10) == b"0123456789"
            with pytest.raises(BodyTooLarge):
                await (await client.send(server.prepare())).read(9)
            await client.aclose()

    run(scenario())


def test_cancelling_while_dialling_frees_the_slot(run, listen):
    async def scenario():
        story = Story()
        async with listen(story.script) as server:
            client = Client(limits=ONE)
            for _ in range(3):
                task = asyncio.create_task(client.send(server.prepare()))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await slot_is_free(client, server, story)
            await client.aclose()

    run(scenario())


def test_many_cancellations_leave_the_pool_whole(run, listen):
    """Cancel at every stage by cancelling after a growing number of loop turns."""

    async def scenario():
        async def script(peer):
            while True:
                await peer.request()
                await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfi")
                await peer.send(b"ve")

        async with listen(script) as server:
            client = Client(limits=PoolLimits(connections_per_origin_max=3))

            async def call():
                return await (await client.send(server.prepare(), b"x")).read(4)

            for turns in range(40):
                tasks = [asyncio.create_task(call()) for _ in range(6)]
                for _ in range(turns):
                    await asyncio.sleep(0)
                for task in tasks[::2]:
                    task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                assert results[1::2] == [b"five"] * 3
            await client.aclose()

    run(scenario())

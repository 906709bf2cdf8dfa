"""Which connection a request gets: reuse, bounds, the queue, idle connections."""

import asyncio

import pytest

from farebox.transport import Client, Closed, ConnectError, PoolFull, PoolLimits, PoolTimeout

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def gated(gate):
    """A script that answers every request once `gate` is open."""

    async def script(peer):
        while True:
            await peer.request()
            await gate.wait()
            await peer.send(OK)

    return script


async def fetch(client, server):
    response = await client.send(server.prepare())
    return await response.read(10)


def test_open_connections_are_bounded_and_calls_queue(run, listen):
    async def scenario():
        gate = asyncio.Event()
        async with listen(gated(gate)) as server:
            client = Client(limits=PoolLimits(connections_per_origin_max=3))
            calls = [asyncio.create_task(fetch(client, server)) for _ in range(12)]
            await asyncio.wait(calls, timeout=0.05)
            assert len(server.peers) == 3
            gate.set()
            assert await asyncio.gather(*calls) == [b"ok"] * 12
            assert len(server.peers) == 3
            await client.aclose()

    run(scenario())


def test_calls_are_served_in_the_order_they_queued(run, listen, wait_until):
    async def scenario():
        bodies = []

        async def script(peer):
            while True:
                _, body = await peer.request()
                bodies.append(body)
                await gate.wait()
                await peer.send(OK)

        gate = asyncio.Event()
        async with listen(script) as server:
            client = Client(limits=PoolLimits(connections_per_origin_max=1))

            async def call(body):
                await (await client.send(server.prepare(), body)).read(10)

            calls = []
            for number in range(6):
                calls.append(asyncio.create_task(call(b"%d" % number)))
                await asyncio.sleep(0)
            await wait_until(lambda: bodies == [b"0"])
            gate.set()
            await asyncio.gather(*calls)
            assert bodies == [b"0", b"1", b"2", b"3", b"4", b"5"]
            await client.aclose()

    run(scenario())


def test_queue_is_bounded(run, listen, wait_until):
    async def scenario():
        gate = asyncio.Event()
        async with listen(gated(gate)) as server:
            client = Client(limits=PoolLimits(connections_per_origin_max=1, waiters_per_origin_max=2))
            calls = [asyncio.create_task(fetch(client, server)) for _ in range(3)]
            await wait_until(lambda: len(server.peers) == 1)
            with pytest.raises(PoolFull) as caught:
                await fetch(client, server)
            assert (caught.value.sent, caught.value.phase) == (False, "pool")
            gate.set()
            assert await asyncio.gather(*calls) == [b"ok"] * 3
            await client.aclose()

    run(scenario())


def test_waiting_is_bounded_in_time(run, listen):
    async def scenario():
        gate = asyncio.Event()
        async with listen(gated(gate)) as server:
            client = Client(limits=PoolLimits(connections_per_origin_max=1, acquire_s=0.1))
            first = asyncio.create_task(fetch(client, server))
            await asyncio.sleep(0)
            started = asyncio.get_running_loop().time()
            with pytest.raises(PoolTimeout) as caught:
                await fetch(client, server)
            assert 0.1 <= asyncio.get_running_loop().time() - started < 2
            assert (caught.value.sent, caught.value.phase) == (False, "pool")
            gate.set()
            assert await first == b"ok"
            await client.aclose()

    run(scenario())


def test_cancelled_waiter_passes_its_turn_on(run, listen, wait_until):
    async def scenario():
        gate = asyncio.Event()
        async with listen(gated(gate)) as server:
            client = Client(limits=PoolLimits(connections_per_origin_max=1))
            calls = [asyncio.create_task(fetch(client, server)) for _ in range(4)]
            await wait_until(lambda: len(server.peers) == 1)
            calls[1].cancel()
            gate.set()
            assert await calls[0] == b"ok"
            calls[2].cancel()  # it may have been served in this very turn
            assert await calls[3] == b"ok"
            assert await fetch(client, server) == b"ok"
            await client.aclose()

    run(scenario())


def test_slot_of_a_failed_dial_goes_to_the_next_waiter(run, listen):
    async def scenario():
        async def script(peer):
            pass

        async with listen(script) as server:
            prepared = server.prepare()
        client = Client(limits=PoolLimits(connections_per_origin_max=1))
        calls = [asyncio.create_task(client.send(prepared)) for _ in range(5)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result) for result in results] == [ConnectError] * 5
        await client.aclose()

    run(scenario())


def test_slot_of_a_lost_connection_goes_to_the_next_waiter(run, listen):
    async def scenario():
        async def script(peer):
            await peer.request()
            if peer.index:
                await peer.send(OK)
                await peer.gone()

        async with listen(script) as server:
            client = Client(limits=PoolLimits(connections_per_origin_max=1))
            calls = [asyncio.create_task(fetch(client, server)) for _ in range(2)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert (type(results[0]).__name__, results[1]) == ("Truncated", b"ok")
            await client.aclose()

    run(scenario())


def test_most_recently_used_connection_is_taken(run, listen, wait_until):
    async def scenario():
        used = {}

        async def script(peer):
            while True:
                _, body = await peer.request()
                used[body] = peer.index
                if body in gates:
                    await gates[body].wait()
                await peer.send(OK)

        gates = {b"first": asyncio.Event(), b"second": asyncio.Event()}
        async with listen(script) as server:
            client = Client()

            async def call(body):
                await (await client.send(server.prepare(), body)).read(10)

            calls = {body: asyncio.create_task(call(body)) for body in gates}
            await wait_until(lambda: len(used) == 2)
            for body in (b"second", b"first"):
                gates[body].set()
                await calls[body]
            for number in (b"1", b"2", b"3"):
                await call(number)
                assert used[number] == used[b"first"]
            await client.aclose()

    run(scenario())


def test_idle_connections_are_bounded(run, listen, wait_until):
    async def scenario():
        closed = []

        async def script(peer):
            await peer.request()
            await gate.wait()
            await peer.send(OK)
            await peer.gone()
            closed.append(peer.index)

        gate = asyncio.Event()
        async with listen(script) as server:
            client = Client(limits=PoolLimits(idle_per_origin_max=2))
            calls = [asyncio.create_task(fetch(client, server)) for _ in range(5)]
            await wait_until(lambda: len(server.peers) == 5)
            gate.set()
            await asyncio.gather(*calls)
            await wait_until(lambda: len(closed) == 3)
            await client.aclose()

    run(scenario())


def test_idle_connection_is_closed_after_a_while(run, listen):
    async def scenario():
        closed = asyncio.Event()

        async def script(peer):
            await peer.request()
            await peer.send(OK)
            await peer.gone()
            closed.set()

        async with listen(script) as server:
            client = Client(limits=PoolLimits(idle_s=0.1))
            assert await fetch(client, server) == b"ok"
            await closed.wait()
            await asyncio.sleep(0)
            assert await fetch(client, server) == b"ok"
            assert len(server.peers) == 2
            await client.aclose()

    run(scenario())


def test_closing_the_client_ends_every_call(run, listen, wait_until):
    async def scenario():
        async def script(peer):
            await peer.request()
            if peer.index == 0:
                await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok")
            await peer.gone()
            gone.append(peer.index)

        gone = []
        async with listen(script) as server:
            client = Client(limits=PoolLimits(connections_per_origin_max=2))
            reading = await client.send(server.prepare())
            assert await reading.next_chunk() == b"ok"
            sending = asyncio.create_task(client.send(server.prepare()))
            waiting = asyncio.create_task(client.send(server.prepare()))
            await wait_until(lambda: len(server.peers) == 2)
            await client.aclose()
            await client.aclose()
            for call, sent in ((sending, True), (waiting, False), (reading.next_chunk(), True)):
                with pytest.raises(Closed) as caught:
                    await call
                assert caught.value.sent is sent
            with pytest.raises(Closed):
                await client.send(server.prepare())
            await wait_until(lambda: len(gone) == 2)

    run(scenario())


def test_a_connection_lost_before_the_request_left_costs_nothing(run, listen):
    """The server hangs up between the choice of the connection and the end of the turn: nothing was sent, so even a POST goes
    out on another connection."""

    async def scenario():
        bodies = []

        async def script(peer):
            while True:
                bodies.append((peer.index, (await peer.request())[1]))
                await peer.send(OK)

        async with listen(script) as server:
            client = Client()

            async def post(body):
                response = await client.send(server.prepare("POST"), body)
                return await response.read(10)

            assert await post(b"first") == b"ok"
            call = asyncio.ensure_future(post(b"second"))
            (pool,) = client._pools.values()
            connection = pool._idle[-1]
            while connection in pool._idle:
                await asyncio.sleep(0)
            assert bodies == [(0, b"first")]
            connection.eof_received()
            assert await call == b"ok"
            assert bodies == [(0, b"first"), (1, b"second")]
            await client.aclose()

    run(scenario())

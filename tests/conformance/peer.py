"""Another process on the same store, which runs commands of the test."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from operator import attrgetter
from typing import Any, Final

from jobrunner.core.model import Claimed
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from tests.conformance.rigs import store_at
from tests.support.factories import NOW, OTHER_WORKER, claim_of, worker_row
from tests.support.forks import start_blocking
from tests.support.network import enter
from tests.support.processes import CHECKOUT

PATIENCE_S: Final = 20.0


class Peer:
    """A process with the store open; each call is one verb of the store, there."""

    def __init__(self, url: str, network: int | None = None) -> None:
        """``network`` is a process in whose network it lives; None for this one's."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = start_blocking(
                ["-m", "tests.conformance.peer", url, *([] if network is None else [str(network)])],
                theirs.fileno(),
                env=os.environ,
                cwd=CHECKOUT,
            )
        self._pipe = Connection(ours.detach())

    def begin(self, verb: str, *args: Any, **kwargs: Any) -> None:
        """Have a verb done, and do not wait for it."""
        self._pipe.send((verb, args, kwargs))

    def answer(self) -> Any:
        """Wait for the answer to the oldest verb begun; raise what it raised."""
        assert self._pipe.poll(PATIENCE_S), "the other process does not answer"
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def call(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        """Have a verb done, and return its answer."""
        self.begin(verb, *args, **kwargs)
        return self.answer()

    def opened(self) -> "Peer":
        """Wait until the process has the store open."""
        assert self.answer() == "open"
        return self

    def works(self, worker: int = OTHER_WORKER) -> Sequence[Claimed]:
        """Join as a worker and claim whatever there is; return it."""
        self.call("join", worker_row(worker))
        claimed: Sequence[Claimed] = self.call(
            "write", Round(NOW, promote_due=True, claim=claim_of(worker=worker))
        ).claimed
        return claimed

    def pause(self) -> None:
        """Stop the process where it stands, as a debugger or a suspended machine does."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End the process by SIGKILL, and see it dead; safe to call twice."""
        self._process.kill()
        self._process.wait(PATIENCE_S)
        self._pipe.close()

    def end(self) -> None:
        """Close its store and let it come to its end."""
        self._pipe.send(None)
        assert self._process.wait(PATIENCE_S) == 0


async def _serve(pipe: Connection, url: str) -> None:
    store = store_at(url)
    try:
        await store.open()
    except Exception as error:  # noqa: BLE001 - the test is to see it
        pipe.send(error)
        return
    pipe.send("open")
    rung = asyncio.Event()
    while (order := await asyncio.to_thread(pipe.recv)) is not None:
        verb, args, kwargs = order
        try:
            answer = await _do(store, rung, verb, args, kwargs)
        except Exception as error:  # noqa: BLE001 - as above
            answer = error
        pipe.send(answer)
    await store.close()


async def _do(
    store: Store, rung: asyncio.Event, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    match verb:
        case "join":
            (worker,) = args
            return await store.workers.join(worker, rung.set)
        case "hear":
            async with asyncio.timeout(PATIENCE_S):
                return await rung.wait()
        case "ring":
            return store.workers.notify()
        case _:
            return await attrgetter(verb)(store)(*args, **kwargs)


if __name__ == "__main__":
    if sys.argv[2:]:
        enter(int(sys.argv[2]))
    asyncio.run(_serve(Connection(os.dup(0)), sys.argv[1]))

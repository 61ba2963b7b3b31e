"""Holding: a checkpoint stays as it is while razorfsck looks at it, and the mount goes on. The daemon's half; see held.py.

What the newest checkpoint names is pinned for as long as the client is there and speaks. Each time it says something it is told
whether the pin is still there, and which checkpoint was begun last. Invariants: the mount never waits for a look, and takes the
space back that it needs; a client that is gone, or silent for SILENCE_S, holds nothing.
"""

import json

import trio

from razortools.engine.volume import Volume
from razortools.service.committer import Committer
from razortools.service.control import Client
from razortools.service.logs import log

SILENCE_S = 60.0  # a check tells its progress each second; who is silent for so long is stopped, or hangs


class Holder:
    """The daemon's half. One for each mount."""

    def __init__(self, volume: Volume, committer: Committer) -> None:
        """Hold checkpoints of *volume*, whose commits *committer* makes."""
        self._volume = volume
        self._committer = committer

    async def converse(self, request: dict[str, object], client: Client) -> None:
        """Hold the newest checkpoint for *client* until it goes. Each time it asks for a hold it gets a new one."""
        store = self._volume.store
        pins = store.maps.pins
        said: dict[str, object] | None = request
        try:
            while said is not None:
                if said.get("hold"):
                    store.maps.unpin(client)
                    await self._committer.between_commits(lambda: pins.add(client))
                client.tell(_line({"refusal": "", "held": pins.has(client), "begun": store.begun_generation}))
                said = None
                with trio.move_on_after(SILENCE_S) as waiting:
                    said = await client.receive()
                if waiting.cancelled_caught:
                    log.info("a look at the image has fallen silent; its checkpoint is not held any more")
                    store.maps.unpin(client)
                    said = await client.receive()
        except Exception as failure:  # ours: the mount lives on
            log.error("a checkpoint could not be held: %s", failure, exc_info=True)
            client.answer(f"the daemon met a bug, see its log: {type(failure).__name__}: {failure}")
        finally:
            store.maps.unpin(client)


def _line(value: dict[str, object]) -> bytes:
    return json.dumps(value).encode() + b"\n"

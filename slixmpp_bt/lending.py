"""A seed that is open already, for somebody who would open and close one: an engine opens each offer once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from .backends import Admission, Event, EventStream, Seed, Status
from .messages import Candidate


class Lent(Seed):
    """A seed that its owner keeps open. Closing this gives it back, and changes nothing for its peers.

    :param seed: the owner's, open.
    :param returned: called when it is given back.
    """

    def __init__(self, seed: Seed, returned: Callable[[], None]) -> None:
        self.events = EventStream()
        self._seed = seed
        self._returned = returned
        self._before = seed.status().uploaded

    def tell(self, event: Event) -> None:
        """The owner, who alone can read the seed's events, passes one on."""
        self.events.put(event)

    def add_candidates(self, candidates: Iterable[Candidate]) -> None:
        """See :class:`~slixmpp_bt.backends.Swarm`."""
        self._seed.add_candidates(candidates)

    def remove_candidates(self, candidates: Iterable[Candidate]) -> None:
        """See :class:`~slixmpp_bt.backends.Swarm`."""
        self._seed.remove_candidates(candidates)

    async def admit(self, admission: Admission) -> None:
        """See :class:`~slixmpp_bt.backends.Swarm`."""
        await self._seed.admit(admission)

    async def pause(self) -> None:
        """The owner goes on serving others."""

    async def resume(self) -> None:
        """See :class:`~slixmpp_bt.backends.Swarm`."""
        await self._seed.resume()

    def status(self) -> Status:
        """The seed's, but for what was uploaded before it was lent."""
        now = self._seed.status()
        return replace(now, uploaded=now.uploaded - self._before)

    async def aclose(self) -> None:
        """Give it back."""
        self.events.close()
        self._returned()

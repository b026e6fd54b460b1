"""What a network and a server can do to stanzas: lose them, repeat them, let them wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from xml.etree.ElementTree import Element

Predicate = Callable[[Element], bool]
Forward = Callable[[Element], None]


def carries(name: str) -> Predicate:
    """Whether a stanza has, anywhere, an element of this namespace, or of this tag in Clark notation.

    ``carries("urn:xmpp:ping")``, ``carries("{http://jabber.org/protocol/ibb}data")``
    """
    prefix = name if name.startswith("{") else f"{{{name}}}"

    def predicate(stanza: Element) -> bool:
        return any(
            element.tag == name or (prefix != name and element.tag.startswith(prefix)) for element in stanza.iter()
        )

    return predicate


class Fault:
    """One thing that goes wrong. ``hits`` counts the stanzas it has befallen.

    Calling it, as :meth:`release`, ends it; what it was holding goes on its way in the order in which it came.
    """

    def __init__(self, faults: Faults, predicate: Predicate, count: int | None) -> None:
        self.hits = 0
        self._faults = faults
        self._predicate = predicate
        self._left = count

    def matches(self, stanza: Element) -> bool:
        """Whether `stanza` is one that it befalls; counted."""
        if self._left == 0 or not self._predicate(stanza):
            return False
        self.hits += 1
        if self._left is not None:
            self._left -= 1
        return True

    def befall(self, stanza: Element, forward: Forward) -> None:
        """What happens to a stanza. To be lost is the default."""

    def release(self) -> None:
        """End it."""
        self._faults.remove(self)

    def drop(self) -> None:
        """End it, and forget what it was holding."""
        self._faults.remove(self)

    def __call__(self) -> None:
        self.release()


class _Duplicate(Fault):
    def befall(self, stanza: Element, forward: Forward) -> None:
        forward(stanza)
        forward(stanza)


class _Hold(Fault):
    def __init__(self, faults: Faults, predicate: Predicate, count: int | None) -> None:
        super().__init__(faults, predicate, count)
        self._held: list[tuple[Element, Forward]] = []

    def befall(self, stanza: Element, forward: Forward) -> None:
        self._held.append((stanza, forward))

    def release(self) -> None:
        super().release()
        held, self._held = self._held, []
        for stanza, forward in held:
            forward(stanza)

    def drop(self) -> None:
        super().drop()
        self._held.clear()


class _Delay(Fault):
    def __init__(self, faults: Faults, predicate: Predicate, count: int | None, seconds: float) -> None:
        super().__init__(faults, predicate, count)
        self._seconds = seconds
        self._timers: dict[asyncio.TimerHandle, Callable[[], None]] = {}

    def befall(self, stanza: Element, forward: Forward) -> None:
        def arrive() -> None:
            del self._timers[timer]
            forward(stanza)

        timer = asyncio.get_running_loop().call_later(self._seconds, arrive)
        self._timers[timer] = arrive

    def release(self) -> None:
        super().release()
        for timer, arrive in list(self._timers.items()):
            timer.cancel()
            arrive()

    def drop(self) -> None:
        super().drop()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()


class Faults:
    """What goes wrong with stanzas between their arrival at the server and their routing.

    A predicate gets each stanza that a client or component sends, an element in ``jabber:client`` with ``from`` and, if
    the sender gave one, ``to``, and says whether it is meant; :func:`carries` makes one. `count` bounds how many are;
    None is all. The first fault that matches decides. What the server itself sends (copies of a room's messages, roster
    pushes, notifications) is not affected.
    """

    def __init__(self) -> None:
        self._active: list[Fault] = []

    def lose(self, predicate: Predicate, count: int | None = 1) -> Fault:
        """Let stanzas vanish."""
        return self._add(Fault(self, predicate, count))

    def duplicate(self, predicate: Predicate, count: int | None = 1) -> Fault:
        """Let stanzas arrive twice."""
        return self._add(_Duplicate(self, predicate, count))

    def delay(self, predicate: Predicate, seconds: float, count: int | None = None) -> Fault:
        """Let stanzas arrive later; others overtake them."""
        return self._add(_Delay(self, predicate, count, seconds))

    def hold(self, predicate: Predicate, count: int | None = None) -> Fault:
        """Keep stanzas until the result is called."""
        return self._add(_Hold(self, predicate, count))

    def remove(self, fault: Fault) -> None:
        """End a fault; nothing happens if it has ended."""
        if fault in self._active:
            self._active.remove(fault)

    def clear(self) -> None:
        """End all faults; what they held is lost."""
        for fault in tuple(self._active):
            fault.drop()

    def pass_through(self, stanza: Element, forward: Forward) -> None:
        """Let `stanza` through to `forward`, or let something happen to it."""
        for fault in self._active:
            if fault.matches(stanza):
                fault.befall(stanza, forward)
                return
        forward(stanza)

    def _add(self, fault: Fault) -> Fault:
        self._active.append(fault)
        return fault

"""Who is next where clients share something, so that each gets its share of it in the long run.

Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996), as Sheng et al. use it for language models ("Fairness in
Serving Large Language Models", OSDI 2024): every client has an account of what it has used, and the one with the least
is next. Who comes back begins at the least of those that are there: nobody saves up a share by staying away.
"""

from __future__ import annotations

from collections.abc import Iterable


class FairShares:
    """The accounts, in whatever unit is charged. A client is there while it uses or wants some.

    Where only the first client of `in_order` is charged, and at most M at once, the accounts of those that are
    there differ by no more than M. So a client that stays gets no less than an equal share of all that is charged
    since it came, minus M.
    """

    def __init__(self) -> None:
        self._used: dict[str, float] = {}
        self._present: set[str] = set()
        self._least = 0.0  # of those that are there; it never falls

    def note_present(self, clients: Iterable[str]) -> None:
        """Takes down who is there now. To be called before every charge.

        Who comes is compared with the others as they were before the last charge. So a client that leaves for a moment
        loses nothing. The account of one that has left is forgotten once all others have used as much.
        """
        before, self._present = self._present, set(clients)
        for client in self._present - before:
            self._used[client] = max(self._used.get(client, 0.0), self._least)
        if self._present:
            self._least = max(self._least, min(self._used[client] for client in self._present))
        if self._present != before:
            self._used = {
                client: used
                for client, used in self._used.items()
                if client in self._present or used > self._least
            }

    def in_order(self, clients: Iterable[str]) -> list[str]:
        """Returns each of some clients that are there, those first that have used the least."""
        return sorted(dict.fromkeys(clients), key=self._used.__getitem__)

    def charge(self, client: str, amount: float) -> None:
        """Adds to the account of a client that is there."""
        self._used[client] += amount

"""Checks that the agent can be reached."""

from __future__ import annotations

import errno
import socket

from edgewright_agent.doctor.finding import Finding, Subject, ok, problem, warning


def port_is_free(subject: Subject) -> Finding | None:
    """Checks that the port is free, or says that somebody listens there."""
    address = subject.listen
    if address is None or address.port == 0:
        return None
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address.host, address.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return warning(
                    f"{address} is in use: by the agent, if it runs, else by something in its way.",
                    f"`sudo ss -ltnp 'sport = :{address.port}'` says by what.",
                )
            remedy = "Give --listen an address of this board, such as 0.0.0.0:7443."
            return problem(f"{address} can't be listened on: {error.strerror}.", remedy)
    return ok(f"{address} is free to listen on.")

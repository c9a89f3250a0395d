"""CURVE on ZeroMQ sockets: keys are shown, and only listed clients are let in."""

from __future__ import annotations

import zmq
from zmq.auth.thread import ThreadAuthenticator

from streams.wire.clients import AllowedClients, Client
from streams.wire.curve_keys import CurveKeys
from streams.wire.roles import Role

_authenticators: dict[str, ThreadAuthenticator] = {}


def new_pair() -> tuple[str, str]:
    """A new CURVE pair, (public, secret), as Z85 text."""
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def only_client(curve_keys: CurveKeys | None) -> AllowedClients | None:
    """Return the one client of a key folder, who may do everything; None without keys."""
    if curve_keys is None:
        return None
    return AllowedClients([Client("client", Role.DEPLOY, curve_keys.other)])


def guard(socket: zmq.Socket[bytes], curve_keys: CurveKeys, clients: AllowedClients) -> None:
    """Encrypt, and let in the clients that are listed alone."""
    # libzmq has one authentication endpoint per context, so one thread serves all sockets.
    if not _authenticators:
        authenticator = ThreadAuthenticator(zmq.Context.instance())
        authenticator.start()
        _authenticators["all"] = authenticator
    domain = f"spikeloop-{id(clients)}"
    _authenticators["all"].configure_curve_callback(domain=domain, credentials_provider=clients)
    socket.zap_domain = domain.encode()
    # Without it libzmq lets everybody in where the authenticating thread has died.
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    socket.curve_server = True
    set_own_pair(socket, curve_keys)


def set_own_pair(socket: zmq.Socket[bytes], curve_keys: CurveKeys) -> None:
    """Show one side's own keys."""
    socket.curve_publickey = curve_keys.public.encode()
    socket.curve_secretkey = curve_keys.secret.encode()


def end_authentication() -> None:
    """End the thread that authenticates; nobody is let in any more."""
    if _authenticators:
        _authenticators.pop("all").stop()

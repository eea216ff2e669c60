"""The sessions of requests, which ccxt uses, through a SOCKS5 proxy.

requests' own way needs PySocks, which nobody keeps any more; this one takes the tunnel of
`proxy.py`.
"""

import socket
from functools import partial
from typing import Any, Final

from requests import Session
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NewConnectionError

from bot4_runtime.exchange.binance.proxy import NoTunnel, socks_tunnel

CONNECT_S: Final = 5.0


class _Tunnelled(HTTPConnection):
    def __init__(self, *place: Any, through: str, **named: Any) -> None:
        super().__init__(*place, **named)
        self._through = through

    def _new_conn(self) -> socket.socket:
        try:
            return socks_tunnel(self._through, self.host, self.port or 80, CONNECT_S)
        except NoTunnel as error:
            raise NewConnectionError(self, str(error)) from error


class _TunnelledTls(_Tunnelled, HTTPSConnection):
    pass


class _Adapter(HTTPAdapter):
    def __init__(self, proxy: str) -> None:
        self._through = proxy
        super().__init__()

    def init_poolmanager(self, *sizes: Any, **named: Any) -> None:
        super().init_poolmanager(*sizes, **named)
        plain: Any = partial(_pool, HTTPConnectionPool, _Tunnelled, self._through)
        secure: Any = partial(_pool, HTTPSConnectionPool, _TunnelledTls, self._through)
        self.poolmanager.pool_classes_by_scheme = {"http": plain, "https": secure}


def _pool(kind: Any, connection: Any, proxy: str, *place: Any, **named: Any) -> Any:
    pool = kind(*place, **named)
    pool.ConnectionCls = partial(connection, through=proxy)
    return pool


def go_through(session: Session, proxy: str) -> None:
    """Let all of a session's connections go through a SOCKS5 proxy, whatever the environment."""
    session.trust_env = False
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(proxy))

"""A TCP proxy that can be slow, talk nonsense, or be gone. Knows nothing of what passes."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

CHUNK = 65536


class Proxy:
    """Forwards connections of `port` to another one; how it behaves can be changed at any time.

    `delay` is in seconds, for each piece that a client sends; `nonsense` is sent back in place of
    passing the piece on.
    """

    def __init__(self, target: int) -> None:
        self.delay = 0.0
        self.nonsense: bytes | None = None
        self._target = target
        self._open: set[socket.socket] = set()
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]

    @contextlib.contextmanager
    def gone(self) -> Iterator[None]:
        """Nobody listens, and connections are cut."""
        self.close()
        try:
            yield
        finally:
            self._listener = self._listen(self.port)

    def cut(self) -> None:
        """End all connections; new ones are taken."""
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End everything."""
        # a thread that waits in accept is not woken by a close alone
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), reuse_port=False)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.socket() as server:
            server.connect(("127.0.0.1", self._target))
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.add(one)
            back = threading.Thread(target=self._answers, args=(server, client), daemon=True)
            back.start()
            try:
                self._questions(client, server)
            finally:
                with contextlib.suppress(OSError):
                    server.shutdown(socket.SHUT_RDWR)
                back.join()
                self._open -= {client, server}

    def _questions(self, client: socket.socket, server: socket.socket) -> None:
        while data := client.recv(CHUNK):
            time.sleep(self.delay)
            if self.nonsense is None:
                server.sendall(data)
            else:
                client.sendall(self.nonsense)

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(CHUNK):
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

"""A TCP proxy that can be slow, talk nonsense, or be gone. Knows nothing of what passes."""

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterator

from benchmarks.servers import free_port

CHUNK = 65536

# what a client has sent, and when it arrives; None: no more
Way = queue.SimpleQueue[tuple[float, bytes] | None]


class Proxy:
    """Forwards connections of `port` to another one; how it behaves can be changed at any time.

    `delay` is in seconds, for whatever a client sends, as on a long way: pieces follow one another.
    `nonsense` is sent back in place of passing a piece on.
    """

    def __init__(self, target: int) -> None:
        self.delay = 0.0
        self.nonsense: bytes | None = None
        self._target = target
        self._open: set[socket.socket] = set()
        self.port = free_port()
        self._listener = self._listen()

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """Nobody listens, and connections are cut."""
        self.close()
        try:
            yield
        finally:
            self._listener = self._listen()

    def cut(self) -> None:
        """End all connections; new ones are taken."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End everything."""
        # a thread that waits in accept is not woken by a close alone
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _listen(self) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", self.port), reuse_port=False)
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
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.add(sock)
            way: Way = queue.SimpleQueue()
            ends = [
                threading.Thread(target=self._carry, args=(way, client, server), daemon=True),
                threading.Thread(target=self._answers, args=(server, client), daemon=True),
            ]
            for end in ends:
                end.start()
            try:
                while data := client.recv(CHUNK):
                    way.put((time.monotonic() + self.delay, data))
            finally:
                way.put(None)
                with contextlib.suppress(OSError):
                    server.shutdown(socket.SHUT_RDWR)
                for end in ends:
                    end.join()
                self._open -= {client, server}

    def _carry(self, way: Way, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := way.get():
                due, data = piece
                time.sleep(max(0, due - time.monotonic()))
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

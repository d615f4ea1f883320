"""A stand-in for adbd, the daemon on a phone, for the real adb client to connect to over TCP.

It speaks as much of the protocol as a benchmark needs (AOSP, packages/modules/adb: protocol.txt, SYNC.TXT,
shell_protocol.h): CNXN and AUTH, streams by OPEN, OKAY, WRTE and CLSE, and on them the services shell (version 2,
which has exit statuses), sync (STAT and SEND) and ``exec:cmd package install``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import threading
import time
from typing import Any

from .fake_phone import FakePhone

CNXN, AUTH, OPEN, OKAY, WRTE, CLSE = (
    int.from_bytes(name, "little") for name in (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"WRTE", b"CLSE")
)
VERSION = 0x01000001  # from this one on, data have no checksum
MAX_DATA = 256 * 1024
BANNER = b"device::ro.product.name=fake;ro.product.model=Pixel_8;features=shell_v2,cmd"
TOKEN = 1
STDOUT, STDERR, EXIT = 1, 2, 3  # packets of shell version 2


class FakeAdbd:
    """A listening daemon.

    Args:
        phone: what it is the daemon of.
        scenario: ``unauthorized``: the computer is not allowed; ``unplug_at``: a part of a service's name at which
            the connection ends for good; ``hang_at``: one that is never answered.
    """

    def __init__(self, phone: FakePhone, **scenario: Any) -> None:
        self.phone, self.scenario = phone, scenario
        self.services: list[str] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Be gone, as a phone whose cable is pulled."""
        for each in (self.listener, *self.connections):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            _Connection(self, connection).run()
        except OSError:
            connection.close()


class _Connection:
    """One client's connection, and its streams."""

    def __init__(self, adbd: FakeAdbd, connection: socket.socket) -> None:
        self.adbd, self.socket = adbd, connection
        self.lock = threading.Lock()
        self.streams: dict[int, _Stream] = {}

    def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        head = struct.pack("<6I", command, first, second, len(data), 0, command ^ 0xFFFFFFFF)
        with self.lock:
            self.socket.sendall(head + data)

    def run(self) -> None:
        while True:
            command, first, second, size, _, _ = struct.unpack("<6I", self._read(24))
            self._handle(command, first, second, self._read(size))

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise ConnectionError
            data += part
        return data

    def _handle(self, command: int, first: int, second: int, data: bytes) -> None:
        if command in (CNXN, AUTH):
            if self.adbd.scenario.get("unauthorized"):
                if (
                    command == CNXN or first == 2
                ):  # a signature is refused; an offered key waits for the person
                    self.send(AUTH, TOKEN, 0, os.urandom(20))
            else:
                self.send(CNXN, VERSION, MAX_DATA, BANNER)
        elif command == OPEN:
            service = data.rstrip(b"\0").decode()
            self.adbd.services.append(service)
            if (part := self.adbd.scenario.get("unplug_at")) and part in service:
                self.adbd.close()
                return
            stream = _Stream(self, local=len(self.adbd.services), remote=first)
            self.streams[stream.local] = stream
            self.send(OKAY, stream.local, first)
            threading.Thread(target=self._answer, args=(stream, service), daemon=True).start()
        elif command == WRTE and second in self.streams:
            self.streams[second].received(data)
            self.send(OKAY, second, first)
        elif command == OKAY and second in self.streams:
            self.streams[second].acknowledged.release()
        elif command == CLSE and second in self.streams:
            self.streams.pop(second).received(None)

    def _answer(self, stream: _Stream, service: str) -> None:
        name, _, argument = service.partition(":")
        phone = self.adbd.phone
        try:
            if (part := self.adbd.scenario.get("hang_at")) and part in service:
                time.sleep(60)
            elif name.startswith("shell,v2"):
                code, output, errors = phone.shell(argument)
                packets = ((STDOUT, output.encode()), (STDERR, errors.encode()), (EXIT, bytes([code])))
                stream.write(
                    b"".join(struct.pack("<BI", kind, len(data)) + data for kind, data in packets if data)
                )
            elif name == "sync":
                _sync(stream, phone)
            elif service.startswith("exec:cmd package") and "install" in service:
                size = int(argument.split("-S")[1].split()[0].strip("'"))
                problem = phone.install(stream.read(size))
                stream.write((f"{problem}\n" if problem else "Success\n").encode())
            else:
                raise AssertionError(f"the benchmark opens {service}")
            self.send(CLSE, stream.local, stream.remote)
        except OSError:
            pass


class _Stream:
    """One service's two directions of bytes."""

    def __init__(self, connection: _Connection, local: int, remote: int) -> None:
        self.connection, self.local, self.remote = connection, local, remote
        self.acknowledged = threading.Semaphore(0)
        self.buffer = b""
        self.is_closed = False
        self.changed = threading.Condition()

    def received(self, data: bytes | None) -> None:
        """More bytes of the client; None when it has closed."""
        with self.changed:
            self.buffer += data or b""
            self.is_closed |= data is None
            self.changed.notify()
        if data is None:
            self.acknowledged.release()

    def read(self, size: int) -> bytes:
        with self.changed:
            self.changed.wait_for(lambda: len(self.buffer) >= size or self.is_closed)
            if len(self.buffer) < size:
                raise ConnectionError
            data, self.buffer = self.buffer[:size], self.buffer[size:]
            return data

    def write(self, data: bytes) -> None:
        """Bytes to the client, which acknowledges each message before the next."""
        for start in range(0, len(data), MAX_DATA):
            self.connection.send(WRTE, self.local, self.remote, data[start : start + MAX_DATA])
            self.acknowledged.acquire()


def _sync(stream: _Stream, phone: FakePhone) -> None:
    """The service that copies files."""
    while True:
        request, size = struct.unpack("<4sI", stream.read(8))
        if request == b"QUIT":
            return
        argument = stream.read(size).decode()
        if request == b"STAT":
            path = phone.path(argument)
            mode = stat.S_IFDIR | 0o755 if path.is_dir() else stat.S_IFREG | 0o644 if path.exists() else 0
            stream.write(struct.pack("<4s3I", b"STAT", mode, 0, 0))
        elif request == b"SEND":
            _receive(stream, phone, argument.rpartition(",")[0])
        else:
            raise AssertionError(f"the benchmark asks sync for {request!r}")


def _receive(stream: _Stream, phone: FakePhone, remote: str) -> None:
    content = b""
    while True:
        kind, size = struct.unpack("<4sI", stream.read(8))  # of DONE, the size is the time of the file
        if kind == b"DONE":
            break
        assert kind == b"DATA", kind
        content += stream.read(size)
    if problem := phone.scenario.get("push"):
        stream.write(struct.pack("<4sI", b"FAIL", len(problem)) + problem.encode())
        return
    phone.path(remote).write_bytes(content)
    stream.write(struct.pack("<4sI", b"OKAY", 0))

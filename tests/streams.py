"""Streams over loopback, as a camera or a station sends them: MPEG-TS over TCP, HTTP and UDP that stops and returns."""

import contextlib
import fractions
import io
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence

import av
import numpy as np

PACKET = 7 * 188  # bytes of a datagram


def pictures(count: int, size: tuple[int, int] = (32, 40)) -> list[np.ndarray]:
    """Grey frames, each of a level of its own."""
    return [np.full((*size, 3), 16 + 200 * place // count, np.uint8) for place in range(count)]


def mpegts(images: Sequence[np.ndarray], *, fps: int = 25, start: float = 0.0) -> bytes:
    """Frames as H.264 in MPEG-TS, the first one at `start` seconds; every tenth is a keyframe."""
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=fps, options={"g": "10", "tune": "zerolatency"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for place, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = round(start * fps) + place, fractions.Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


@contextlib.contextmanager
def serving(parts: Sequence[bytes], *, http: bool = False, silent: bool = False) -> Iterator[str]:
    """The address of a server that sends one part to each connection and closes it; `silent`: keeps it open. Without
    another part nobody listens."""
    done = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]

    def serve():
        with contextlib.suppress(OSError), listening:  # closed, or a reader that has gone
            for part in parts:
                connection, _ = listening.accept()
                with connection:
                    if http:
                        connection.recv(65536)
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nConnection: close\r\n\r\n")
                    connection.sendall(part)
                    if silent:
                        done.wait()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"{'http' if http else 'tcp'}://127.0.0.1:{port}"
    finally:
        done.set()
        listening.close()


@contextlib.contextmanager
def sending(parts: Sequence[bytes], *, seconds: Sequence[float], pause: float) -> Iterator[str]:
    """The address of a stream over UDP: each part is sent over its number of seconds, then comes the pause."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    done = threading.Event()

    def send():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for part, lasting in zip(parts, seconds, strict=True):
                begin = time.monotonic()
                for first in range(0, len(part), PACKET):
                    if done.wait(max(0.0, begin + lasting * first / len(part) - time.monotonic())):
                        return
                    sender.sendto(part[first : first + PACKET], ("127.0.0.1", port))
                done.wait(pause)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield f"udp://127.0.0.1:{port}"
    finally:
        done.set()
        thread.join()


_SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=a\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\nc=IN IP4 0.0.0.0\r\na=control:track\r\n"
)


@contextlib.contextmanager
def playing(parts: Sequence[bytes]) -> Iterator[str]:
    """The address of an RTSP server, as cameras have it, which plays one part to each connection and closes it."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]

    def answer(connection, part):
        with connection.makefile("rwb") as file:
            while request := file.readline().decode().split():
                headers = dict(line.decode().strip().split(": ", 1) for line in iter(file.readline, b"\r\n"))
                body = _SDP if request[0] == "DESCRIBE" else ""
                about = f"CSeq: {headers['CSeq']}\r\nSession: 1\r\nContent-Length: {len(body)}\r\n"
                about += "Content-Type: application/sdp\r\n" if body else ""
                about += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n" if request[0] == "SETUP" else ""
                file.write(f"RTSP/1.0 200 OK\r\n{about}\r\n{body}".encode())
                file.flush()
                if request[0] == "PLAY":
                    for number, first in enumerate(range(0, len(part), PACKET)):
                        data = struct.pack(">BBHII", 0x80, 33, number, number * 1000, 7) + part[first : first + PACKET]
                        file.write(struct.pack(">cBH", b"$", 0, len(data)) + data)
                    return

    def serve():
        with contextlib.suppress(OSError, ValueError), listening:
            for part in parts:
                connection, _ = listening.accept()
                with connection:
                    answer(connection, part)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"rtsp://127.0.0.1:{port}/a"
    finally:
        listening.close()

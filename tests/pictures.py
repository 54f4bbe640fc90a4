"""Picture files that are small and unpack to something large."""

import struct
import zlib


def png(width: int, height: int) -> bytes:
    """A grey PNG of this size and few bytes."""
    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(b"\0" * (1 + width)) for _ in range(height)) + rows.flush()
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", packed), (b"IEND", b"")]
    framed = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def icon(picture: bytes) -> bytes:
    """An icon that says it is 16 × 16 pixels, and holds a PNG of any size."""
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(picture), 22) + picture

"""Makes screenshots small: at most 256 colours, one byte for each pixel."""

import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_COLOURS: Final = 256
_CHANNELS: Final = {2: 3, 6: 4}
"""Bytes of a pixel by the colour type of its PNG: RGB and RGBA with eight bits each."""

_Colour = tuple[int, int, int]


def with_palette(png: bytes) -> bytes:
    """Return an opaque picture with its 256 most frequent colours; each other colour becomes the nearest."""
    width, height, rows = _decoded(png)
    pixels = [list(zip(row[0::3], row[1::3], row[2::3], strict=True)) for row in rows]
    counts = Counter(pixel for row in pixels for pixel in row)
    palette = [colour for colour, _ in counts.most_common(_COLOURS)]
    index = {colour: _nearest(colour, palette) for colour in counts}
    index |= {colour: number for number, colour in enumerate(palette)}
    # Each line begins with its filter: none, which suits a palette best.
    lines = b"".join(b"\0" + bytes(index[pixel] for pixel in row) for row in pixels)
    chunks = [
        _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        _chunk(b"PLTE", bytes(value for colour in palette for value in colour)),
        _chunk(b"IDAT", zlib.compress(lines, 9)),
        _chunk(b"IEND", b""),
    ]
    return _SIGNATURE + b"".join(chunks)


def _nearest(colour: _Colour, palette: Iterable[_Colour]) -> int:
    red, green, blue = colour
    distances = [(red - r) ** 2 + (green - g) ** 2 + (blue - b) ** 2 for r, g, b in palette]
    return distances.index(min(distances))


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_SIGNATURE)
    while at < len(png):
        (size,) = struct.unpack_from(">I", png, at)
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        at += 12 + size


def _decoded(png: bytes) -> tuple[int, int, list[bytes]]:
    """Return width, height and the RGB bytes of each row."""
    chunks = list(_chunks(png))
    width, height, depth, kind, *_ = struct.unpack(">IIBBBBB", chunks[0][1])
    assert depth == 8
    size = _CHANNELS[kind]
    data = zlib.decompress(b"".join(part for name, part in chunks if name == b"IDAT"))
    stride = width * size
    before = bytearray(stride)
    rows = []
    for start in range(0, len(data), stride + 1):
        line = bytearray(data[start + 1 : start + 1 + stride])
        _unfilter(data[start], line, before, size)
        rows.append(bytes(line) if size == 3 else _opaque(line))
        before = line
    return width, height, rows


def _opaque(line: bytearray) -> bytes:
    rgb = bytearray(len(line) // 4 * 3)
    for channel in range(3):
        rgb[channel::3] = line[channel::4]
    return bytes(rgb)


def _unfilter(kind: int, line: bytearray, above: bytearray, size: int) -> None:
    """Undo the filter of one line in place; see section 9 of the PNG specification."""
    for at in range(len(line)):
        left = line[at - size] if at >= size else 0
        corner = above[at - size] if at >= size else 0
        match kind:
            case 0:
                return
            case 1:
                guess = left
            case 2:
                guess = above[at]
            case 3:
                guess = (left + above[at]) // 2
            case _:
                guess = min(
                    (left, above[at], corner),
                    key=lambda one: abs(left + above[at] - corner - one),
                )
        line[at] = (line[at] + guess) & 0xFF

"""HdrHistogram's V2 encoding, as far as it is needed here: an independent reader and writer of
what the workers keep (100 ns to 1 h, three digits)."""

import base64
import struct
import zlib

LOWEST, HIGHEST, DIGITS = 100, 3_600_000_000_000, 3
# A bucket has the power of two that tells twice 10^3 values apart; a unit is the power of two
# that is not above the lowest value.
MAGNITUDE, UNIT = 11, 6
HALF = 1 << (MAGNITUDE - 1)
COOKIE, DEFLATED = 0x1C849313, 0x1C849314


def index(value):
    """Place of a value."""
    bucket = max(0, value.bit_length() - UNIT - MAGNITUDE)
    return ((bucket + 1) << (MAGNITUDE - 1)) + (value >> (bucket + UNIT)) - HALF


def highest(place):
    """Largest value of a place."""
    bucket, rest = place >> (MAGNITUDE - 1), place & (HALF - 1)
    if bucket == 0:
        return ((rest + 1) << UNIT) - 1
    return ((rest + HALF + 1) << (bucket - 1 + UNIT)) - 1


def encode(counts):
    """Text of a histogram: counts by place."""
    payload, zeros = bytearray(), 0
    for place in range(max(counts, default=-1) + 1):
        count = counts.get(place, 0)
        if count == 0:
            zeros += 1
            continue
        if zeros:
            payload += number(-zeros)
            zeros = 0
        payload += number(count)
    head = struct.pack(">iiiiqqd", COOKIE, len(payload), 0, DIGITS, LOWEST, HIGHEST, 1.0)
    packed = zlib.compress(head + bytes(payload))
    return base64.b64encode(struct.pack(">ii", DEFLATED, len(packed)) + packed).decode()


def number(value):
    """ZigZag LEB128 of 64 bits, nine bytes at most."""
    value = ((value << 1) ^ (value >> 63)) & (2**64 - 1)
    out = bytearray()
    while value >= 0x80 and len(out) < 8:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return out


def decode(text):
    """Counts by place."""
    data = base64.b64decode(text)
    cookie, length = struct.unpack_from(">ii", data)
    if cookie != DEFLATED:
        raise ValueError("not a deflated histogram")
    plain = zlib.decompress(data[8 : 8 + length])
    cookie, length, _, digits, lowest, top, _ = struct.unpack_from(">iiiiqqd", plain)
    if (cookie, digits, lowest, top) != (COOKIE, DIGITS, LOWEST, HIGHEST):
        raise ValueError("a histogram of another kind")
    payload, counts, place, at = plain[40 : 40 + length], {}, 0, 0
    while at < len(payload):
        value, shift = 0, 0
        while True:
            byte = payload[at]
            at += 1
            if shift == 56:
                value |= byte << shift
                break
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        value = (value >> 1) ^ -(value & 1)
        if value < 0:
            place -= value
        else:
            counts[place] = value
            place += 1
    return counts


def quantile(counts, share):
    """Largest value of the place in which the rank lies."""
    import math

    total = sum(counts.values())
    rank, below = max(1, math.ceil(share * total)), 0
    for place in sorted(counts):
        below += counts[place]
        if below >= rank:
            return highest(place)
    return None

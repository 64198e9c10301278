"""WebSocket frames (RFC 6455 section 5.2), as far as it takes to undo the masks, which are random."""

from __future__ import annotations


def unmasked(data: bytes) -> bytes:
    """The same frames without their masks; what is no whole frame stays as it is."""
    out, at = bytearray(), 0
    while at + 2 <= len(data):
        length, body = data[at + 1] & 0x7F, at + 2
        if length > 125:
            size = 2 if length == 126 else 8
            length = int.from_bytes(data[body : body + size], "big")
            body += size
        masked = bool(data[at + 1] & 0x80)
        start = body + 4 * masked
        if start + length > len(data):
            break
        payload = data[start : start + length]
        if masked:
            mask = data[body:start] * (length // 4 + 1)
            clear = int.from_bytes(payload, "big") ^ int.from_bytes(mask[:length], "big")
            payload = clear.to_bytes(length, "big")
        out += data[at:body] + payload
        at = start + length
    return bytes(out + data[at:])

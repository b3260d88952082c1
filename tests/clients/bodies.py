"""Calls a provider with a body that no honest client would send, and takes whatever comes back.

Prints one JSON object: {"status", "kind": the media type, "received": bytes of the answer's body, "body": how it begins,
"end": how it ends, "sent", "seconds"}. Stops sending as soon as an answer comes, as the vendors' clients do.
"""

import argparse
import json
import os
import select
import ssl
import struct
import sys
import time
import zlib

from raw import CHAT, secure
import socket

LIMIT = 32 << 20
OPEN = b'{"model":"gpt-5","max_tokens":100,"messages":[{"role":"user","content":"Hi"}]'


def plain():
    yield OPEN + b"}"


def streamed():
    yield OPEN + b',"stream":true,"stream_options":{"include_usage":true}}'


def hundred_megabytes():
    yield b'{"model":"gpt-5","max_tokens":100,"messages":[{"role":"user","content":"'
    for _ in range(100):
        yield b"x" * (1 << 20)
    yield b'"}]}'


def one_string():
    """A prompt of 31 MiB, which is within the limit."""
    yield b'{"model":"gpt-5","max_tokens":100,"messages":[{"role":"user","content":"'
    for _ in range(31):
        yield b"x" * (1 << 20)
    yield b'"}]}'


def one_name():
    yield OPEN + b',"'
    for _ in range(31):
        yield b"x" * (1 << 20)
    yield b'":0}'


def deep():
    yield OPEN + b',"metadata":' + b'{"a":[' * 5_000 + b"]}" * 5_000 + b"}"


def million_names():
    yield OPEN + b',"metadata":{'
    for thousand in range(1_000):
        yield b"".join(b'"%d":0,' % name for name in range(thousand * 1_000, thousand * 1_000 + 1_000))
    yield b'"last":0}}'


def many(name, element, size):
    """A list in the place of `name`, as long as a body may be."""
    yield OPEN + b',"tools":[{"type":"function","function":{"name":"Bash"}}' if name == b"tools" else (
        OPEN + b',"tools":[{"type":"function","function":{"name":"Bash"}}],"' + name + b'":[0'
    )
    piece = (b"," + element) * 65_536
    for _ in range(size // len(piece)):
        yield piece
    yield b"]}"


def tools():
    yield from many(b"tools", b'""', 30 << 20)


def choices():
    yield from many(b"tool_choice", b'{"":0}', 30 << 20)


def messages():
    yield b'{"model":"gpt-5","max_tokens":100,"messages":[{}'
    for _ in range(160):
        yield b",{}" * 65_536
    yield b"]}"


def tokens():
    """For embeddings."""
    yield b'{"model":"text-embedding-3-small","input":[1'
    for _ in range(240):
        yield b",1" * 65_536
    yield b"]}"


def single_bytes():
    """A million chunks of one byte."""
    text = b'{"model":"gpt-5","max_tokens":100,"messages":[{"role":"user","content":"' + b"x" * 1_000_000 + b'"}]}'
    for begin in range(0, len(text), 1_000):
        yield [text[at : at + 1] for at in range(begin, min(begin + 1_000, len(text)))]


def gzip_bomb():
    """200 MiB of spaces in 200 KB."""
    packer = zlib.compressobj(9, wbits=31)
    for _ in range(200):
        if packed := packer.compress(b" " * (1 << 20)):
            yield packed
    yield packer.flush()


def zstd_bomb():
    """A gigabyte in 32 KB: blocks of one byte, repeated (RFC 8878, sections 3.1.1.1 and 3.1.1.2)."""
    header = struct.pack("<I", 0xFD2FB528) + b"\x00\x38"
    block = struct.pack("<I", (131_072 << 3) | (1 << 1))[:3] + b" "
    last = struct.pack("<I", (131_072 << 3) | (1 << 1) | 1)[:3] + b" "
    yield header + block * 8_191 + last


def deflate_bomb():
    packer = zlib.compressobj(9)
    for _ in range(200):
        if packed := packer.compress(b" " * (1 << 20)):
            yield packed
    yield packer.flush()


CODED = {gzip_bomb: "gzip", zstd_bomb: "zstd", deflate_bomb: "deflate"}
BODIES = {
    body.__name__.replace("_", "-"): body
    for body in [
        plain, streamed, hundred_megabytes, one_string, one_name, deep, million_names, tools, choices, messages, tokens,
        single_bytes, gzip_bomb, zstd_bomb, deflate_bomb,
    ]
}  # fmt: skip


def head(args, body):
    path = "/v1/embeddings" if body is tokens else CHAT
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {args.host}",
        "Content-Type: application/json",
        "Authorization: Bearer " + os.environ["OPENAI_API_KEY"],
        "Transfer-Encoding: chunked",
        "Connection: close",
    ]
    if body in CODED:
        lines.append("Content-Encoding: " + CODED[body])
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


def send(tls, args, body):
    """Sends until all is sent or an answer comes; how much was sent."""
    sent = 0
    tls.sendall(head(args, body))
    for data in body():
        if select.select([tls], [], [], 0)[0] and tls.pending() == 0 and answered(tls):
            return sent
        pieces = data if isinstance(data, list) else [data]
        tls.sendall(b"".join(chunk(piece) for piece in pieces))
        sent += sum(len(piece) for piece in pieces)
    tls.sendall(b"0\r\n\r\n")
    return sent


def answered(tls):
    """Whether an answer, and not a session ticket, is what can be read."""
    tls.settimeout(0.05)
    try:
        HEARD.append(tls.recv(65536))
        return True
    except (TimeoutError, ssl.SSLWantReadError):
        return False
    finally:
        tls.settimeout(args_patience)


HEARD = []
args_patience = 120.0


def receive(tls):
    """The answer to its end, of which only the beginning is kept."""
    heard, count, end = b"".join(HEARD), sum(map(len, HEARD)), "closed"
    try:
        while piece := tls.recv(1 << 16):
            count += len(piece)
            if len(heard) < 65_536:
                heard += piece
    except TimeoutError:
        end = "patience"
    except ssl.SSLError:
        end = "closed"
    except OSError:
        end = "reset"
    top, _, body = heard.partition(b"\r\n\r\n")
    lines = top.decode(errors="replace").split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    status = int(lines[0].split(" ")[1]) if lines[0].startswith("HTTP/1.") else None
    return {
        "status": status,
        "kind": fields.get("content-type"),
        "coding": fields.get("content-encoding"),
        "received": count - len(top) - 4,
        "body": body[:4_000].decode(errors="replace"),
        "end": end,
    }


def main():
    global args_patience
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("body", choices=sorted(BODIES))
    parser.add_argument("--host", default="api.openai.com")
    parser.add_argument("--patience", type=float, default=120.0)
    args = parser.parse_args()
    args_patience = args.patience
    begun = time.monotonic()
    stream = socket.create_connection((args.host, 443), timeout=args.patience)
    tls = secure(stream, args)
    sent = None
    try:
        sent = send(tls, args, BODIES[args.body])
    except OSError as error:
        print(f"sending ended: {error}", file=sys.stderr)
    result = receive(tls) | {"sent": sent, "seconds": round(time.monotonic() - begun, 2)}
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())

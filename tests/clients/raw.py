"""A hostile or broken client, without any library that would behave: one way to misbehave an invocation.

Prints one JSON object: {"end": how it ended, "status": the HTTP status if one came, "seconds", "sent", "body"}.
The end is "closed", "reset", "refused", or "patience" when the other side had not ended it after --patience seconds.
"""

import argparse
import json
import os
import socket
import ssl
import struct
import sys
import time

CHAT = "/v1/chat/completions"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=sorted(WAYS))
    parser.add_argument("--host", default="api.openai.com")
    parser.add_argument("--patience", type=float, default=60.0)
    args = parser.parse_args()
    begun = time.monotonic()
    result = {"sent": 0}
    try:
        stream = socket.create_connection((args.host, 443), timeout=args.patience)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        result |= WAYS[args.way](stream, args, begun + args.patience)
    except TimeoutError:
        result["end"] = "patience"
    except ConnectionRefusedError:
        result["end"] = "refused"
    except ssl.SSLError as error:
        result |= {"end": "closed", "tls": str(error)}
    except OSError as error:
        result |= {"end": "reset", "error": str(error)}
    print(json.dumps(result | {"seconds": round(time.monotonic() - begun, 2)}))


def rest(stream, deadline):
    """Reads until the other side ends the connection."""
    heard = b""
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return told("patience", heard)
        stream.settimeout(left)
        try:
            piece = stream.recv(65536)
        except TimeoutError:
            return told("patience", heard)
        except ssl.SSLError:
            return told("closed", heard)
        except OSError:
            return told("reset", heard)
        if not piece:
            return told("closed", heard)
        heard += piece
        if whole(heard):
            return told("closed" if b"connection: close" in heard.lower() else "answered", heard)


def whole(heard):
    head, mark, body = heard.partition(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return bool(mark) and len(body) >= int(value)
    return False


def told(end, heard):
    status = int(heard[9:12]) if heard.startswith(b"HTTP/1.") else None
    body = heard.partition(b"\r\n\r\n")[2].decode(errors="replace") if status else heard[:64].hex()
    return {"end": end, "status": status, "body": body[:2000]}


def secure(stream, args, alpn="http/1.1"):
    context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    context.set_alpn_protocols([alpn])
    return context.wrap_socket(stream, server_hostname=args.host)


def trickle(stream, data, deadline, every):
    """Sends a byte at a time for as long as the other side bears it."""
    sent = 0
    for byte in data:
        if time.monotonic() > deadline:
            return {"end": "patience", "sent": sent}
        try:
            stream.sendall(bytes([byte]))
            sent += 1
            stream.settimeout(every)
            try:
                if not (piece := stream.recv(65536)):
                    return {"end": "closed", "sent": sent}
                return told("answered", piece) | {"sent": sent}
            except TimeoutError:
                pass
        except (OSError, ssl.SSLError):
            return {"end": "reset", "sent": sent}
    return rest(stream, deadline) | {"sent": sent}


def hello(args):
    """A genuine ClientHello."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=args.host)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def head(args, length, *more):
    lines = [f"POST {CHAT} HTTP/1.1", f"Host: {args.host}", "Content-Type: application/json", *more]
    return ("\r\n".join([*lines, f"Content-Length: {length}"]) + "\r\n\r\n").encode()


def silent(stream, args, deadline):
    return rest(stream, deadline)


def tls_garbage(stream, args, deadline):
    stream.sendall(b"\x16\x03\x01\x02\x00" + os.urandom(512))
    return rest(stream, deadline)


def tls_oversized(stream, args, deadline):
    stream.sendall(b"\x16\x03\x01\xff\xff" + b"\x01\xff\xff\xff" + b"\x00" * 65536)
    return rest(stream, deadline)


def tls_slow(stream, args, deadline):
    return trickle(stream, hello(args), deadline, 0.5)


def tls_late(stream, args, deadline):
    """Lets the server have the first word, then says hello after all."""
    time.sleep(1.0)
    stream.sendall(hello(args))
    return rest(stream, deadline)


def http_late(stream, args, deadline):
    """Connects, is silent for a second, then makes a call like any other."""
    time.sleep(1.0)
    body = b'{"model":"gpt-5","max_tokens":100,"messages":[{"role":"user","content":"Hi"}]}'
    tls = secure(stream, args)
    tls.sendall(head(args, len(body)) + body)
    return rest(tls, deadline)


def http_garbage(stream, args, deadline):
    tls = secure(stream, args)
    tls.sendall(b"THIS IS NOT HTTP\r\n\r\n")
    return rest(tls, deadline)


def http_slow(stream, args, deadline):
    return trickle(secure(stream, args), head(args, 2) + b"{}", deadline, 0.5)


def http_header(stream, args, deadline):
    tls = secure(stream, args)
    tls.sendall(head(args, 2, "X-Large: " + "a" * 262144) + b"{}")
    return rest(tls, deadline)


def http_body_stalled(stream, args, deadline):
    tls = secure(stream, args)
    tls.sendall(head(args, 4096) + b"{")
    return rest(tls, deadline)


def http_body_declared(stream, args, deadline):
    """Declares a gigabyte and waits for what is said to that."""
    tls = secure(stream, args)
    tls.sendall(head(args, 1 << 30) + b"{")
    return rest(tls, deadline)


def http_body_huge(stream, args, deadline):
    """Declares a gigabyte and sends as much of it as the other side takes."""
    tls = secure(stream, args)
    tls.sendall(head(args, 1 << 30))
    sent, piece = 0, b" " * 65536
    tls.settimeout(0.5)
    try:
        while sent < 1 << 30 and time.monotonic() < deadline:
            tls.sendall(piece)
            sent += len(piece)
    except OSError:
        pass
    return rest(tls, deadline) | {"sent": sent}


def json_broken(stream, args, deadline):
    tls = secure(stream, args)
    body = b'{"model":"gpt-5","messages":[{"role":'
    tls.sendall(head(args, len(body)) + body)
    return rest(tls, deadline)


def json_deep(stream, args, deadline):
    tls = secure(stream, args)
    body = b'{"model":"gpt-5","messages":' + b"[" * 100000 + b"]" * 100000 + b"}"
    tls.sendall(head(args, len(body)) + body)
    return rest(tls, deadline)


def authority(stream, args, deadline):
    """Asks for another host inside the connection than the one that its TLS name says."""
    tls = secure(stream, args)
    body = b'{"model":"gpt-5","max_tokens":10,"messages":[]}'
    tls.sendall(head(args, len(body)).replace(args.host.encode(), b"api.elsewhere.example") + body)
    return rest(tls, deadline)


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def field(name, value):
    """A header field in HPACK's plainest form: a literal that is never indexed (RFC 7541 section 6.2.2)."""
    out = b"\x00"
    for text in (name, value):
        assert len(text) < 127
        out += bytes([len(text)]) + text.encode()
    return out


def h2_stalled(stream, args, deadline):
    """Asks for eight long streams over HTTP/2 and never gives the window to send them."""
    tls = secure(stream, args, "h2")
    body = b'{"model":"gpt-5","stream":true,"max_tokens":100,"messages":[{"role":"user","content":"Hi"}]}'
    tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, struct.pack(">HI", 4, 1)))
    key = os.environ["OPENAI_API_KEY"]
    for number in range(1, 17, 2):
        fields = field(":method", "POST") + field(":scheme", "https") + field(":path", CHAT)
        fields += field(":authority", args.host) + field("content-type", "application/json")
        fields += field("authorization", "Bearer " + key)
        tls.sendall(frame(1, 4, number, fields) + frame(0, 1, number, body))
    print(json.dumps({"stalled": 8}), flush=True)
    time.sleep(max(0.0, deadline - time.monotonic()))
    return {"end": "patience"}


WAYS = {
    name.replace("_", "-"): way
    for name, way in list(globals().items())
    if callable(way) and getattr(way, "__code__", None) and way.__code__.co_varnames[:3] == ("stream", "args", "deadline")
}

if __name__ == "__main__":
    sys.exit(main())

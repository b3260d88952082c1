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
    parser.add_argument("number", nargs="?", type=int, default=0, help="of bytes, where the way has such a number")
    parser.add_argument("--host", default="api.openai.com")
    parser.add_argument("--address", help="where to connect, if not where the host's name leads")
    parser.add_argument("--patience", type=float, default=60.0)
    args = parser.parse_args()
    begun = time.monotonic()
    result = {"sent": 0}
    try:
        stream = socket.create_connection((args.address or args.host, 443), timeout=args.patience)
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


def tls_pieces(stream, args, deadline):
    """A call like any other, but what TLS has to say first goes out in pieces of so many bytes."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    tls = context.wrap_bio(incoming, outgoing, server_hostname=args.host)
    body = b'{"model":"gpt-5","max_tokens":100,"messages":[{"role":"user","content":"Hi"}]}'
    key = b"Authorization: Bearer " + os.environ["OPENAI_API_KEY"].encode() + b"\r\n"
    request = head(args, len(body)).replace(b"\r\n", b"\r\n" + key, 1) + body

    def exchange(step):
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                result = None
            said = outgoing.read()
            for at in range(0, len(said), args.number):
                stream.sendall(said[at : at + args.number])
                time.sleep(0.001)
            if result is not None:
                return result
            piece = stream.recv(65536)
            incoming.write(piece) if piece else incoming.write_eof()

    exchange(lambda: tls.do_handshake() or True)
    exchange(lambda: tls.write(request))
    heard = b""
    while not whole(heard):
        heard += exchange(lambda: tls.read(65536))
    return told("answered", heard)


def extension(kind, data):
    return struct.pack(">HH", kind, len(data)) + data


def plain_hello(host, *more):
    """A ClientHello of TLS 1.2, in as many records as it needs, with these further extensions."""
    name = host.encode()
    extensions = extension(0, struct.pack(">HBH", len(name) + 3, 0, len(name)) + name)
    extensions += extension(10, b"\0\4\0\x1d\0\x17") + extension(11, b"\1\0")
    extensions += extension(13, b"\0\x0a\4\3\4\1\x08\4\5\1\6\1") + b"".join(more)
    suites = bytes.fromhex("c02bc02fc02cc030cca9cca8")
    body = b"\3\3" + os.urandom(32) + b"\0" + struct.pack(">H", len(suites)) + suites + b"\1\0"
    body += struct.pack(">H", len(extensions)) + extensions
    message = b"\1" + struct.pack(">I", len(body))[1:] + body
    cut = [message[at : at + 16384] for at in range(0, len(message), 16384)]
    return b"".join(b"\x16\3\1" + struct.pack(">H", len(part)) + part for part in cut)


def flight(stream, deadline):
    """What the server says to a hello, as far as it says something within two seconds."""
    heard = b""
    stream.settimeout(max(0.1, min(2.0, deadline - time.monotonic())))
    try:
        while piece := stream.recv(65536):
            heard += piece
    except OSError:
        pass
    return heard


def tls_padded(stream, args, deadline):
    """A hello with so many bytes of padding (RFC 7685); says whose certificate came."""
    try:
        stream.sendall(plain_hello(args.host, extension(21, bytes(args.number))))
    except OSError:
        pass
    heard = flight(stream, deadline)
    return {"end": "answered", "issuers": {"guard": b"Guard" in heard, "lab": b"Lab Root" in heard}}


def tls_ech(stream, args, deadline):
    """A hello with encrypted_client_hello in it (RFC 9849): a configuration's number, a key and a sealed inner hello."""
    inner = b"\0\0\1\0\1\7\0\x20" + os.urandom(32) + struct.pack(">H", 144) + os.urandom(144)
    stream.sendall(plain_hello(args.host, extension(0xFE0D, inner)))
    heard = flight(stream, deadline)
    # A server's hello; an alert is none.
    return {"end": "answered", "answered": heard[:2] == b"\x16\3"}


def http_late(stream, args, deadline):
    """Connects, is silent for a second, then makes a call like any other."""
    time.sleep(1.0)
    body = b'{"model":"gpt-5","max_tokens":100,"messages":[{"role":"user","content":"Hi"}]}'
    tls = secure(stream, args)
    tls.sendall(head(args, len(body)) + body)
    return rest(tls, deadline)


def http_connect(stream, args, deadline):
    """Asks for a tunnel inside the connection."""
    tls = secure(stream, args)
    tls.sendall(f"CONNECT {args.host}:443 HTTP/1.1\r\nHost: {args.host}:443\r\n\r\n".encode())
    return rest(tls, deadline)


def http_upgrade(stream, args, deadline):
    """Asks for a protocol that nobody reads."""
    tls = secure(stream, args)
    lines = ["GET /v1/models HTTP/1.1", f"Host: {args.host}", "Connection: upgrade", "Upgrade: x-tunnel"]
    tls.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    return rest(tls, deadline)


def socket_key(stream, args, deadline):
    """Opens a WebSocket with a key of its own where browsers put it."""
    tls = secure(stream, args)
    lines = ["GET /v1/responses HTTP/1.1", f"Host: {args.host}", "Connection: upgrade", "Upgrade: websocket"]
    lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    lines += ["Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.sk-brought-from-home"]
    tls.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
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

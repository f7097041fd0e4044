"""Requests as bytes: ambiguous ones, unambiguous ones, and those that are refused before their body arrives."""

KEY = b"sk-smuggling"
HELLO = b'{"model":"m","max_tokens":4,"messages":[{"role":"user","content":"Hi"}]}'
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: service\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: service\r\nConnection: close\r\n\r\n"
LENGTH = b"Content-Length: %d" % len(HELLO)
CHUNKED = b"Transfer-Encoding: chunked"
IN_CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(HELLO), HELLO)
NINE = b"123456789"
SWITCH = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")


def post(*fields: bytes, body: bytes = b"", line: bytes = b"POST /v1/messages HTTP/1.1", key: bytes = KEY) -> bytes:
    return b"\r\n".join([line, b"Host: service", b"x-api-key: " + key, *fields, b"", body])


def get(*fields: bytes, line: bytes = b"GET /healthz HTTP/1.1", host: bytes | None = b"Host: service") -> bytes:
    return b"\r\n".join([line, *([] if host is None else [host]), *fields, b"", b""])


def sized(*fields: bytes) -> bytes:
    """A correct request except for `fields`."""
    return post(*fields, LENGTH, body=HELLO)


def chunked(body: bytes) -> bytes:
    return post(CHUNKED, body=body)


# --- body framing ---

FRAMES = {
    "length, then coding": post(b"Content-Length: 5", CHUNKED, body=b"0\r\n\r\n"),
    "coding, then length": post(CHUNKED, b"Content-Length: 5", body=b"0\r\n\r\n"),
    "coding twice": post(CHUNKED, CHUNKED, body=IN_CHUNKS),
    "two codings": post(CHUNKED, b"Transfer-Encoding: x", body=IN_CHUNKS),
    "coding in HTTP/1.0": post(CHUNKED, body=IN_CHUNKS, line=b"POST /v1/messages HTTP/1.0"),
    **{
        f"coding {coding!r}": post(b"Transfer-Encoding:" + coding, body=IN_CHUNKS)
        for coding in (
            *(b" xchunked", b" chunked, identity", b" identity, chunked", b" gzip, chunked", b" chunked, chunked"),
            *(
                b" identity",
                b"",
                b" ,chunked",
                b" chunked,",
                b' "chunked"',
                b" chunked;q=1",
                b" \x0bchunked",
                b" chun ked",
            ),
            *(b" chunked\x00", b" \xff\xfechunked", b" chunked\x85", b" deflate"),
        )
    },
    "coding unfolded": post(b"Transfer-Encoding:\r\n chunked", body=IN_CHUNKS),
    "coding in a folded line": sized(b"X-A: b\r\n Transfer-Encoding: chunked"),
    "coding in a folded first line": sized(b"X-A:\r\n\tTransfer-Encoding: chunked"),
    "coding behind a space": sized(b" Transfer-Encoding: chunked"),
    "coding before a space": sized(b"Transfer-Encoding : chunked"),
    "coding before a tab": sized(b"Transfer-Encoding\t: chunked"),
    "coding behind LF": sized(b"X-A: b\nTransfer-Encoding: chunked"),
    "coding behind CR": sized(b"X-A: b\rTransfer-Encoding: chunked"),
    "coding behind NUL": sized(b"X-A: b\x00Transfer-Encoding: chunked"),
    "length twice": post(LENGTH, LENGTH, body=HELLO),
    "two lengths": post(LENGTH, b"Content-Length: 0", body=HELLO),
    "length in a list": post(LENGTH + b", %d" % len(HELLO), body=HELLO),
    "length unfolded": post(b"Content-Length:\r\n %d" % len(HELLO), body=HELLO),
    "length before a space": post(b"Content-Length : %d" % len(HELLO), body=HELLO),
    **{
        f"length {length!r}": post(b"Content-Length:" + length, body=NINE)
        for length in (
            *(
                b" +9",
                b" -9",
                b" 0x9",
                b" 9 9",
                b" 9_",
                b" 9.0",
                b" 9e0",
                b" 9,",
                b"",
                b" \xd9\xa9",
                b" \xb2",
                b" 9\x00",
            ),
            *(b" 9;a", b" '9'", b" \x0b9", b" 9L", b" nine", b" 18446744073709551625", b" 99999999999999999999999999"),
        )
    },
}

# --- chunks ---

CHUNKS = {
    f"chunk {name}": chunked(body)
    for name, body in {
        **{
            f"size {size!r}": b"%b\r\n%b\r\n0\r\n\r\n" % (size, NINE)
            for size in (
                b"-9",
                b"+9",
                b"0x9",
                b"9_",
                b" 9",
                b"9h",
                b"",
                b"\xd9\xa9",
                b"10000000000000009",
                b"g",
                b"\x009",
            )
        },
        "size of 24 digits": b"000000000000000000000009\r\n%b\r\n0\r\n\r\n" % NINE,
        "size before LF": b"9\n%b\r\n0\r\n\r\n" % NINE,
        "size before CR": b"9\r%b\r\n0\r\n\r\n" % NINE,
        "data before LF": b"9\r\n%b\n0\r\n\r\n" % NINE,
        "data before CR": b"9\r\n%b\r0\r\n\r\n" % NINE,
        "data without an end": b"9\r\n%b0\r\n\r\n" % NINE,
        "data too long": b"9\r\n%bxy0\r\n\r\n" % NINE,
        "data too short": b"b\r\n%b\r\n0\r\n\r\n" % NINE,
        "extension with LF": b"9;a\nb\r\n%b\r\n0\r\n\r\n" % NINE,
        "extension with CR": b"9;a\rb\r\n%b\r\n0\r\n\r\n" % NINE,
        "extension with NUL": b"9;a\x00b\r\n%b\r\n0\r\n\r\n" % NINE,
        "extension over two lines": b'9;a="\r\n"\r\n%b\r\n0\r\n\r\n' % NINE,
        "last with LF": b"9\r\n%b\r\n0\n\n" % NINE,
        "last with CRLF and LF": b"9\r\n%b\r\n0\r\n\n" % NINE,
        "trailer without a colon": b"9\r\n%b\r\n0\r\nX-A\r\n\r\n" % NINE,
        "trailer with a space": b"9\r\n%b\r\n0\r\nX A: b\r\n\r\n" % NINE,
        "trailer folded": b"9\r\n%b\r\n0\r\nX-A: b\r\n c\r\n\r\n" % NINE,
        "trailer with LF": b"9\r\n%b\r\n0\r\nX-A: b\n\r\n" % NINE,
        "trailer with NUL": b"9\r\n%b\r\n0\r\nX-A: \x00\r\n\r\n" % NINE,
    }.items()
}

# --- lines ---

LINES = {
    "LF only": sized().replace(b"\r\n", b"\n"),
    "CR only": sized().replace(b"\r\n", b"\r"),
    "head that ends in LF": sized().replace(b"\r\n\r\n", b"\r\n\n"),
    "head that ends in CR CR": sized().replace(b"\r\n\r\n", b"\r\n\r\r"),
    "CR CR LF": sized(b"X-A: b\r"),
    "name that begins with CR": sized(b"\rX-A: b"),
    "first field behind a space": post(LENGTH, body=HELLO).replace(b"\r\nHost", b"\r\n Host"),
    **{
        f"value with {char!r}": sized(b"X-A: b%bc" % char)
        for char in (b"\x00", b"\x01", b"\x08", b"\x0b", b"\x1b", b"\x7f")
    },
    **{
        f"name {name!r}": sized(name + b": b")
        for name in (b"", b"X A", b"X(A)", b"X\x00A", b"X@A", b"X,A", b"\xc3\xa9", b"X[]", b'"X"', b"X/A")
    },
    "line without a colon": sized(b"X-A"),
    "no host": get(host=None),
    "host twice": get(b"Host: service"),
    "two hosts": get(b"Host: other"),
    **{
        f"host {host!r}": get(host=b"Host: " + host)
        for host in (b"a b", b"a/b", b"a@b", b"a\\b", b"a?b", b"a#b", b"a,b")
    },
}

REQUEST_LINES = {
    f"line {line!r}": get(line=line)
    for line in (
        *(b"GET  /healthz HTTP/1.1", b"GET /healthz  HTTP/1.1", b"GET\t/healthz\tHTTP/1.1", b"GET /healthz HTTP/1.1 "),
        *(b" GET /healthz HTTP/1.1", b"GET /a b HTTP/1.1", b"GET /healthz /smuggled HTTP/1.1", b"GET /a\tb HTTP/1.1"),
        *(
            b"GET /healthz",
            b"GET /healthz ",
            b"GET HTTP/1.1",
            b"GET  HTTP/1.1",
            b"/healthz HTTP/1.1",
            b"GET",
            b"HTTP/1.1 200 OK",
        ),
        *(b"GET /healthz HTTP/0.9", b"GET /healthz HTTP/1.2", b"GET /healthz HTTP/1.10", b"GET /healthz HTTP/2.0"),
        *(b"GET /healthz HTTP/2", b"GET /healthz http/1.1", b"GET /healthz HTTP/ 1.1", b"GET /healthz HTTP/1.1x"),
        *(b"GET /healthz HTTP/11", b"GET /healthz HTTP/1,1", b"GET /healthz ICE/1.0", b"GET /healthz HTTP/-1.1"),
        *(
            b"GET /\x00 HTTP/1.1",
            b"GET /\xc3\xa9 HTTP/1.1",
            b"GET /\x7f HTTP/1.1",
            b"GET /\x0b HTTP/1.1",
            b"GET /a#b HTTP/1.1",
        ),
        *(
            b"GET healthz HTTP/1.1",
            b"GET service:80 HTTP/1.1",
            b"GET ftp://service/healthz HTTP/1.1",
            b"GET http:///x HTTP/1.1",
        ),
        *(
            b"G@T /healthz HTTP/1.1",
            b"G\x00T /healthz HTTP/1.1",
            b"GE T /healthz HTTP/1.1",
            b"A" * 5000 + b" / HTTP/1.1",
        ),
    )
}
OTHER_PROTOCOLS = {
    "HTTP/2 outright": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "a version for PROXY": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + get(),
    "noise": b"\xff" * 100 + b"\r\n\r\n",
    "NULs": bytes(100),
}
REFUSED = FRAMES | CHUNKS | LINES | REQUEST_LINES | OTHER_PROTOCOLS

# --- unambiguous requests ---

UNKNOWN = 404
ANSWERED: dict[str, tuple[bytes, list[int]]] = {
    "a length": (sized(), [200]),
    "a length with zeros": (post(b"Content-Length: 000%d" % len(HELLO), body=HELLO), [200]),
    "a length between spaces": (post(b"Content-Length: \t %d \t" % len(HELLO), body=HELLO), [200]),
    "no length": (post(), [400]),
    "chunks": (chunked(IN_CHUNKS), [200]),
    "chunks by another case": (post(b"TRANSFER-encoding:\tChunked ", body=IN_CHUNKS), [200]),
    "chunk sizes with zeros": (chunked(b"000" + IN_CHUNKS), [200]),
    "chunks with extensions": (chunked(IN_CHUNKS.replace(b"\r\n{", b';a="b;c";d\r\n{')), [200]),
    "chunks with trailers": (chunked(IN_CHUNKS[:-2] + b"Content-Length: 500\r\nTransfer-Encoding: x\r\n\r\n"), [200]),
    "a key in a trailer": (post(CHUNKED, body=IN_CHUNKS[:-2] + b"x-api-key: %b\r\n\r\n" % KEY, key=b"wrong"), [401]),
    "another name": (sized(b"Transfer_Encoding: chunked", b"Content_Length: 0"), [200]),
    "a name for this connection": (sized(b"Connection: content-length, transfer-encoding"), [200]),
    "a body where none belongs": (get(b"Content-Length: %d" % len(SMUGGLED)) + SMUGGLED, [200]),
    "chunks where none belong": (get(CHUNKED) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED), [200]),
    "one after the other": (get() + sized() + get(), [200, 200, 200]),
    "an empty line before": (b"\r\n" + get() + b"\r\n" + get(), [200, 200]),
    "consent asked for": (sized(b"Expect: 100-continue"), [200]),
    "an offer of HTTP/2": (get(*SWITCH), [200]),
    "an offer of HTTP/2 with a body": (sized(*SWITCH), [200]),
    "an offer of WebSocket": (get(b"Connection: upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"), [200]),
    "an offer of nothing known": (get(b"Connection: Upgrade", b"Upgrade: smoke-signals"), [200]),
    "a proxy's form": (get(line=b"GET http://elsewhere/healthz HTTP/1.1"), [200]),
    "a path with dots": (get(line=b"GET /v1/../healthz HTTP/1.1"), [UNKNOWN]),
    "a path with encoded dots": (get(line=b"GET /%2e%2e/healthz HTTP/1.1"), [UNKNOWN]),
    "a path with an encoded NUL": (get(line=b"GET /healthz%00 HTTP/1.1"), [UNKNOWN]),
    "a path with an encoded CRLF": (get(line=b"GET /%0d%0aX:%20y HTTP/1.1"), [UNKNOWN]),
    "a path with two slashes": (get(line=b"GET //healthz HTTP/1.1"), [200]),
}

# Refused before the body arrives: the rest of the body must not be read as a request.
EARLY = {
    "a wrong key": (post(b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED, key=b"wrong"), 401),
    "a wrong key, in chunks": (post(CHUNKED, body=b"29\r\n%b\r\n0\r\n\r\n" % SMUGGLED, key=b"wrong"), 401),
    "no such path": (post(b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED, line=b"POST /nowhere HTTP/1.1"), 404),
    "no such method": (
        get(b"Content-Length: %d" % len(SMUGGLED), line=b"DELETE /v1/messages HTTP/1.1") + SMUGGLED,
        405,
    ),
    "no such coding": (post(b"Content-Encoding: br", b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED), 415),
    "too large": (post(b"Content-Length: %d" % (2000 * len(SMUGGLED)), body=2000 * SMUGGLED), 413),
    "too large, in chunks": (chunked(b"29\r\n%b\r\n" % SMUGGLED * 2000 + b"0\r\n\r\n"), 413),
}

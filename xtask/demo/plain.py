"""A service that answers a POST with what it was sent, written with nothing but Python's own library.

`plain.py flat` leaks nothing; `plain.py module FOLDER` and `plain.py ctypes FILE` call forgetful.c for each request.
"""
import asyncio
import json
import sys

counts = {"requests": 0}
KEPT = 1024


def keeper(how, *where):
    if how == "flat":
        return None
    if how == "module":
        sys.path.insert(0, where[0])
        import forgetful
        return forgetful.keep
    import ctypes
    keep = ctypes.CDLL(where[0]).forgetful_keep
    keep.argtypes = [ctypes.c_ulong]
    return keep


def remember(keep):
    counts["requests"] += 1
    if keep is not None:
        keep(KEPT)


async def answer(keep, reader, writer):
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            lines = head.lower().split("\r\n")
            lengths = [line.partition(":")[2] for line in lines if line.startswith("content-length:")]
            body = await reader.readexactly(int(lengths[0]) if lengths else 0)
            if lines[0].startswith("get /stats "):
                body = json.dumps(counts).encode()
            else:
                remember(keep)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
            if "connection: close" in lines:
                break
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def serve(keep):
    server = await asyncio.start_server(lambda reader, writer: answer(keep, reader, writer), "127.0.0.1", 0)
    print("listening on 127.0.0.1:%d" % server.sockets[0].getsockname()[1], flush=True)


loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
loop.run_until_complete(serve(keeper(*sys.argv[1:])))
loop.run_forever()

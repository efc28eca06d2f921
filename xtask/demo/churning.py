"""A service that makes and drops code with every request: by exec, by import, by reload, by classes made on the fly.

It keeps a block of a size of its own for each of 200 functions that it makes, so that a profile can be held against it.
"""
import asyncio
import collections
import importlib
import os
import sys
import tempfile

from aiohttp import web

FUNCTIONS = 200
FIRST_SIZE = 20000
kept = {}


def make(number):
    """A function in a file of its own, with lines that differ from its neighbours'."""
    which = number % FUNCTIONS
    blank = "\n" * (which % 7)
    source = blank + "def made_%03d(keep):\n    keep(%d)\nmade_%03d(keep)\n" % (which, which, which)
    exec(compile(source, "made_%03d.py" % which, "exec"), {"keep": keep})


def keep(which):
    kept[which] = bytearray(FIRST_SIZE + which)


def load(folder, number):
    """A module that is written, imported, reloaded and forgotten."""
    name = "module_%02d" % (number % 50)
    path = os.path.join(folder, name + ".py")
    with open(path, "w") as file:
        file.write("\n" * (number % 5) + "def answer():\n    return [%d]\n" % number)
    importlib.invalidate_caches()
    module = importlib.import_module(name)
    importlib.reload(module).answer()
    del sys.modules[name]


async def echo(request):
    counts = request.app["counts"]
    number = counts["requests"]
    counts["requests"] += 1
    for turn in range(5):
        make(number * 5 + turn)
    if number % 10 == 0:
        load(request.app["folder"], number)
    collections.namedtuple("Made%d" % (number % 30), "first second")(1, 2)
    return web.Response(body=await request.read())


async def stats(request):
    return web.json_response({"requests": request.app["counts"]["requests"], "kept": len(kept)})


async def serve(folder):
    app = web.Application()
    app["counts"] = {"requests": 0}
    app["folder"] = folder
    app.router.add_post("/echo", echo)
    app.router.add_get("/stats", stats)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print("listening on 127.0.0.1:%d" % site._server.sockets[0].getsockname()[1], flush=True)


with tempfile.TemporaryDirectory() as folder:
    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True
    loop = asyncio.new_event_loop()
    loop.run_until_complete(serve(folder))
    loop.run_forever()

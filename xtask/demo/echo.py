"""A service that answers a POST with what it was sent. Its middleware counts the headers of its answers.

Nothing in it is wrong. With multidict 4.5.1, asking a view of headers for its length keeps the headers for ever.
"""
import asyncio

from aiohttp import web


@web.middleware
async def count_headers(request, handler):
    response = await handler(request)
    request.app["counts"]["headers"] += len(response.headers.items())
    request.app["counts"]["requests"] += 1
    return response


async def echo(request):
    return web.Response(body=await request.read())


async def stats(request):
    return web.json_response(dict(request.app["counts"]))


async def serve():
    app = web.Application(middlewares=[count_headers])
    app["counts"] = {"requests": 0, "headers": 0}
    app.router.add_post("/echo", echo)
    app.router.add_get("/stats", stats)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print("listening on 127.0.0.1:%d" % site._server.sockets[0].getsockname()[1], flush=True)


loop = asyncio.get_event_loop()
loop.run_until_complete(serve())
loop.run_forever()

"""The official Python SDK, 1.x: python1.py URL NAME [legacy-shared]

With `legacy-shared` other sessions have the same server.
"""

import asyncio
import contextlib
import sys

import claims
from mcp import ClientSession, types
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client


class Python1(claims.Driver):
    tells_of_cancelling = False

    @contextlib.asynccontextmanager
    async def connected(self, url):
        async with create_mcp_http_client() as http:
            http.event_hooks["response"].append(self.answered)
            async with (
                streamable_http_client(url, http_client=http) as (reader, writer, _),
                ClientSession(
                    reader,
                    writer,
                    sampling_callback=self.sampled,
                    elicitation_callback=self.elicited,
                    list_roots_callback=self.roots,
                    logging_callback=self.logged,
                    message_handler=self.notified,
                    client_info=types.Implementation(name=self.name, version="1"),
                ) as self.mcp,
            ):
                self.initialized = await self.mcp.initialize()
                yield

    async def sampled(self, context, params):
        content = types.TextContent(type="text", text=f"{self.name} read it")
        return types.CreateMessageResult(role="assistant", model="none", content=content)

    async def elicited(self, context, params):
        return types.ElicitResult(action="accept", content={"confirm": True})

    async def roots(self, context):
        return types.ListRootsResult(roots=[types.Root(uri=f"file:///srv/{self.name}")])

    async def logged(self, params):
        self.logs.append(f"{params.level} {params.data}")

    async def notified(self, message):
        match message:
            case types.ServerNotification(root=types.ResourceUpdatedNotification(params=params)):
                self.updated.append(str(params.uri))
            case types.ServerNotification(root=types.ResourceListChangedNotification()):
                self.list_changed += 1

    def server(self):
        return self.initialized.serverInfo.name

    def capabilities(self):
        return self.initialized.capabilities

    def version(self):
        return self.initialized.protocolVersion

    async def tools(self):
        return [tool.name for tool in (await self.mcp.list_tools()).tools]

    async def text(self, tool, arguments=None, progress=None):
        result = await self.mcp.call_tool(tool, arguments or {}, progress_callback=progress)
        claims.holds(not result.isError, result)
        return result.content[0].text

    async def call(self, tool, arguments):
        return await self.mcp.call_tool(tool, arguments)

    async def prompts(self):
        return [prompt.name for prompt in (await self.mcp.list_prompts()).prompts]

    async def prompt(self, name, arguments):
        return (await self.mcp.get_prompt(name, arguments)).messages[0].content.text

    async def resources(self):
        return [str(resource.uri) for resource in (await self.mcp.list_resources()).resources]

    async def read(self, uri):
        return (await self.mcp.read_resource(uri)).contents[0].text

    async def ping(self):
        await self.mcp.send_ping()

    async def set_level(self, level):
        await self.mcp.set_logging_level(level)

    async def subscribe(self, uri):
        await self.mcp.subscribe_resource(uri)


url, name, *mode = sys.argv[1:]
driver = Python1(name, *mode)
asyncio.run(claims.check(url, driver, driver.connected(url)))

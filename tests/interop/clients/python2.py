"""The official Python SDK, 2.x: python2.py URL NAME auto|legacy|shared|legacy-shared

`shared` negotiates as `auto` does, with a bridge that serves 2026-07-28; `…shared`: others have the same server.
"""

import asyncio
import contextlib
import sys
import warnings

import claims
import mcp_types as types
from mcp import Client, MCPDeprecationWarning
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

# Subscriptions and log levels as every session up to 2025-11-25 has them: 2.x calls them deprecated.
warnings.simplefilter("ignore", MCPDeprecationWarning)


class Python2(claims.Driver):
    @contextlib.asynccontextmanager
    async def connected(self, url):
        async with create_mcp_http_client() as http:
            http.event_hooks["response"].append(self.answered)
            async with Client(
                streamable_http_client(url, http_client=http),
                mode=self.negotiation,
                log_level="debug" if self.modern else None,
                sampling_callback=self.sampled,
                elicitation_callback=self.elicited,
                list_roots_callback=self.roots,
                logging_callback=self.logged,
                message_handler=self.notified,
                client_info=types.Implementation(name=self.name, version="1"),
            ) as self.mcp:
                yield

    async def sampled(self, context, params):
        content = types.TextContent(text=f"{self.name} read it")
        return types.CreateMessageResult(role="assistant", model="none", content=content)

    async def elicited(self, context, params):
        return types.ElicitResult(action="accept", content={"confirm": True})

    async def roots(self, context):
        return types.ListRootsResult(roots=[types.Root(uri=f"file:///srv/{self.name}")])

    async def logged(self, params):
        self.logs.append(f"{params.level} {params.data}")

    async def notified(self, message):
        match message:
            case types.ResourceUpdatedNotification(params=params):
                self.updated.append(str(params.uri))
            case types.ResourceListChangedNotification():
                self.list_changed += 1

    def server(self):
        return self.mcp.server_info.name

    def capabilities(self):
        return self.mcp.server_capabilities

    def version(self):
        return self.mcp.protocol_version

    async def tools(self):
        return [tool.name for tool in (await self.mcp.list_tools()).tools]

    async def text(self, tool, arguments=None, progress=None):
        result = await self.mcp.call_tool(tool, arguments or {}, progress_callback=progress)
        claims.holds(not result.is_error, result)
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

    @contextlib.asynccontextmanager
    async def listening(self, uri):
        # What comes reaches `notified` too.
        async with self.mcp.listen(resources_list_changed=True, resource_subscriptions=[uri]) as subscription:
            honored = subscription.honored.model_dump(exclude_none=True)
            claims.same(honored, {"resources_list_changed": True, "resource_subscriptions": [uri]}, "acknowledged")
            yield


url, name, mode = sys.argv[1:]
driver = Python2(name, mode)
asyncio.run(claims.check(url, driver, driver.connected(url)))

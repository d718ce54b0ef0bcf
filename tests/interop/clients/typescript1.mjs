// The official TypeScript SDK, 1.x: node typescript1.mjs URL NAME [sse | legacy-shared], `sse` being the transport of
// 2024-11-05; with `legacy-shared` other sessions have the same server.
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import * as types from '@modelcontextprotocol/sdk/types.js';
import { check, exit, recorded } from './claims.mjs';

const [url, name, mode] = process.argv.slice(2);
const old = mode === 'sse';
const answers = [];
const seen = { logs: [], updated: [], listChanged: 0 };

const client = new Client(
  { name, version: '1' },
  { capabilities: { sampling: {}, elicitation: { form: {} }, roots: {} } },
);
client.setRequestHandler(types.CreateMessageRequestSchema, () => ({
  model: 'none',
  role: 'assistant',
  content: { type: 'text', text: `${name} read it` },
}));
client.setRequestHandler(types.ElicitRequestSchema, () => ({ action: 'accept', content: { confirm: true } }));
client.setRequestHandler(types.ListRootsRequestSchema, () => ({ roots: [{ uri: `file:///srv/${name}`, name }] }));
client.setNotificationHandler(types.LoggingMessageNotificationSchema, ({ params }) => {
  seen.logs.push(`${params.level} ${params.data}`);
});
client.setNotificationHandler(types.ResourceUpdatedNotificationSchema, ({ params }) => {
  seen.updated.push(params.uri);
});
client.setNotificationHandler(types.ResourceListChangedNotificationSchema, () => {
  seen.listChanged += 1;
});
const transport = old
  ? new SSEClientTransport(new URL('/sse', url), { fetch: recorded(answers) })
  : new StreamableHTTPClientTransport(new URL(url), { fetch: recorded(answers) });

const connect = async () => {
  await client.connect(transport);
  if (!old) return;
  seen.progress = [];
  const deliver = transport.onmessage;
  transport.onmessage = (message, extra) => {
    if (message.method === 'notifications/progress') seen.progress.push(message.params.progress);
    deliver(message, extra);
  };
};

await check(name, url, {
  answers,
  seen,
  connect,
  old,
  shared: mode === 'legacy-shared',
  server: () => client.getServerVersion().name,
  version: () => transport.protocolVersion ?? transport._protocolVersion,
  capabilities: () => client.getServerCapabilities(),
  tools: async () => (await client.listTools()).tools.map((tool) => tool.name),
  call: (tool, args, options) => client.callTool({ name: tool, arguments: args }, undefined, options),
  prompts: async () => (await client.listPrompts()).prompts.map((prompt) => prompt.name),
  prompt: async (name, args) => (await client.getPrompt({ name, arguments: args })).messages[0].content.text,
  resources: async () => (await client.listResources()).resources.map((resource) => resource.uri),
  read: async (uri) => (await client.readResource({ uri })).contents[0].text,
  ping: () => client.ping(),
  setLevel: (level) => client.setLoggingLevel(level),
  subscribe: (uri) => client.subscribeResource({ uri }),
  sessionId: () => transport.sessionId ?? transport._endpoint?.searchParams.get('sessionId'),
  end: async () => {
    if (!old) await transport.terminateSession();
    await client.close();
  },
});
exit();

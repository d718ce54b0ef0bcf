// The official TypeScript SDK, 2.x: node typescript2.mjs URL NAME auto|legacy|shared|legacy-shared
// `shared` negotiates as `auto` does, with a bridge that serves 2026-07-28; `…shared`: others have the same server.
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { check, exit, recorded, same } from './claims.mjs';

const [url, name, mode] = process.argv.slice(2);
const answers = [];
const seen = { logs: [], updated: [], listChanged: 0 };

const client = new Client(
  { name, version: '1' },
  {
    capabilities: { sampling: {}, elicitation: { form: {} }, roots: {} },
    versionNegotiation: { mode: mode.startsWith('legacy') ? 'legacy' : 'auto' },
  },
);
client.setRequestHandler('sampling/createMessage', () => ({
  model: 'none',
  role: 'assistant',
  content: { type: 'text', text: `${name} read it` },
}));
client.setRequestHandler('elicitation/create', () => ({ action: 'accept', content: { confirm: true } }));
client.setRequestHandler('roots/list', () => ({ roots: [{ uri: `file:///srv/${name}`, name }] }));
client.setNotificationHandler('notifications/message', ({ params }) => {
  seen.logs.push(`${params.level} ${params.data}`);
});
client.setNotificationHandler('notifications/resources/updated', ({ params }) => {
  seen.updated.push(params.uri);
});
client.setNotificationHandler('notifications/resources/list_changed', () => {
  seen.listChanged += 1;
});
const transport = new StreamableHTTPClientTransport(new URL(url), { fetch: recorded(answers) });

const LOG_LEVEL = 'io.modelcontextprotocol/logLevel';
const modern = mode === 'shared';

await check(name, url, {
  answers,
  seen,
  modern,
  shared: mode.endsWith('shared'),
  connect: () => client.connect(transport),
  server: () => client.getServerVersion().name,
  version: () => client.getNegotiatedProtocolVersion(),
  capabilities: () => client.getServerCapabilities(),
  tools: async () => (await client.listTools()).tools.map((tool) => tool.name),
  call: (tool, args, { logLevel, ...options }) => {
    const meta = modern && logLevel ? { _meta: { [LOG_LEVEL]: logLevel } } : {};
    return client.callTool({ name: tool, arguments: args, ...meta }, options);
  },
  prompts: async () => (await client.listPrompts()).prompts.map((prompt) => prompt.name),
  prompt: async (name, args) => (await client.getPrompt({ name, arguments: args })).messages[0].content.text,
  resources: async () => (await client.listResources()).resources.map((resource) => resource.uri),
  read: async (uri) => (await client.readResource({ uri })).contents[0].text,
  ping: () => client.ping(),
  setLevel: modern ? undefined : (level) => client.setLoggingLevel(level),
  subscribe: (uri) => client.subscribeResource({ uri }),
  listen: async (uri) => {
    const { honoredFilter } = await client.listen({ resourcesListChanged: true, resourceSubscriptions: [uri] });
    same(honoredFilter, { resourcesListChanged: true, resourceSubscriptions: [uri] }, 'acknowledged');
  },
  sessionId: () => transport.sessionId,
  end: async () => {
    if (!modern) await transport.terminateSession();
    await client.close();
  },
});
exit();

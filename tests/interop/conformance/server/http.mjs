// The native transport: Streamable HTTP with sessions, an event store for resumption and DNS-rebinding protection.
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { getRequestListener } from '@hono/node-server';
import { WebStandardStreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js';
import {
  LATEST_PROTOCOL_VERSION,
  SUPPORTED_PROTOCOL_VERSIONS,
  isInitializeRequest,
} from '@modelcontextprotocol/sdk/types.js';
import { RETRY_MS } from './features.mjs';
import { legacy } from './legacy.mjs';

/** The events of one session, in order. An id is `<stream>~<index>`. */
class EventStore {
  #events = [];

  async storeEvent(stream, message) {
    const id = `${stream}~${this.#events.length}`;
    this.#events.push({ id, stream, message });
    return id;
  }

  async getStreamIdForEventId(id) {
    return this.#events.find(event => event.id === id)?.stream;
  }

  async replayEventsAfter(lastId, { send }) {
    const last = this.#events.findIndex(event => event.id === lastId);
    if (last < 0) throw new Error(`Unknown event id ${lastId}`);
    const { stream } = this.#events[last];
    for (const { id, message } of this.#events.slice(last + 1).filter(event => event.stream === stream)) {
      await send(id, message);
    }
    return stream;
  }
}

const refuse = (status, code, message) =>
  Response.json({ jsonrpc: '2.0', error: { code, message }, id: null }, { status });

export async function serveHttp(port) {
  const sessions = new Map();
  let hosts;

  // The SDK decides by each request's version header whether a stream may be primed and closed early. The session
  // knows better: the 0.1 suite negotiates 2025-11-25 and then claims 2025-03-26.
  function withNegotiatedVersion(request, version) {
    if (!request.headers.has('mcp-protocol-version')) return request;
    const { url, method, body, signal } = request;
    const headers = new Headers(request.headers);
    headers.set('mcp-protocol-version', version);
    return new Request(url, { method, headers, body, signal, duplex: 'half' });
  }

  async function open(request, parsedBody) {
    const asked = parsedBody.params.protocolVersion;
    const version = SUPPORTED_PROTOCOL_VERSIONS.includes(asked) ? asked : LATEST_PROTOCOL_VERSION;
    const transport = new WebStandardStreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      onsessioninitialized: id => void sessions.set(id, { transport, version }),
      onsessionclosed: id => void sessions.delete(id),
      eventStore: new EventStore(),
      retryInterval: RETRY_MS,
      enableDnsRebindingProtection: true,
      allowedHosts: hosts,
      allowedOrigins: hosts.map(host => `http://${host}`),
    });
    await legacy().connect(transport);
    return transport.handleRequest(request, { parsedBody });
  }

  async function handle(request) {
    if (new URL(request.url).pathname !== '/mcp') return refuse(404, -32000, 'Not found');
    const id = request.headers.get('mcp-session-id');
    if (id !== null) {
      const session = sessions.get(id);
      if (!session) return refuse(404, -32001, 'Session not found');
      return session.transport.handleRequest(withNegotiatedVersion(request, session.version));
    }
    if (request.method !== 'POST') return refuse(400, -32000, 'Mcp-Session-Id header is required');
    const body = await request.json().catch(() => undefined);
    if (!isInitializeRequest(body)) return refuse(400, -32000, 'Mcp-Session-Id header is required');
    return open(request, body);
  }

  const listener = createServer(getRequestListener(handle, { overrideGlobalObjects: false }));
  await new Promise((listening, failed) => listener.once('error', failed).listen(port, '127.0.0.1', listening));
  const bound = listener.address().port;
  hosts = [`127.0.0.1:${bound}`, `localhost:${bound}`];
  console.error(`everything: listening on http://127.0.0.1:${bound}/mcp`);
}

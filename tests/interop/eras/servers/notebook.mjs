// A server of the official TypeScript SDK, 2.x, with the tools of examples/notebook.rs and those of ../child.py:
//
//   node notebook.mjs --modern | --dual | --http     only 2026-07-28, or whatever the client begins with, over stdio;
//                                                    or 2026-07-28 over the SDK's own HTTP, as a control
import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { getRequestListener } from '@hono/node-server';
import { McpServer, acceptedContent, createMcpHandler, fromJsonSchema, inputRequired } from '@modelcontextprotocol/server';
import { serveStdio } from '@modelcontextprotocol/server/stdio';

const notes = new Map();
const kept = [];
const cancelled = [];
const ask = message =>
  inputRequired.elicit({ message, requestedSchema: { type: 'object', properties: { word: { type: 'string' } }, required: ['word'] } });
const text = text => ({ content: [{ type: 'text', text }] });
const uri = title => `note:///${encodeURIComponent(title)}`;

// name -> [arguments, handler]; `changed` says which resource has changed.
const TOOLS = {
  add_note: [
    ['title', 'text'],
    async ({ title, text: body }, _context, changed) => {
      const fresh = !notes.has(title);
      notes.set(title, body);
      await changed(uri(title), fresh);
      return text(`note saved: ${title}`);
    },
  ],
  list_notes: [[], () => text([...notes.keys()].map((title, i) => `${i + 1}. ${title}`).join('\n') || 'no notes yet')],
  read_note: [['title'], ({ title }) => text(notes.get(title) ?? `there is no note ${title}`)],
  echo: [['text'], ({ text: back }) => text(back)],
  confirm_clear: [
    [],
    (_args, { mcpReq }) => {
      const answer = acceptedContent(mcpReq.inputResponses, 'confirm');
      if (answer === undefined) {
        const requestedSchema = { type: 'object', properties: { confirm: { type: 'boolean' } }, required: ['confirm'] };
        return inputRequired({ inputRequests: { confirm: inputRequired.elicit({ message: 'Delete all?', requestedSchema }) } });
      }
      const count = notes.size;
      notes.clear();
      return text(`cleared ${count} notes`);
    },
  ],
  summarize: [
    [],
    (_args, { mcpReq }) => {
      const answer = mcpReq.inputResponses?.summary;
      if (answer) return text(`summary: ${answer.content.text}`);
      const messages = [{ role: 'user', content: { type: 'text', text: 'Summarize these notes' } }];
      return inputRequired({ inputRequests: { summary: inputRequired.createMessage({ messages, maxTokens: 200 }) } });
    },
  ],
  list_roots: [
    [],
    (_args, { mcpReq }) => {
      const answer = mcpReq.inputResponses?.roots;
      if (answer) return text(answer.roots.map(root => root.uri).join('\n'));
      return inputRequired({ inputRequests: { roots: inputRequired.listRoots() } });
    },
  ],
  count: [
    ['to', 'delay_ms'],
    async ({ to, delay_ms = 0 }, { mcpReq }) => {
      const progressToken = mcpReq._meta?.progressToken;
      for (let progress = 1; progress <= to; progress += 1) {
        await sleep(delay_ms);
        if (progressToken === undefined) continue;
        await mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total: to } });
      }
      return text(`counted to ${to}`);
    },
  ],
  log: [
    ['level', 'message'],
    async ({ level, message }, { mcpReq }) => {
      await mcpReq.log(level, message, 'notebook');
      return text('logged');
    },
  ],
  slow: [
    ['seconds', 'text'],
    async ({ seconds, text: word }, { mcpReq }) => {
      await sleep(seconds * 1000, undefined, { signal: mcpReq.signal });
      return text(`waited ${seconds} s: ${word}`);
    },
  ],

  work: [
    ['word', 'steps', 'pause'],
    async ({ word, steps = 1, pause = 0.01 }, { mcpReq }) => {
      const progressToken = mcpReq._meta?.progressToken;
      try {
        for (let progress = 1; progress <= steps; progress += 1) {
          await sleep(pause * 1000, undefined, { signal: mcpReq.signal });
          if (progressToken === undefined) continue;
          const params = { progressToken, progress, total: steps, message: word };
          await mcpReq.notify({ method: 'notifications/progress', params });
        }
      } catch (stopped) {
        cancelled.push(word);
        throw stopped;
      }
      return text(word);
    },
  ],
  question: [
    ['word'],
    ({ word }, { mcpReq }) => {
      const answer = acceptedContent(mcpReq.inputResponses, 'q');
      return answer ? text(`${word}: ${answer.word}`) : inputRequired({ inputRequests: { q: ask(word) }, requestState: word });
    },
  ],
  update: [
    ['word'],
    async ({ word }, _context, changed) => {
      await changed(word, false);
      return text(word);
    },
  ],
  keep: [
    ['word'],
    ({ word }) => {
      kept.push(word);
      return text(kept.join(' '));
    },
  ],
  tell: [[], () => text(JSON.stringify({ pid: process.pid, cancelled }))],
};

function notebook(told) {
  const server = new McpServer(
    { name: 'notebook', version: '2' },
    { capabilities: { resources: { subscribe: true, listChanged: true }, logging: {} } },
  );
  const changed =
    told ??
    (async (uri, fresh) => {
      await server.server.sendResourceUpdated({ uri });
      if (fresh) await server.server.sendResourceListChanged();
    });
  for (const [name, [known, call]] of Object.entries(TOOLS)) {
    const inputSchema = fromJsonSchema({ type: 'object', properties: Object.fromEntries(known.map(key => [key, {}])) });
    server.registerTool(name, { inputSchema }, (args, context) => call(args, context, changed));
  }
  server.server.setRequestHandler('resources/list', () => ({
    resources: [...notes.keys()].map(title => ({ uri: uri(title), name: title })),
  }));
  return server;
}

const mode = process.argv[2];
if (mode === '--http') {
  const handler = createMcpHandler(
    () =>
      notebook((uri, fresh) => {
        handler.notify.resourceUpdated(uri);
        if (fresh) handler.notify.resourcesChanged();
      }),
    { legacy: 'reject' },
  );
  const listener = createServer(getRequestListener(request => handler.fetch(request), { overrideGlobalObjects: false }));
  listener.listen(0, '127.0.0.1', () => console.error(`listening on http://127.0.0.1:${listener.address().port}/mcp`));
} else {
  process.stdin.once('end', () => process.exit(0));
  serveStdio(() => notebook(), { legacy: mode === '--modern' ? 'reject' : 'serve' });
}

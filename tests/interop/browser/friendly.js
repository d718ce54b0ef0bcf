// What a page of an allowed origin must be able to do. Each claim throws what it saw instead.

const headers = { 'content-type': 'application/json', accept: 'application/json, text/event-stream' };

function holds(condition, seen) {
  if (!condition) throw new Error(String(seen));
}

/** Reads the messages of an event stream, with the milliseconds at which each came. */
async function* messages(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = ''; ; ) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    for (let end; (end = text.indexOf('\n\n')) >= 0; text = text.slice(end + 2)) {
      const data = text.slice(0, end).split('\n').find((line) => line.startsWith('data: ')); // the bridge's have one line
      if (data) yield { message: JSON.parse(data.slice('data: '.length)), at: performance.now() };
    }
  }
}

globalThis.use = async (page, report) => {
  const mcp = `${page.bridge}/mcp`;
  let session;
  const post = (message) =>
    fetch(mcp, {
      method: 'POST',
      headers: session ? { ...headers, 'mcp-session-id': session, 'mcp-protocol-version': '2025-11-25' } : headers,
      body: JSON.stringify({ jsonrpc: '2.0', ...message }),
    });
  const call = (id, name, args, meta) =>
    post({ id, method: 'tools/call', params: { name, arguments: args, ...(meta && { _meta: meta }) } });

  const claims = {
    'initializes and reads Mcp-Session-Id': async () => {
      const params = { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: page.name, version: '0' } };
      const answer = await post({ id: 1, method: 'initialize', params });
      const { result } = await answer.json();
      session = answer.headers.get('mcp-session-id');
      holds(result.serverInfo.name === 'notebook', JSON.stringify(result));
      holds(session?.length >= 32, `Mcp-Session-Id ${session}`);
      const told = await post({ method: 'notifications/initialized' });
      holds(told.status === 202, told.status);
    },
    'calls a tool and reads its answer': async () => {
      await call(2, 'add_note', { title: page.name, text: 'kept' });
      const answer = await (await call(3, 'read_note', { title: page.name })).json();
      holds(answer.result.content[0].text === 'kept', JSON.stringify(answer));
    },
    'reads an event stream as it comes': async () => {
      const answer = await call(4, 'count', { to: 5, delay_ms: 150 }, { progressToken: 'steps' });
      holds(answer.headers.get('content-type').startsWith('text/event-stream'), answer.headers.get('content-type'));
      const seen = [];
      for await (const event of messages(answer)) seen.push(event);
      const steps = seen.filter(({ message }) => message.method === 'notifications/progress');
      holds(steps.length === 5 && seen.at(-1).message.id === 4, JSON.stringify(seen));
      holds(seen.at(-1).at - steps[0].at > 300, 'all of it came at once');
    },
    'hears of what happens on the stream of its GET': async () => {
      const stop = new AbortController();
      const listening = await fetch(mcp, {
        headers: { accept: 'text/event-stream', 'mcp-session-id': session },
        signal: stop.signal,
      });
      holds(listening.status === 200, listening.status);
      await call(5, 'add_note', { title: 'another', text: '' });
      for await (const { message } of messages(listening)) {
        holds(message.method === 'notifications/resources/list_changed', JSON.stringify(message));
        break;
      }
      stop.abort();
    },
    'ends its session, and reads why it is gone': async () => {
      const named = { 'mcp-session-id': session };
      const ended = await fetch(mcp, { method: 'DELETE', headers: named });
      holds(ended.status === 204, ended.status);
      const gone = await call(6, 'list_notes', {});
      const reason = gone.headers.get('mcp-bridge-error');
      holds(gone.status === 404 && reason === 'session_terminated', `${gone.status} ${reason}`);
    },
  };
  for (const [claim, body] of Object.entries(claims)) {
    const late = new Promise((_, fail) => setTimeout(() => fail(new Error('not done within 10 s')), 10_000));
    const name = `${page.name}: ${claim}`;
    await Promise.race([body(), late]).then(
      () => report({ name }),
      (error) => report({ name, failed: String(error?.message ?? error) }),
    );
  }
};

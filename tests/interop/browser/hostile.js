// What a page tries that must not reach the bridge. Each attempt returns what it learned; to learn nothing is right.
// `page.bridge`: what the bridge is called here; `page.session`, `page.stream`: ids of a live session and of a live
// stream of the old transport, as if they had leaked. Requests carry the attempt's name, for the child's journal.

const DEADLINE_MS = 4_000;
const soon = (ms) => new Promise((done) => setTimeout(done, ms));

function initialize(name) {
  const clientInfo = { name, version: '0' };
  const params = { protocolVersion: '2025-11-25', capabilities: {}, clientInfo };
  return JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'initialize', params });
}

function call(name) {
  const params = { name: 'add_note', arguments: { title: name, text: name } };
  return JSON.stringify({ jsonrpc: '2.0', id: 99, method: 'tools/call', params });
}

/** Sends, and tells all that can be read of the answer. */
async function ask(url, init) {
  const answer = await fetch(url, init);
  if (answer.type === 'opaque') return '';
  return `${answer.status} ${[...answer.headers.keys()]} ${await answer.text()}`;
}

/** Loads what needs no script of its own, and tells what of it can be seen. */
async function load(tag, attributes, seen) {
  const element = Object.assign(document.createElement(tag), attributes);
  const outcome = new Promise((done) => {
    element.onload = () => done('loaded');
    element.onerror = () => done('');
  });
  document.body.append(element);
  const loaded = await Promise.race([outcome, soon(1_500)]);
  const learned = seen(element, loaded);
  element.remove();
  return learned;
}

const inside = (frame) => {
  try {
    return frame.contentDocument?.body?.innerText ?? '';
  } catch {
    return '';
  }
};

async function form(enctype, field, value, url) {
  const target = `into-${Math.random()}`;
  const frame = Object.assign(document.createElement('iframe'), { name: target });
  const sent = Object.assign(document.createElement('form'), { method: 'post', action: url, enctype, target });
  sent.append(Object.assign(document.createElement('input'), { name: field, value }));
  document.body.append(frame, sent);
  const loaded = new Promise((done) => (frame.onload = done));
  sent.submit();
  await Promise.race([loaded, soon(1_500)]);
  return inside(frame);
}

async function events(url) {
  const source = new EventSource(url);
  const heard = new Promise((done) => {
    source.onopen = () => done('opened');
    source.onmessage = (event) => done(event.data);
    source.addEventListener('endpoint', (event) => done(event.data));
    source.onerror = () => done('');
  });
  const learned = await Promise.race([heard, soon(DEADLINE_MS)]);
  source.close();
  return learned ?? '';
}

async function socket(url) {
  const opened = new WebSocket(url.replace('http', 'ws'));
  const heard = new Promise((done) => {
    opened.onopen = () => done('opened');
    opened.onerror = () => done('');
  });
  return (await Promise.race([heard, soon(DEADLINE_MS)])) ?? '';
}

function attempts({ bridge, session, stream }) {
  const mcp = `${bridge}/mcp`;
  const sse = `${bridge}/sse`;
  const message = `${bridge}/message?sessionId=${stream}`;
  const text = { 'content-type': 'text/plain' };
  const json = { 'content-type': 'application/json', accept: 'application/json, text/event-stream' };
  const known = { ...json, 'mcp-session-id': session, 'mcp-protocol-version': '2025-11-25' };
  const method = 'POST';
  return {
    'fetch as JSON': (name) => ask(mcp, { method, headers: json, body: initialize(name) }),
    'fetch as plain text': (name) => ask(mcp, { method, headers: text, body: initialize(name) }),
    'fetch with credentials': (name) =>
      ask(mcp, { method, headers: text, body: initialize(name), credentials: 'include' }),
    'fetch without CORS': (name) => ask(mcp, { method, headers: json, body: initialize(name), mode: 'no-cors' }),
    'fetch GET': () => ask(mcp),
    'fetch OPTIONS': () => ask(mcp, { method: 'OPTIONS' }),
    'call in a live session': (name) => ask(mcp, { method, headers: known, body: call(name) }),
    'call in a live session without CORS': (name) =>
      ask(mcp, { method, headers: known, body: call(name), mode: 'no-cors' }),
    'stream of a live session': () => ask(mcp, { headers: { ...known, accept: 'text/event-stream' } }),
    'DELETE of a live session': () => ask(mcp, { method: 'DELETE', headers: known }),
    'call on a live old stream as JSON': (name) => ask(message, { method, headers: json, body: call(name) }),
    'call on a live old stream without CORS': (name) =>
      ask(message, { method, headers: text, body: call(name), mode: 'no-cors' }),
    'XMLHttpRequest': (name) =>
      new Promise((done) => {
        const request = new XMLHttpRequest();
        request.open(method, mcp);
        request.setRequestHeader('content-type', 'text/plain');
        request.onloadend = () => done(request.responseText);
        request.send(initialize(name));
      }),
    'form as plain text': (name) => {
      const [head, tail] = initialize(name).split('"version":"0"'); // the `=` of the form goes in between
      return form('text/plain', `${head}"version":"`, `0"${tail}`, mcp);
    },
    'form, urlencoded': (name) => form('application/x-www-form-urlencoded', initialize(name), '', mcp),
    'form, multipart': (name) => form('multipart/form-data', 'body', initialize(name), mcp),
    'sendBeacon': (name) => {
      for (const type of ['text/plain', 'application/json']) {
        navigator.sendBeacon(mcp, new Blob([initialize(name)], { type }));
        navigator.sendBeacon(message, new Blob([call(name)], { type }));
      }
      return '';
    },
    'EventSource': () => events(mcp),
    'EventSource on the old stream': () => events(sse),
    'WebSocket': () => socket(mcp),
    'script': () => load('script', { src: mcp }, (_, loaded) => (loaded ? 'ran' : '')),
    'style sheet': () =>
      load('link', { rel: 'stylesheet', href: mcp }, (_, loaded) => (loaded ? 'applied' : '')),
    'image': () => load('img', { src: mcp }, (element) => (element.naturalWidth ? 'shown' : '')),
    'image of the old stream': () => load('img', { src: sse }, (element) => (element.naturalWidth ? 'shown' : '')),
    'frame': () => load('iframe', { src: mcp }, inside),
    'frame of the old stream': () => load('iframe', { src: sse }, inside),
  };
}

/** Runs all attempts, one after the other, and reports each. */
globalThis.attack = async (page, report) => {
  for (const [attempt, body] of Object.entries(attempts(page))) {
    const name = `${page.name}: ${attempt}`;
    const late = soon(DEADLINE_MS + 1_000).then(() => 'no end: something is being read');
    const learned = await Promise.race([Promise.resolve(name).then(body).catch(() => ''), late]);
    await report({ name, learned });
  }
};

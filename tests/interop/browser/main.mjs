// node main.mjs BRIDGE NOTEBOOK CHROMIUM WORK_DIR
//
// Serves the pages, sends one Chromium from page to page, and judges what the pages report by what the bridge logged
// and what its child read. Every name resolves to 127.0.0.1, so nothing but the bridge's own checks is in the way.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { openSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import net from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const [bridgeBinary, notebook, chromium, work] = process.argv.slice(2);
const JOURNAL = join(work, 'journal'); // every byte that a child was sent
const LOG = join(work, 'bridge.log');
const BROWSER_MS = 90_000; // for all pages
const started = [];
process.on('exit', () => started.forEach((child) => child.kill('SIGKILL')));
process.on('SIGTERM', () => process.exit(1));

let passed = 0;
let failed = 0;

function verdict(claim, wrong) {
  if (wrong) {
    failed += 1;
    console.log(`FAIL browser ${claim}: ${String(wrong).replaceAll(/\s+/g, ' ').slice(0, 300)}`);
  } else {
    passed += 1;
    console.log(`ok browser ${claim}`);
  }
}

/** A running program, its stderr in a file; to be ended by `stop`. */
function start(file, args, log, env = {}) {
  const stdio = ['ignore', 'ignore', openSync(log, 'a')];
  const child = spawn(file, args, { stdio, env: { ...process.env, ...env } });
  started.push(child);
  return child;
}

/** Waits until it holds, for five seconds at most; what is claimed afterwards says if it never did. */
async function eventually(holds) {
  for (let tries = 0; !holds() && tries < 100; tries += 1) await sleep(50);
}

async function stop(child) {
  const exited = child.exitCode === null && child.signalCode === null ? once(child, 'exit') : undefined;
  child.kill('SIGTERM');
  await Promise.race([exited, sleep(15_000, undefined, { ref: false })]);
}

const log = () => readFileSync(LOG, 'utf8');
const sessions = () => log().match(/event="?session\.start/g)?.length ?? 0;
const journal = () => readFileSync(JOURNAL, 'utf8');

// ------------------------------------------------------------------------------------------------ pages

const pages = []; // in the order of the visit
const reports = new Map(); // page → what it reported
let finished; // called when the last page is done
const allDone = new Promise((done) => (finished = done));

const script = { hostile: 'attack', friendly: 'use' };
const markup = (page) =>
  `<!doctype html><body><script src="${controller}/${page.kind}.js"></script><script type="module">
    const page = ${JSON.stringify({ name: page.name, bridge: page.bridge ?? bridge, ...leaked })};
    const say = async (what) => {
      const body = JSON.stringify({ page: page.name, ...what });
      return (await fetch('${controller}/report', { method: 'POST', body })).text();
    };
    await ${script[page.kind]}(page, say);
    const next = await say({ done: true });
    if (window === top) location.replace(next);
  </script>`;

/** The page as such, or a page with it in a frame whose origin is opaque. */
function served(page) {
  const inner = markup(page).replaceAll('&', '&amp;').replaceAll('"', '&quot;');
  const forward = `<script>setInterval(async () => {
    const next = await (await fetch('/next')).text();
    if (next) location.replace(next);
  }, 100)</script>`;
  if (page.frame === 'sandbox') {
    return `<!doctype html><body>${forward}<iframe sandbox="allow-scripts allow-forms" srcdoc="${inner}"></iframe>`;
  }
  if (page.frame === 'data') {
    const url = `data:text/html;base64,${Buffer.from(markup(page)).toString('base64')}`;
    return `<!doctype html><body>${forward}<iframe src="${url}"></iframe>`;
  }
  return markup(page);
}

let nextOf = ''; // where a page with a frame is to go, once the frame is done
async function serve(request, response) {
  const path = new URL(request.url, 'http://any').pathname;
  response.setHeader('access-control-allow-origin', '*');
  response.setHeader('connection', 'close');
  if (path === '/report') {
    let body = '';
    for await (const part of request) body += part;
    const { page, done, ...report } = JSON.parse(body);
    if (!done) reports.get(page).push(report);
    const index = pages.findIndex(({ name }) => name === page);
    const next = done ? await moveOn(index) : '';
    if (done && pages[index].frame) nextOf = next;
    response.end(next);
  } else if (path === '/next') {
    response.end(nextOf);
    nextOf = '';
  } else if (path.endsWith('.js')) {
    response.setHeader('content-type', 'text/javascript');
    response.end(await readFile(join(import.meta.dirname, path)));
  } else {
    const page = pages.find((known) => path === `/${pages.indexOf(known)}`);
    response.setHeader('content-type', 'text/html');
    response.statusCode = page ? 200 : 404;
    response.end(page ? served(page) : '');
    page?.afterwards?.();
  }
}

const address = (index) => `${pages[index].origin}/${index}`;

async function moveOn(index) {
  await pages[index].check?.();
  if (index + 1 < pages.length) return address(index + 1);
  finished();
  return 'about:blank';
}

async function listen(server) {
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  return server.address().port;
}

const port = await listen(http.createServer(serve));
const otherPort = await listen(http.createServer(serve));
const controller = `http://127.0.0.1:${port}`;

// ------------------------------------------------------------------------------------------------ the bridge

const APP = `http://app.example:${port}`;
const tee = 'tee -a "$0" | "$1"';
const options = ['--listen', '127.0.0.1:0', '--lazy', '--sse-compat', '--allow-origin', APP];
const running = start(bridgeBinary, [...options, '--', 'sh', '-c', tee, JOURNAL, notebook], LOG, { RUST_LOG: 'info' });
let bridge;
await eventually(() => (bridge = log().match(/http:\/\/127\.0\.0\.1:\d+/)?.[0]));
if (!bridge) {
  console.error(`the bridge did not start: ${log()}`);
  process.exit(1);
}
const bridgePort = Number(new URL(bridge).port);

const json = { 'content-type': 'application/json', accept: 'application/json, text/event-stream' };
const post = (url, message, headers = {}) => {
  const body = JSON.stringify({ jsonrpc: '2.0', ...message });
  return fetch(url, { method: 'POST', headers: { ...json, ...headers }, body });
};
const params = { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'victim', version: '0' } };

/** What the pages are told, as if it had leaked: a live session, and a live stream of the old transport. */
const opened = await post(`${bridge}/mcp`, { id: 1, method: 'initialize', params });
await opened.text();
const session = opened.headers.get('mcp-session-id');
const own = { 'mcp-session-id': session, 'mcp-protocol-version': '2025-11-25' };
const tool = (id, name, args) =>
  post(`${bridge}/mcp`, { id, method: 'tools/call', params: { name, arguments: args } }, own).then((a) => a.text());
await post(`${bridge}/mcp`, { method: 'notifications/initialized' }, own);
await tool(2, 'add_note', { title: 'secret', text: 'of the victim' });

const old = await fetch(`${bridge}/sse`, { headers: { accept: 'text/event-stream' } });
const stream = new TextDecoder().decode((await old.body.getReader().read()).value).match(/sessionId=(\S+)/)[1];
await post(`${bridge}/message?sessionId=${stream}`, { id: 1, method: 'initialize', params });
await post(`${bridge}/message?sessionId=${stream}`, { method: 'notifications/initialized' });
const leaked = { session, stream };

await eventually(() => journal().split('notifications/initialized').length === 3);
const now = () => ({ sessions: sessions(), journal: journal(), log: log().length });
const before = now();

// ------------------------------------------------------------------------------------------------ rebinding

// rebind.example is one origin: first it serves a page, and then it is the bridge. A name server would change its
// answer in between; here a relay changes where the bytes go, which a browser cannot tell apart.
let rebound = false;
const relay = net.createServer((socket) => {
  socket.on('error', () => socket.destroy());
  // At its first byte: browsers open connections before they need them.
  socket.once('data', (first) => {
    const onward = net.connect(rebound ? bridgePort : port, '127.0.0.1');
    onward.on('error', () => socket.destroy());
    onward.write(first);
    socket.pipe(onward).pipe(socket);
  });
});
const relayPort = await listen(relay);

// ------------------------------------------------------------------------------------------------ the visits

/** Nothing of this page came through, and the log says why. */
function harmless(page, { refusal, option, barrier }) {
  const seen = reports.get(page.name);
  // A page that is rebound has the bridge's own origin in the browser's eyes: it may read that it was refused.
  const mayRead = (learned) => learned === '' || (page.rebinds && learned.includes('host_forbidden'));
  for (const { name, learned } of seen) verdict(`${name} learns nothing`, !mayRead(learned) && `it read ${learned}`);
  verdict(`${page.name}: all of it was tried`, seen.length < 20 && `only ${seen.map(({ name }) => name)}`);
  verdict(`${page.name}: starts no session`, sessions() !== before.sessions && `${sessions() - before.sessions} more`);
  const heard = journal().slice(before.journal.length).split('\n').filter((line) => line && !line.includes(barrier));
  verdict(`${page.name}: no child hears a byte of it`, heard.join(' '));
  const forbidden = (text) => text.split('\n').filter((line) => line.includes('http.forbidden'));
  const lines = forbidden(log().slice(before.log));
  const named = lines.some((line) => line.includes(refusal) && line.includes(option));
  // After ten of them there is one line a minute, for strangers must not fill a disk.
  const rationed = forbidden(log()).length >= 10;
  verdict(`${page.name}: the log names ${option}`, !named && !rationed && `${lines.length} refusals, none of ${refusal}`);
  Object.assign(before, now()); // the next page answers for itself alone
  if (page.rebinds) {
    const told = seen.some(({ learned }) => learned.startsWith('403') && learned.includes(option));
    verdict(`${page.name}: the refusal names ${option}`, !told && JSON.stringify(seen));
  }
}

function hostile(name, origin, refusal, more = {}) {
  const page = { kind: 'hostile', name, origin, ...more };
  const option = more.rebinds ? '--allow-host' : '--allow-origin';
  page.check = async () => {
    // A barrier: once the child has read it, it has read what came before it.
    const barrier = `after ${name}`;
    await tool(3, 'echo', { text: barrier });
    await eventually(() => journal().includes(barrier));
    harmless(page, { refusal, option, barrier });
  };
  pages.push(page);
}

function friendly(name, origin) {
  const check = () => {
    const seen = reports.get(name);
    for (const report of seen) verdict(report.name, report.failed);
    verdict(`${name}: all of it was tried`, seen.length !== 5 && `only ${seen.length}`);
  };
  pages.push({ kind: 'friendly', name, origin, check });
}

const EVIL = `http://evil.example:${port}`;
const OTHER = `http://app.example:${otherPort}`;
hostile('another origin', EVIL, `Origin "${EVIL}"`);
hostile('allowed name, other port', OTHER, `Origin "${OTHER}"`);
hostile('sandboxed frame', EVIL, 'Origin "null"', { frame: 'sandbox' });
hostile('data URL', EVIL, 'Origin "null"', { frame: 'data' });
const REBIND = `http://rebind.example:${bridgePort}`;
hostile('rebound name', REBIND, `Host "rebind.example:${bridgePort}"`, {
  rebinds: true,
  bridge: REBIND,
  afterwards: () => (rebound = true),
});
friendly('allowed origin', APP);
friendly('origin of this machine', `http://localhost:${port}`);
for (const { name } of pages) reports.set(name, []);

const map = [`MAP rebind.example 127.0.0.1:${relayPort}`, 'MAP *.example 127.0.0.1'].join(',');
const browser = start(
  chromium,
  [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-dev-shm-usage', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-breakpad',
    // The browser's own guard of local addresses stays out of it: what is tested is the bridge's.
    '--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests',
    `--user-data-dir=${join(work, 'profile')}`, `--host-resolver-rules=${map}`, address(0),
  ],
  join(work, 'chromium.log'),
  { HOME: work, XDG_CONFIG_HOME: work, XDG_CACHE_HOME: work },
);
const outcome = await Promise.race([
  allDone,
  once(browser, 'exit').then(([code]) => `chromium ended with ${code}`),
  sleep(BROWSER_MS, undefined, { ref: false }).then(() => `not done within ${BROWSER_MS} ms`),
]);
const where = pages.map(({ name }) => `${name} ${reports.get(name).length}`).join(', ');
verdict('every page was visited', outcome && `${outcome}; reports: ${where}`);
if (outcome) console.error(readFileSync(join(work, 'chromium.log'), 'utf8').slice(-2_000));

// ------------------------------------------------------------------------------------------------ afterwards

const notes = await tool(4, 'list_notes', {});
verdict('the session that leaked is untouched', !notes.includes('1. secret"') && notes);
for (const origin of ['null', EVIL]) {
  const refused = await post(`${bridge}/mcp`, { id: 1, method: 'ping' }, { ...own, origin });
  const text = await refused.text();
  const named = refused.status === 403 && text.includes('--allow-origin');
  verdict(`the refusal of Origin ${origin} names --allow-origin`, !named && `${refused.status} ${text}`);
}
await stop(browser);
await stop(running);
verdict('the bridge drained', running.exitCode !== 0 && `exit code ${running.exitCode}`);
// The two that leaked, and one of each page that was welcome; no more, now that the whole log is there.
verdict('no session but theirs was ever started', sessions() !== 4 && sessions());

console.log(`\n${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);

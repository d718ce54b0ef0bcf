// The MCP inspector without its browser: node inspector.mjs URL NAME
//
// `mcp-inspector --cli` is one process and one session per request; `mcpdo`, from the same package, is a daemon that
// keeps a session for many commands. Neither ends its sessions: they send no DELETE and leave them to the idle timeout.
import { execFile, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { claim, exit, holds, same } from './claims.mjs';

const [url, name] = process.argv.slice(2);
const own = `${name}-${process.pid}`;
const home = await mkdtemp(join(tmpdir(), 'inspector-')); // a home of its own: it keeps a catalog, secrets and a socket
const env = { ...process.env, HOME: home, MCP_INSPECTOR_SECRET_STORE: 'file' };
const program = (tool) => join(import.meta.dirname, 'node_modules', '.bin', tool);

async function run(tool, args) {
  const running = promisify(execFile)(process.execPath, [program(tool), ...args], { env, timeout: 15_000 });
  running.child.stdin.end();
  const { stdout } = await running.catch((error) => {
    throw new Error(error.stderr || error.message);
  });
  return JSON.parse(stdout);
}
const cli = async (...args) => (await run('mcp-inspector', ['--cli', url, '--format', 'json', ...args])).result;
const mcpdo = (...args) => run('mcpdo', ['--format', 'json', ...args]);
const held = (...args) => mcpdo('--connection', url, ...args);
const text = (result) => result.content[0].text;
const call = async (tool, args = {}) => text(await held('tools/call', tool, JSON.stringify(args)));

/** Runs a command that prints what arrives, nudges the server until `expected` has arrived, and ends the command. */
async function follow(args, nudge, expected) {
  const child = spawn(process.execPath, [program('mcpdo'), '--format', 'json', '--connection', url, ...args], { env });
  let seen = '';
  child.stdout.on('data', (data) => (seen += data));
  try {
    // It shows nothing from before it started and does not say when it has.
    while (!seen.includes(expected)) await nudge();
  } finally {
    child.kill();
  }
}

async function leave() {
  await mcpdo('daemon', 'stop').catch(() => {});
  await rm(home, { recursive: true, force: true, maxRetries: 5 });
}
process.on('SIGTERM', () => leave().then(() => process.exit(1)));

await claim(name, 'initialize', async () => {
  await mcpdo('connect', url);
  const shown = await held('connections/show');
  same([shown.serverInfo.name, shown.protocolVersion], ['notebook', '2025-11-25'], 'server and version');
});
await claim(name, 'tools', async () => {
  for (const era of ['legacy', 'auto']) {
    const { tools } = await cli('--protocol-era', era, '--method', 'tools/list');
    holds(tools.some((tool) => tool.name === 'add_note'), tools);
  }
  const echoed = await cli('--method', 'tools/call', '--tool-name', 'echo', '--tool-arg', `text=${own}`);
  same(text(echoed), own, 'echo');
});
await claim(name, 'state', async () => {
  await call('add_note', { title: own, text: `kept by ${own}` });
  same(await call('list_notes'), `1. ${own}`, 'every note of this session');
  const { resources } = await held('resources/list');
  same(resources.map((resource) => resource.uri), [`note:///${own}`], 'resources');
  same((await cli('--method', 'resources/list')).resources, [], 'resources of another session');
});
await claim(name, 'concurrent', async () => {
  const load = ['--load', '--load-concurrency', '50', '--load-requests', '500'];
  const sum = await cli('--method', 'tools/call', '--tool-name', 'echo', '--tool-arg', `text=${own}`, ...load);
  same([sum.requests, sum.ok, sum.errors, sum.toolErrors], [500, 500, 0, 0], 'requests, ok, errors, tool errors');
});
await claim(name, 'elicitation', async () => {
  const { elicitationPending: asked } = await held('tools/call', 'confirm_clear');
  same(text(await mcpdo('elicitation/respond', asked.elicitationId, 'confirm:=true')), 'cleared 1 notes', 'answer');
});
await claim(name, 'roots', async () => {
  await held('roots/set', '--roots-json', JSON.stringify([{ uri: `file:///srv/${name}` }]));
  same(await call('list_roots'), `file:///srv/${name}`, 'roots');
});
await claim(name, 'log', async () => {
  await held('logging/setLevel', 'debug');
  await follow(['logging/tail'], () => call('log', { level: 'warning', message: `${own} warns` }), `${own} warns`);
});
await claim(name, 'updates', () =>
  follow(
    ['resources/subscribe', 'note:///watched'],
    () => call('add_note', { title: 'watched', text: own }),
    '"resources/updated"',
  ),
);
await claim(name, 'slow', async () => {
  const args = JSON.stringify({ seconds: 3, text: own });
  const answer = await cli('--method', 'tools/call', '--tool-name', 'slow', '--tool-args-json', args);
  same(text(answer), `waited 3 s: ${own}`, 'answer');
});
for (const [missing, why] of [
  ['capabilities', 'it shows none'],
  ['errors', 'it turns them into exit codes'],
  ['prompts', 'the server has none'],
  ['resources', 'they are part of `state`'],
  ['ping', 'it sends none'],
  ['sampling', 'it answers no sampling request outside its browser'],
  ['progress', 'it shows none'],
  ['cancel', 'it cancels nothing'],
  ['terminate', 'it sends no DELETE'],
  ['gone', 'it sends no DELETE'],
]) {
  console.log(`n/a ${name} ${missing}: ${why}`);
}
await leave();
exit();

// The same features as a server of each era, over either transport. PORT 0 takes a free one and prints it.
// Without --modern or --dual it speaks up to 2025-11-25; --dual speaks whatever its client begins with, over stdio.
const [transport, ...rest] = process.argv.slice(2);
const port = transport === '--http' ? rest.shift() : undefined;
const [era] = rest;

if (transport === '--stdio' && era === undefined) {
  const { StdioServerTransport } = await import('@modelcontextprotocol/sdk/server/stdio.js');
  const { legacy } = await import('./legacy.mjs');
  process.stdin.once('end', () => process.exit(0));
  await legacy().connect(new StdioServerTransport());
} else if (transport === '--stdio' && (era === '--modern' || era === '--dual')) {
  const { serveStdio } = await import('./modern.mjs');
  process.stdin.once('end', () => process.exit(0));
  serveStdio(era === '--dual' ? 'serve' : 'reject');
} else if (/^\d+$/.test(port ?? '') && (era === undefined || era === '--modern')) {
  const { serveHttp } = await import(era ? './modern.mjs' : './http.mjs');
  await serveHttp(Number(port));
} else {
  console.error('usage: main.mjs --stdio [--modern | --dual] | --http PORT [--modern]');
  process.exit(64);
}

// everything --stdio | --http PORT: the same server over either transport. PORT 0 takes a free one and prints it.
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import { everything } from './everything.mjs';

const [mode, port] = process.argv.slice(2);
if (mode === '--stdio') {
  process.stdin.once('end', () => process.exit(0));
  await everything().connect(new StdioServerTransport());
} else if (mode === '--http' && /^\d+$/.test(port ?? '')) {
  const { serveHttp } = await import('./http.mjs');
  await serveHttp(Number(port));
} else {
  console.error('usage: main.mjs --stdio | --http PORT');
  process.exit(64);
}

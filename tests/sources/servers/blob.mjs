// An Azure Blob server in memory. Says its port once it listens, and ends when its input does. AZURITE_ACCOUNTS names the
// account and its key.
import { createServer, connect } from 'node:net';
import { createRequire } from 'node:module';

const free = createServer();
const port = await new Promise((resolve) => free.listen(0, '127.0.0.1', () => resolve(free.address().port)));
await new Promise((resolve) => free.close(resolve));

process.argv = [process.argv[0], 'blob', '--blobHost', '127.0.0.1', '--blobPort', String(port), '--disableTelemetry', '--silent',
  '--skipApiVersionCheck', '--disableProductStyleUrl', '--inMemoryPersistence'];
const log = console.log;
console.log = () => {};
createRequire(import.meta.url)('azurite/dist/src/blob/main.js');

const listens = () => new Promise((resolve) => {
  const socket = connect(port, '127.0.0.1', () => { socket.destroy(); resolve(true); });
  socket.on('error', () => resolve(false));
});
while (!(await listens())) await new Promise((resolve) => setTimeout(resolve, 50));
log(port);
process.stdin.on('end', () => process.exit(0));
process.stdin.resume();

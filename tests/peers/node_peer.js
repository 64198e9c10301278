// Peers in Node: `ws` as WebSocket client and server, an HTTP app, `http.request` and `fetch` as clients.
// Prints the port of its control server. A connection to that is one actor: a line of JSON says what it
// plays, lines of JSON come back; when the connection ends, all that the actor opened ends too.
'use strict';

const crypto = require('crypto');
const net = require('net');
const readline = require('readline');

const http_app = require('./node_http.js');

const PATTERN = Buffer.from('The quick brown fox jumps over the lazy dog. ');

function websocket() {
  // Late, so that what needs Node alone needs no packages.
  return require(process.argv[2] + '/ws');
}

function deflate(part) {
  if (part.deflate === null) return false;
  const names = {
    server_no_context_takeover: 'serverNoContextTakeover',
    client_no_context_takeover: 'clientNoContextTakeover',
    server_max_window_bits: 'serverMaxWindowBits',
    client_max_window_bits: 'clientMaxWindowBits',
  };
  const options = { threshold: 0 };
  for (const [name, value] of Object.entries(part.deflate)) options[names[name]] = value;
  return options;
}

// What comes, in order, and whoever waits for it. Listens from the start: `ws` holds nothing back.
class Inbox {
  constructor(socket, events) {
    this.came = [];
    this.waiter = null;
    socket.on('message', (data, binary) => this.put(['message', data, binary]));
    socket.on('ping', (data) => events.push(['ping', data.toString()]));
    socket.on('pong', (data) => {
      events.push(['pong', data.toString()]);
      if (this.pong) this.pong();
    });
    socket.on('error', (error) => events.push(['error', error.code]));
    socket.on('close', (code, reason) => this.put(['closed', code, reason.toString()]));
  }

  put(entry) {
    this.came.push(entry);
    if (this.waiter) this.waiter();
  }

  async take() {
    if (!this.came.length) await new Promise((resolve) => (this.waiter = resolve));
    this.waiter = null;
    return this.came.shift();
  }
}

function told([kind, ...args]) {
  if (kind === 'closed') return [kind, ...args];
  const [data, binary] = args;
  if (!binary) return ['text', [data.toString()]];
  return ['binary', [data.length], crypto.createHash('sha256').update(data).digest('hex')];
}

async function step(socket, inbox, [word, ...args]) {
  switch (word) {
    case 'text':
      return socket.send(args[0]);
    case 'binary':
      return socket.send(Buffer.alloc(args[0], PATTERN));
    case 'fragments': {
      const last = args[0].findLastIndex((part) => typeof part === 'string');
      args[0].forEach((part, n) =>
        typeof part === 'string' ? socket.send(part, { fin: n === last }) : socket.ping(part.ping),
      );
      return;
    }
    case 'ping': {
      const ponged = new Promise((resolve) => (inbox.pong = resolve));
      socket.ping(args[0]);
      return ponged;
    }
    case 'pong':
      return socket.pong(args[0]);
    case 'raw':
      socket._socket.write(Buffer.from(args[0], 'hex'));
      return;
    case 'get':
      return told(await inbox.take());
    case 'close':
      socket.close(args[0] === null ? undefined : args[0], args[1]);
      return told(await inbox.take());
    case 'drop':
      socket.terminate();
      return told(await inbox.take());
    case 'wait':
      return told(await inbox.take());
    default:
      throw new Error(`${word} is beyond ws`);
  }
}

async function play(socket, inbox, steps, events) {
  for (const one of steps) {
    const event = await step(socket, inbox, one);
    if (Array.isArray(event)) events.push(event);
  }
}

function serve({ part }, say, onEnd) {
  const fields = part.fields.map(([name, value]) => `${name}: ${value}`);
  const server = new (websocket().WebSocketServer)({
    host: '127.0.0.1',
    port: 0,
    perMessageDeflate: deflate(part),
    handleProtocols: (asked) => part.subprotocols.find((name) => asked.has(name)) ?? false,
    verifyClient: (info, answer) => {
      if (!part.refuse) return answer(true);
      const [status, body] = part.refuse;
      answer(false, status, body, Object.fromEntries(part.fields));
      say({ events: [['refused', info.req.url]] });
    },
  });
  server.on('headers', (headers) => headers.push(...fields));
  server.on('connection', async (socket, request) => {
    const events = [['open', request.url, socket.protocol || null]];
    await play(socket, new Inbox(socket, events), part.steps, events);
    say({ events });
  });
  server.on('listening', () => say({ port: server.address().port }));
  onEnd(() => {
    server.clients.forEach((socket) => socket.terminate());
    server.close();
  });
}

function visit({ part, port, host, target }, say, onEnd) {
  const socket = new (websocket().WebSocket)(`ws://${host}${target}`, part.subprotocols, {
    perMessageDeflate: deflate(part),
    headers: Object.fromEntries(part.fields),
    createConnection: () => net.connect(port, '127.0.0.1'),
  });
  const events = [];
  const inbox = new Inbox(socket, events);
  socket.on('upgrade', (answer) =>
    events.push(['open', null, answer.headers['set-cookie'] ?? []]),
  );
  socket.on('open', async () => {
    events[0][1] = socket.protocol || null;
    await play(socket, inbox, part.steps, events);
    say({ events });
  });
  socket.on('unexpected-response', async (_, answer) => {
    let body = '';
    for await (const piece of answer) body += piece;
    say({ events: [['refused', answer.statusCode, body]] });
  });
  onEnd(() => socket.terminate());
}

const ROLES = { serve, visit, ...http_app };

const control = net.createServer((connection) => {
  const say = (line) => connection.writable && connection.write(JSON.stringify(line) + '\n');
  const ends = [];
  connection.on('error', () => {});
  connection.on('close', () => ends.forEach((end) => end()));
  readline.createInterface({ input: connection }).on('line', (line) => {
    const order = JSON.parse(line);
    Promise.resolve()
      .then(() => ROLES[order.role](order, say, (end) => ends.push(end)))
      .catch((error) => say({ error: String(error.stack) }));
  });
});
control.listen(0, '127.0.0.1', () => console.log(control.address().port));
process.on('uncaughtException', (error) => console.error(error));
// Whoever started us has ended.
process.stdin.on('end', () => process.exit()).resume();

// HTTP in Node: the app of `http_apps.py` for `http.createServer`, and two clients.
'use strict';

const crypto = require('crypto');
const dns = require('dns');
const http = require('http');

const PATTERN = Buffer.from('The quick brown fox jumps over the lazy dog. ');
const BYTES = Buffer.alloc(100000, PATTERN);

function pairs(raw) {
  return raw.flatMap((name, n) => (n % 2 ? [] : [[name, raw[n + 1]]]));
}

const released = { waiter: null, count: 0 };

async function release() {
  if (!released.count) await new Promise((resolve) => (released.waiter = resolve));
  released.count -= 1;
}

const ROUTES = {
  '/echo': async (request, response) => {
    const sum = crypto.createHash('sha256');
    let length = 0;
    for await (const piece of request) {
      sum.update(piece);
      length += piece.length;
    }
    const { method, url: target, rawHeaders } = request;
    const said = { method, target, fields: pairs(rawHeaders), length, sum: sum.digest('hex') };
    response.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(said));
  },
  '/plain': (_, response) => {
    response.writeHead(200, 'Fine enough', [
      ['Set-Cookie', 'a=1; Path=/'], ['X-Odd-CASE', 'kept,  as it is'], ['Set-Cookie', 'b=2'],
      ['Content-Type', 'text/plain'], ['Content-Length', '6'],
    ].flat());
    response.end('plain\n');
  },
  '/none': (_, response) => response.writeHead(204, { 'X-None': 'yes' }).end(),
  '/same': (_, response) => response.writeHead(304, { ETag: '"v1"' }).end(),
  '/moved': (_, response) => response.writeHead(302, { Location: '/plain?x=1' }).end(),
  '/bytes': (request, response) => {
    const asked = /^bytes=(\d*)-(\d*)$/.exec(request.headers.range ?? '');
    if (!asked) return response.writeHead(200, { 'Content-Length': BYTES.length }).end(BYTES);
    const start = asked[1] ? Number(asked[1]) : BYTES.length - Number(asked[2]);
    const end = asked[1] && asked[2] ? Number(asked[2]) : BYTES.length - 1;
    if (start >= BYTES.length)
      return response.writeHead(416, { 'Content-Range': `bytes */${BYTES.length}` }).end();
    const part = BYTES.subarray(start, end + 1);
    const range = `bytes ${start}-${end}/${BYTES.length}`;
    response.writeHead(206, { 'Content-Range': range, 'Content-Length': part.length }).end(part);
  },
  '/pieces': (_, response) => {
    response.writeHead(200, { 'Content-Type': 'application/octet-stream' });
    for (let n = 0; n < 50; n++) response.write(PATTERN);
    response.end();
  },
  '/events': async (_, response) => {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    for (let n = 0; n < 5; n++) {
      response.write(`data: ${n}\n\n`);
      await release();
    }
    response.end();
  },
  '/next': (_, response) => {
    released.count += 1;
    if (released.waiter) released.waiter();
    released.waiter = null;
    response.writeHead(204).end();
  },
  '/early': (_, response) => {
    response.writeEarlyHints({ link: ['</a.css>; rel=preload', '</b.js>; rel=preload'], 'x-early': '1' });
    response.writeEarlyHints({ link: '</c.png>; rel=preload' });
    response.writeHead(200, { 'Content-Length': '5' }).end('early');
  },
  '/trailers': (_, response) => {
    response.writeHead(200, { Trailer: 'X-Sum, X-Odd-CASE' });
    response.write('with ');
    response.addTrailers({ 'X-Sum': 'abc', 'X-Odd-CASE': 'kept' });
    response.end('trailers');
  },
};

function route(request, response) {
  ROUTES[request.url.split('?')[0]](request, response);
}

function app(_, say, onEnd) {
  released.count = 0;
  const server = http.createServer(route);
  server.on('checkContinue', (request, response) => {
    if (request.url.startsWith('/refuse'))
      return response.writeHead(403, { 'Content-Length': '2', Connection: 'close' }).end('no');
    response.writeContinue();
    route(request, response);
  });
  server.listen(0, '127.0.0.1', () => say({ port: server.address().port }));
  onEnd(() => {
    server.closeAllConnections();
    server.close();
  });
}

async function* pieces(asked) {
  for (const piece of asked) yield Buffer.from(piece, 'base64');
}

// `fetch` takes the Host from the address: whatever name it asks for is here.
dns.lookup = (_, ...rest) => {
  const [answer, options] = rest.reverse();
  const here = { address: '127.0.0.1', family: 4 };
  return options?.all ? answer(null, [here]) : answer(null, here.address, here.family);
};

async function request(order, say) {
  const { port, method, target, body } = order;
  const said = { interim: [], trailers: [] };
  const headers = { Host: order.host, ...Object.fromEntries(order.fields) };
  const options = { host: '127.0.0.1', port, method, path: target, headers, agent: false };
  const out = http.request(options);
  out.on('information', (info) => said.interim.push([info.statusCode, pairs(info.rawHeaders)]));
  const answered = new Promise((resolve, reject) => out.on('response', resolve).on('error', reject));
  if (Array.isArray(body)) {
    for await (const piece of pieces(body)) out.write(piece);
    out.end();
  } else out.end(Buffer.from(body ?? '', 'base64'));
  const answer = await answered;
  const got = [];
  for await (const piece of answer) {
    got.push(piece);
    if (order.stream) say({ piece: piece.toString() });
  }
  said.trailers = pairs(answer.rawTrailers);
  say({ status: answer.statusCode, body: Buffer.concat(got).toString('base64'), ...said });
}

async function fetched(order, say) {
  const { port, method, target, body } = order;
  const options = { method, headers: order.fields, redirect: 'manual' };
  if (Array.isArray(body)) Object.assign(options, { body: pieces(body), duplex: 'half' });
  else if (body !== null) options.body = Buffer.from(body, 'base64');
  const answer = await fetch(`http://${order.host}:${port}${target}`, options);
  const got = [];
  for await (const piece of answer.body ?? []) {
    got.push(Buffer.from(piece));
    if (order.stream) say({ piece: Buffer.from(piece).toString() });
  }
  const interim = [], trailers = [];
  say({ status: answer.status, body: Buffer.concat(got).toString('base64'), interim, trailers });
}

module.exports = { app, request, fetch: fetched };

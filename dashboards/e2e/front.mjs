// A page that is not compiled in yet: serves a folder of `vite build` and passes everything else on to the instance.
import { createReadStream, existsSync, statSync } from 'node:fs'
import { createServer, request } from 'node:http'
import { extname, join, normalize } from 'node:path'

const KINDS = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.woff2': 'font/woff2' }

/** Resolves with the URL of the page from `folder` in front of the instance that `url` opens. */
export async function inFront(url, folder) {
  const target = new URL(url)
  const ask = (incoming, done) =>
    request({ host: target.hostname, port: target.port, method: incoming.method, path: incoming.url, headers: incoming.headers }, done)
  const server = createServer((incoming, outgoing) => {
    const { pathname, search } = new URL(incoming.url, url)
    const file = join(folder, pathname === '/' && search === '' ? 'index.html' : normalize(pathname))
    if (existsSync(file) && statSync(file).isFile()) {
      outgoing.writeHead(200, { 'content-type': KINDS[extname(file)] ?? 'application/octet-stream' })
      createReadStream(file).pipe(outgoing)
      return
    }
    const passed = ask(incoming, (answer) => {
      outgoing.writeHead(answer.statusCode, answer.headers)
      answer.pipe(outgoing)
    })
    passed.on('error', () => outgoing.destroy())
    outgoing.on('close', () => passed.destroy())
    incoming.pipe(passed)
  })
  server.on('upgrade', (incoming, socket, head) => {
    const passed = ask(incoming)
    const drop = () => socket.destroy()
    passed.on('error', drop)
    passed.on('response', drop)
    passed.on('upgrade', (answer, upstream, rest) => {
      const lines = Object.entries(answer.headers).map(([name, value]) => `${name}: ${value}`)
      socket.write(`HTTP/1.1 101 Switching Protocols\r\n${lines.join('\r\n')}\r\n\r\n`)
      socket.write(rest)
      upstream.write(head)
      for (const end of [socket, upstream]) end.setNoDelay(true)
      socket.pipe(upstream).pipe(socket)
      socket.on('error', () => upstream.destroy())
      upstream.on('error', drop)
      upstream.on('close', drop)
      socket.on('close', () => upstream.destroy())
    })
    passed.end()
  })
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready))
  server.unref()
  const front = new URL(url)
  front.port = String(server.address().port)
  return front.href
}

// Starts the real binary for a test, reads its URL, and ends only what it started.
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { inFront } from './front.mjs'

const START_MS = 90_000
const STOP_MS = 10_000

export class Server {
  /** @param {string} binary the `orrery` binary */
  constructor(binary) {
    this.binary = binary
    this.data = mkdtempSync(join(tmpdir(), 'orrery-page-'))
    this.listen = '127.0.0.1:0'
    this.log = ''
  }

  /** Starts, or starts again on the same data and port; resolves with the URL that signs in. */
  async start() {
    const args = ['up', '--demo', '--data', this.data, '--listen', this.listen, '--seed', '1']
    const child = spawn(this.binary, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    this.child = child
    this.exited = new Promise((resolve) => child.once('exit', resolve))
    child.stderr.on('data', (bytes) => (this.log = (this.log + bytes).slice(-20_000)))
    const url = await new Promise((resolve, reject) => {
      let out = ''
      const timer = setTimeout(() => reject(new Error(`${this.binary} printed no URL within ${START_MS / 1000} s\n${this.log}`)), START_MS)
      child.stdout.on('data', (bytes) => {
        out += bytes
        const found = out.match(/https?:\/\/\S+token=\S+/)
        if (!found) return
        clearTimeout(timer)
        resolve(found[0])
      })
      child.once('error', reject)
      child.once('exit', (code) => reject(new Error(`${this.binary} ended with ${code} before it printed a URL\n${this.log}`)))
    })
    this.listen = new URL(url).host
    return url
  }

  async kill() {
    this.child.kill('SIGKILL')
    await this.exited
  }

  async stop() {
    if (this.child && this.child.exitCode === null && this.child.signalCode === null) {
      this.child.kill('SIGTERM')
      const late = setTimeout(() => this.child.kill('SIGKILL'), STOP_MS)
      await this.exited
      clearTimeout(late)
    }
    rmSync(this.data, { recursive: true, force: true })
  }
}

/** The running instance of ORRERY_URL, or one started from ORRERY_BIN; with ORRERY_DIST its page comes from that folder. */
export async function connect() {
  const { ORRERY_URL, ORRERY_BIN, ORRERY_DIST } = process.env
  const page = (url) => (ORRERY_DIST ? inFront(url, resolve(ORRERY_DIST)) : url)
  if (ORRERY_URL) return { url: await page(ORRERY_URL), server: null }
  if (!ORRERY_BIN) throw new Error('Set ORRERY_BIN to the orrery binary, or ORRERY_URL to the URL that a running orrery up printed.')
  const server = new Server(ORRERY_BIN)
  return { url: await page(await server.start()), server }
}

/**
 * The one live stream of the page: a WebSocket, or server-sent events where a WebSocket does not get through.
 * It reconnects with growing waits, resumes at the last cursor, and says "lost" after two seconds without a frame.
 */
import { backoffMs } from '../lib/backoff'
import { post } from './http'
import type { LiveMessage } from './types'

export type LinkState = 'connecting' | 'open' | 'lost'

export interface LinkStatus {
  state: LinkState
  transport: 'websocket' | 'events'
  /** Page clock, ms, of the last frame or null before the first. */
  lastFrame: number | null
  /** Page clock, ms, of the next attempt while none is under way. */
  retryAt: number | null
}

export interface Handlers {
  message(message: LiveMessage): void
  status(status: LinkStatus): void
  /** One offset probe: sent and received on the page clock, `server` on the server's. */
  probe(sent: number, server: number, received: number): void
}

/** `readyState` of a WebSocket and of an EventSource that is open. */
const OPEN = 1
const SILENCE_MS = 2000
const PING_MS = 2000
/** A WebSocket that fails this often before it ever opened is taken to be blocked on the way. */
const TRIES_BEFORE_FALLBACK = 2

/** The page clock: monotonic, in UNIX ms. */
export function pageClock(): number {
  return performance.timeOrigin + performance.now()
}

export class Live {
  private socket: WebSocket | null = null
  private events: EventSource | null = null
  private streams: string[] = []
  private cursor: string | null = null
  private attempt = 0
  private everOpened = false
  private failedSockets = 0
  private retryTimer = 0
  private timers: number[] = []
  private watchedAt = 0
  private taiOffset: number | null = null
  private current: LinkStatus = { state: 'connecting', transport: 'websocket', lastFrame: null, retryAt: null }

  constructor(private readonly handlers: Handlers) {}

  start(): void {
    this.timers = [window.setInterval(() => this.watch(), 250), window.setInterval(() => this.ping(), PING_MS)]
    this.open()
  }

  stop(): void {
    for (const timer of this.timers) clearInterval(timer)
    clearTimeout(this.retryTimer)
    this.close()
  }

  subscribe(streams: string[]): void {
    if (streams.join() === this.streams.join()) return
    this.streams = streams
    if (this.events) this.openEvents()
    else this.sendSubscription(null)
  }

  retryNow(): void {
    clearTimeout(this.retryTimer)
    this.close()
    this.open()
  }

  private open(): void {
    this.publish({ retryAt: null })
    if (this.current.transport === 'events') this.openEvents()
    else this.openSocket()
  }

  private openSocket(): void {
    let socket: WebSocket
    try {
      socket = new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/api/v1/live`)
    } catch {
      // No WebSocket here at all.
      this.publish({ transport: 'events' })
      return this.openEvents()
    }
    this.socket = socket
    let opened = false
    socket.onopen = () => {
      opened = true
      this.everOpened = true
      this.sendSubscription(this.cursor)
      for (let i = 0; i < 5; i++) window.setTimeout(() => this.ping(), 60 * i)
    }
    socket.onmessage = (event) => this.receive(event.data as string)
    socket.onclose = () => {
      if (this.socket !== socket) return
      if (!opened && !this.everOpened && ++this.failedSockets >= TRIES_BEFORE_FALLBACK) {
        this.publish({ transport: 'events' })
      }
      this.retry()
    }
  }

  private openEvents(): void {
    this.events?.close()
    const query = new URLSearchParams({ streams: this.streams.join(',') })
    if (this.cursor) query.set('cursor', this.cursor)
    const events = new EventSource(`/api/v1/live/events?${query}`)
    this.events = events
    events.onopen = () => this.ping()
    events.onmessage = (event) => this.receive(event.data as string)
    events.onerror = () => {
      if (this.events === events) this.retry()
    }
  }

  private sendSubscription(cursor: string | null): void {
    if (this.socket?.readyState !== OPEN || this.streams.length === 0) return
    this.socket.send(JSON.stringify({ type: 'subscribe', streams: this.streams, cursor }))
  }

  private receive(text: string): void {
    const receivedAt = pageClock()
    let message: LiveMessage
    try {
      message = JSON.parse(text) as LiveMessage
    } catch {
      return
    }
    this.attempt = 0
    // Every frame moves the watch; only a change of state is news.
    if (this.current.state === 'open' && this.current.retryAt === null) this.current.lastFrame = receivedAt
    else this.publish({ state: 'open', lastFrame: receivedAt, retryAt: null })
    if (message.type === 'pong') this.handlers.probe(message.t0_ms, message.t1_ms, receivedAt)
    else {
      if ('cursor' in message && message.cursor) this.cursor = message.cursor
      this.handlers.message(message)
    }
  }

  private ping(): void {
    if (this.socket?.readyState === OPEN) {
      this.socket.send(JSON.stringify({ type: 'ping', t0_ms: pageClock() }))
    } else if (this.events?.readyState === OPEN) {
      void this.probeOverHttp()
    }
  }

  /** Events run one way, so the clock is probed by request. It answers in TAI, a whole number of seconds from UTC. */
  private async probeOverHttp(): Promise<void> {
    const sent = pageClock()
    try {
      const answer = await post<{ t1: string; t2: string }>('/clock/probe', { t0: String(Math.round(sent * 1e6)) })
      const received = pageClock()
      const tai = (Number(answer.t1) + Number(answer.t2)) / 2e6
      this.taiOffset ??= Math.round((tai - (sent + received) / 2) / 1000) * 1000
      this.handlers.probe(sent, tai - this.taiOffset, received)
    } catch {
      // The watch decides whether the link is lost; one failed probe only means no new estimate.
    }
  }

  private watch(): void {
    const { state, lastFrame } = this.current
    const late = pageClock() - this.watchedAt > 1000
    this.watchedAt = pageClock()
    // A page that was itself held up has frames waiting: read those before judging the link.
    if (late) return
    if (state === 'open' && lastFrame !== null && pageClock() - lastFrame > SILENCE_MS) {
      if (this.socket || this.events) this.retry()
      this.publish({ state: 'lost' })
    } else if (state === 'lost') this.publish({})
  }

  /** A socket that closed is not yet a lost link: two seconds without a frame are. */
  private retry(): void {
    this.close()
    const { lastFrame } = this.current
    const silent = lastFrame !== null && pageClock() - lastFrame >= SILENCE_MS
    const state = silent || (lastFrame === null && this.attempt >= TRIES_BEFORE_FALLBACK) ? 'lost' : this.current.state
    const wait = backoffMs(this.attempt++, Math.random())
    this.publish({ state, retryAt: pageClock() + wait })
    clearTimeout(this.retryTimer)
    this.retryTimer = window.setTimeout(() => this.open(), wait)
  }

  private close(): void {
    const { socket, events } = this
    this.socket = null
    this.events = null
    socket?.close()
    events?.close()
  }

  private publish(change: Partial<LinkStatus>): void {
    this.current = { ...this.current, ...change }
    this.handlers.status(this.current)
  }
}

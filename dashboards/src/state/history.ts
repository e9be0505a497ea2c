/** The points behind every plot: windows fetched from the store, live samples on top. Not reactive: plots read it per frame. */
import { get } from '../api/http'
import type { Samples, Stream, Window, WindowGap } from '../api/types'
import { Coverage } from '../lib/coverage'
import { splitId } from '../lib/rows'
import { Series } from '../lib/series'

const MAX_REQUESTS = 4
/** The same window is not asked for again sooner than this: it may simply hold no data. */
const RETRY_MS = 1500
/** Not sooner than this while the operator drags through time. */
const AGAIN_MS = 100
/** Later than this the store holds what was measured. */
const SETTLE_MS = 4000
const BORDER_MS = 0.001

interface Asked {
  key: string
  at: number
  answered: boolean
}

export class StreamData {
  readonly coverage = new Coverage()
  readonly series = new Map<string, Series>()
  gaps: WindowGap[] = []
  revision: string | null = null
  /** Standard uncertainty of the newest sample's time, ms. */
  uncertaintyMs = 0
  version = 0
  /** Counts what changed the past; a sample that only came after all others is not among it. */
  edits = 0
  /** Whether the present connection has delivered samples, and from when on. */
  live = false
  liveSince = -Infinity
  /** What was asked for last, by priority: the hour's overview must not make the plots ask again. */
  readonly asked = new Map<number, Asked>()

  channel(name: string): Series {
    let series = this.series.get(name)
    if (!series) this.series.set(name, (series = new Series()))
    return series
  }

  get lastTime(): number | null {
    let last: number | null = null
    for (const series of this.series.values()) {
      const time = series.lastTime
      if (time !== null && (last === null || time > last)) last = time
    }
    return last
  }
}

function within(points: { t: number[]; v: (number | null)[] }, from: number, to: number): [number[], (number | null)[]] {
  let start = points.t.findIndex((time) => time >= from)
  if (start < 0) start = points.t.length
  const end = points.t.findLastIndex((time) => time <= to) + 1
  return [points.t.slice(start, end), points.v.slice(start, end).map(asNumber)]
}

/** What a plot can draw of a value: booleans as 0 and 1, text as absent. */
function asNumber(value: unknown): number | null {
  return typeof value === 'number' ? value : typeof value === 'boolean' ? Number(value) : null
}

interface Request {
  stream: string
  from: number
  to: number
  columns: number
  priority: number
  asked: Asked
}

export class History {
  private readonly streams = new Map<string, StreamData>()
  private queue: Request[] = []
  private running = 0
  /** The last error of a stream's window, for its own row. */
  readonly errors = new Map<string, string>()

  constructor(private readonly changed: () => void) {}

  stream(name: string): StreamData {
    let data = this.streams.get(name)
    if (!data) this.streams.set(name, (data = new StreamData()))
    return data
  }

  channel(id: string): Series {
    const { stream, channel } = splitId(id)
    return this.stream(stream).channel(channel)
  }

  get loading(): boolean {
    return this.running > 0
  }

  /** Appends live samples and returns the times that are newer than all before. */
  ingest(message: Samples): number[] {
    const data = this.stream(message.stream)
    const before = data.lastTime ?? -Infinity
    for (const [name, values] of Object.entries(message.channels)) data.channel(name).append(message.t, values.map(asNumber))
    data.version++
    if ((message.t[0] ?? Infinity) <= before) data.edits++
    data.uncertaintyMs = message.u_ms.at(-1) ?? data.uncertaintyMs
    data.revision = String(message.revision)
    const first = message.t[0]
    const last = message.t.at(-1)
    if (first !== undefined && last !== undefined && last > before) {
      // Between two blocks of one connection nothing is missing; before its first block something may be.
      if (!data.live) data.liveSince = first
      data.coverage.extend(data.live ? Math.min(first, before) : first, last)
      data.live = true
    }
    return message.t.filter((time) => time > before)
  }

  invalidate(stream: string, from: number, to: number): void {
    const data = this.stream(stream)
    data.coverage.forget(from, to)
    data.asked.clear()
  }

  /** The connection ended: what comes next need not join what came before. */
  disconnected(): void {
    for (const data of this.streams.values()) data.live = false
  }

  forgetAll(streams: Stream[], from: number, to: number): void {
    for (const { stream } of streams) this.invalidate(stream, from, to)
  }

  /** Makes sure that [from, to] is here at one point group per column; coarser data stays visible meanwhile. */
  ensure(names: string[], from: number, to: number, columns: number, now: number, priority: number): void {
    for (const stream of names) {
      const data = this.stream(stream)
      const resolution = ((to - from) / columns) * 1.05
      // The newest seconds come over the live stream; asking for them would race it.
      const settled = Math.max(now - SETTLE_MS, data.liveSince)
      const end = Math.min(to, settled)
      const missing = data.coverage.missing(from, end, resolution)
      const [first] = missing
      const final = missing.at(-1)
      if (!first || !final) continue
      // A window that moves with the clock is one question, however often a frame asks it.
      const key = `${Math.round((now - to) / 1000)}:${Math.round((to - from) / 1000)}:${columns}`
      const last = data.asked.get(priority)
      const repeated = last?.key === key
      if (last && ((repeated && !last.answered) || now - last.at < (repeated ? RETRY_MS : AGAIN_MS))) continue
      const asked = { key, at: now, answered: false }
      data.asked.set(priority, asked)
      this.queue = this.queue.filter((request) => request.stream !== stream || request.priority !== priority)
      // Only what is not here, as finely as all of it was wanted.
      const until = final.to === end ? to : final.to
      const share = Math.max(1, Math.ceil((columns * (until - first.from)) / (to - from)))
      this.queue.push({ stream, from: first.from, to: until, columns: share, priority, asked })
    }
    this.pump()
  }

  private pump(): void {
    this.queue.sort((a, b) => b.priority - a.priority)
    while (this.running < MAX_REQUESTS) {
      const request = this.queue.shift()
      if (!request) return
      this.running++
      void this.fetch(request).finally(() => {
        this.running--
        request.asked.answered = true
        this.changed()
        this.pump()
      })
    }
  }

  private async fetch(request: Request): Promise<void> {
    const { stream, from, to, columns } = request
    const data = this.stream(stream)
    const path = `/streams/${stream.split('/').map(encodeURIComponent).join('/')}/window`
    try {
      const window = await get<Window>(path, { from_ms: from, to_ms: to, columns })
      this.errors.delete(stream)
      this.apply(data, window, request)
    } catch (error) {
      this.errors.set(stream, error instanceof Error ? error.message : String(error))
    }
  }

  private apply(data: StreamData, window: Window, { from, to, columns, asked }: Request): void {
    let last = -Infinity
    for (const points of Object.values(window.channels)) last = Math.max(last, points.t.at(-1) ?? -Infinity)
    // Live samples may already be newer than what the store answered with: keep those.
    const end = (data.lastTime ?? -Infinity) > last ? Math.min(to, Math.max(last, from)) : to
    const resolution = window.bucketed ? (to - from) / columns : 0
    // An answer does not say that the seconds just before it hold nothing: they may have been on their way.
    const covered = Math.max(Math.min(to, asked.at - SETTLE_MS), Math.min(to, Math.max(last, from)))
    // A coarse window never takes the place of finer points that are here already.
    for (const part of data.coverage.missing(from, covered, resolution)) {
      // A point on the border to a finer part belongs to that part.
      const first = data.coverage.covers(part.from - BORDER_MS, part.from, resolution) ? part.from + BORDER_MS : part.from
      const final = Math.min(data.coverage.covers(part.to, part.to + BORDER_MS, resolution) ? part.to - BORDER_MS : part.to, end)
      for (const [name, points] of Object.entries(window.channels)) {
        const [t, v] = within(points, first, final)
        data.channel(name).replace(first, final, t, v)
      }
      data.coverage.add(part.from, part.to, resolution)
    }
    const outside = data.gaps.filter((gap) => gap.to_ms < from || gap.from_ms > to)
    data.gaps = [...outside, ...window.gaps].sort((a, b) => a.from_ms - b.from_ms)
    data.revision = String(window.revision)
    data.version++
    data.edits++
  }
}

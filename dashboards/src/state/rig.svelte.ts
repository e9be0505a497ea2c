/** The page's one store: what the rig said last, which instant is shown, and the loop that paints one instant per frame. */
import { ApiError, get } from '../api/http'
import { Live, type LinkStatus, pageClock } from '../api/live'
import type { Control, Device, Forecast, Graph, LiveMessage, Provenance, Samples, Stream } from '../api/types'
import { ClockProbe, type LatencySummary, LatencyWindow } from '../lib/latency'
import { arrange, isInternal, type Row, splitId, Z95 } from '../lib/rows'
import { clock, HOUR, MINUTE, parseTime, SECOND } from '../lib/time'
import * as views from '../lib/view'
import type { Moment } from './events'
import { History } from './history'
import { outage, type Outage } from './outage'

export const TIMELINE_MS = HOUR
const OVERVIEW_COLUMNS = 600
const HORIZON_MS = 90 * SECOND
/** At a kilohertz the newest seconds of the minute are enough. */
const MOST_LATENCIES = 6000

interface Painted {
  times: number[]
  uncertainty: number
}

class Rig {
  streams = $state.raw<Stream[]>([])
  devices = $state.raw<Device[]>([])
  graphs = $state.raw<Graph[]>([])
  control = $state.raw<Control | null>(null)
  provenance = $state.raw<Provenance | null>(null)
  /** The newest forecast of each graph, and its answer to what is staged. */
  forecasts = $state.raw<Record<string, Forecast>>({})
  whatIfs = $state.raw<Record<string, Forecast>>({})
  link = $state.raw<LinkStatus>({ state: 'connecting', transport: 'websocket', lastFrame: null, retryAt: null })
  view = $state.raw<views.View>(views.live(10 * MINUTE))
  /** Server time of the frame on screen. */
  now = $state(pageClock())
  /** Counts frames: readouts depend on it and so change with the plots. */
  frame = $state(0)
  cursor = $state<number | null>(null)
  /** The right end of the timeline's hour; moves with now, or with a playhead outside it. */
  timelineEnd = $state(pageClock())
  glass = $state.raw<LatencySummary | null>(null)
  seekTime = $state.raw<LatencySummary | null>(null)
  clockUncertainty = $state<number | null>(null)
  notice = $state.raw<Outage | null>(null)
  error = $state<string | null>(null)
  loaded = $state(false)
  /** What is being fetched, once that takes long enough to say so. */
  loadingNote = $state<string | null>(null)
  samplesSince = $state(0)
  digest = $state.raw<{ text: string; revision: string | null; agrees: boolean | null } | null>(null)
  phone = $state(false)
  dragging = $state(false)

  late: Moment[] = []

  readonly history = new History(() => this.invalidate())
  private pausedForecasts = $state.raw<Record<string, Forecast>>({})
  private readonly probe = new ClockProbe()
  private readonly latency = new LatencyWindow(MINUTE, MOST_LATENCIES)
  private readonly seeks = new LatencyWindow(Infinity, 100)
  private painters = new Set<() => void>()
  private pending: Painted[] = []
  private seekStarted: number | null = null
  private scheduled = false
  private lastPaint = 0
  private connectedAt = Infinity
  private lostAt: number | null = null
  private offset = 0
  private loadedAt = 0
  private loadingSince: number | null = null
  private readonly afterPaint = new MessageChannel()
  private readonly live = new Live({
    message: (message) => this.receive(message),
    status: (status) => this.linkChanged(status),
    probe: (sent, server, received) => this.probed(sent, server, received),
  })

  /** Of control, what rows are made of: readings change each second, rows do not. */
  private readonly limits = $derived(
    JSON.stringify({
      channels: this.control?.channels.map((channel) => ({ ...channel, value: null, age_s: null })) ?? [],
      interlocks: this.control?.interlocks.map(({ id, text, channels, limit }) => ({ id, text, ok: true, channels, limit })) ?? [],
      lease: null,
    }),
  )
  rows: Row[] = $derived(arrange(this.streams, this.graphs, JSON.parse(this.limits) as Control))
  /** Devices in the order of their rows, so that both read alike. */
  ordered: Device[] = $derived.by(() => {
    const places = new Map<string, number>()
    for (const row of this.rows) {
      const refs = row.kind === 'pair' ? [row.measured] : row.kind === 'signal' ? [row.channel] : row.channels
      for (const { stream } of refs) if (!places.has(stream.split('/')[0] ?? '')) places.set(stream.split('/')[0] ?? '', places.size)
    }
    const place = (device: Device) => places.get(device.device_id) ?? Infinity
    return [...this.devices].sort((a, b) => place(a) - place(b) || a.device_id.localeCompare(b.device_id))
  })
  /** The forecasts of the instant shown: the newest while live, those of the pause while paused, none in the past. */
  shownForecasts = $derived(this.view.mode === 'live' ? this.forecasts : this.view.mode === 'paused' ? this.pausedForecasts : {})
  playhead = $derived(views.playhead(this.view, this.now))
  aheadMs = $derived(
    this.graphs.length > 0 || this.view.mode === 'replay'
      ? views.aheadMs(this.view.windowMs, this.phone ? 60 * SECOND : HORIZON_MS, this.phone ? 0.2 : 0.15)
      : 0,
  )
  /** Left and right end of every plot. */
  from = $derived(this.playhead - this.view.windowMs)
  to = $derived(this.playhead + this.aheadMs)
  readAt = $derived(this.cursor ?? this.playhead)
  oldest = $derived(Math.min(...this.streams.map((s) => parseTime(s.from) ?? Infinity), this.now - SECOND))
  twinStreams = $derived(new Set(this.graphs.flatMap((g) => g.pairs.map((p) => splitId(p.output).stream))))
  /** Commands make sense only for the rig as it is now and over a link that works. */
  locked: string | null = $derived(
    this.view.mode === 'replay'
      ? 'locked in replay'
      : this.link.state === 'lost'
        ? 'locked, link lost'
        : this.link.state === 'connecting'
          ? 'locked, connecting'
          : null,
  )

  serverNow(): number {
    return pageClock() + this.offset
  }

  start(): () => void {
    this.afterPaint.port1.onmessage = () => this.painted()
    this.live.start()
    void this.load()
    const beat = window.setInterval(() => this.beat(), 250)
    return () => {
      clearInterval(beat)
      this.live.stop()
    }
  }

  addPainter(paint: () => void): () => void {
    this.painters.add(paint)
    this.invalidate()
    return () => this.painters.delete(paint)
  }

  /** Asks for a frame. Everything on screen is repainted in it, for one instant. */
  invalidate(): void {
    if (this.scheduled) return
    this.scheduled = true
    requestAnimationFrame(() => this.paint())
  }

  retryNow(): void {
    this.live.retryNow()
  }

  // What the operator does with time.

  private setView(view: views.View): void {
    if (view.mode !== 'live' && this.view.mode === 'live') {
      this.samplesSince = 0
      this.pausedForecasts = this.forecasts
    }
    if (view.mode !== 'replay') this.digest = null
    this.view = view
    this.invalidate()
  }

  goLive(): void {
    this.setView(views.goLive(this.view))
  }

  toggle(): void {
    this.setView(views.toggle(this.view, this.now))
  }

  setSpeed(speed: number): void {
    this.setView({ ...this.view, speed, playing: true })
  }

  seek(at: number): void {
    this.seekStarted ??= pageClock()
    this.setView(views.seek(this.view, at, this.serverNow(), this.oldest))
  }

  zoom(factor: number, pivot: number | null = null): void {
    this.setView(views.zoom(this.view, factor, this.serverNow(), pivot))
  }

  stepWindow(direction: 1 | -1): void {
    this.setView(views.stepWindow(this.view, direction))
  }

  resetWindow(): void {
    this.setView({ ...this.view, windowMs: this.defaultWindow })
  }

  showWindow(from: number, to: number): void {
    this.seekStarted ??= pageClock()
    this.setView(views.showWindow(this.view, from, to, this.serverNow(), this.oldest))
  }

  get defaultWindow(): number {
    return (this.phone ? 5 : 10) * MINUTE
  }

  setPhone(phone: boolean): void {
    if (phone === this.phone) return
    const wasDefault = this.view.windowMs === this.defaultWindow
    this.phone = phone
    if (wasDefault) this.resetWindow()
  }

  // What the rig says.

  private async load(): Promise<void> {
    this.loadedAt = pageClock()
    try {
      const [streams, devices] = await Promise.all([get<{ streams: Stream[] }>('/streams'), get<{ devices: Device[] }>('/devices')])
      this.streams = streams.streams.filter((s) => !isInternal(s.stream)).map((s) => ({ ...s, channels: s.channels ?? [] }))
      this.devices = devices.devices
      // Without a twin or a way to command, the measurements still stand.
      const [graphs, control] = await Promise.allSettled([get<{ graphs: Graph[] }>('/graphs'), get<Control>('/control')])
      if (graphs.status === 'fulfilled') this.graphs = graphs.value.graphs
      if (control.status === 'fulfilled') this.control = control.value
      this.loaded = true
      this.error = null
      this.live.subscribe(this.streams.map((s) => s.stream))
    } catch (error) {
      this.error =
        error instanceof ApiError && error.status === 401
          ? 'Not signed in. Open the URL that orrery up printed.'
          : error instanceof Error
            ? error.message
            : String(error)
    }
    this.invalidate()
  }

  private receive(message: LiveMessage): void {
    switch (message.type) {
      case 'hello':
        this.history.disconnected()
        this.connectedAt = message.server_ms
        if (this.clockUncertainty === null) this.offset = message.server_ms - pageClock()
        if (this.lostAt !== null) this.backfill(this.lostAt)
        if (!this.loaded) void this.load()
        break
      case 'samples':
        this.sampled(message)
        break
      case 'devices':
        this.devices = message.devices
        this.noticeStreams(message.devices)
        break
      case 'forecast':
        this.forecasts = { ...this.forecasts, [message.graph]: message }
        break
      case 'control':
        this.control = message
        break
      case 'provenance':
        this.provenance = message
        break
      case 'invalidate':
        this.history.invalidate(message.stream, message.from_ms, message.to_ms)
        this.noteLate(message)
        break
      case 'gap':
        // This page was too slow for the stream: what it missed is in the store.
        for (const [stream, gap] of Object.entries(message.streams ?? {})) this.history.invalidate(stream, gap.from_ms, gap.to_ms)
        break
    }
    this.invalidate()
  }

  /** Late data fills its gap in place and leaves a mark; marks of one minute are one. */
  private noteLate({ stream, from_ms: at, revision }: { stream: string; from_ms: number; revision: string }): void {
    this.late = this.late.filter((moment) => moment.row !== stream || Math.abs(moment.at - at) > MINUTE)
    this.late.push({ at, kind: 'late', row: stream, text: `late, revision ${revision}`, value: 0 })
    if (this.late.length > 100) this.late.shift()
  }

  private sampled(message: Samples): void {
    const fresh = this.history.ingest(message)
    if (!this.streams.some((s) => s.stream === message.stream)) this.reload()
    if (this.view.mode !== 'live') this.samplesSince += message.t.length
    if (this.twinStreams.has(message.stream)) return
    // What was stamped before this connection is history being filled in, not the way from glass to glass.
    const times = fresh.filter((time) => time > this.connectedAt)
    // A hidden page paints nothing: what came meanwhile was not late, nobody looked.
    if (document.hidden) this.pending = []
    else if (times.length > 0 && this.view.mode === 'live') this.pending.push({ times, uncertainty: message.u_ms.at(-1) ?? 0 })
  }

  /** A device nobody has seen before brings streams: fetch their descriptors and subscribe. */
  private noticeStreams(devices: Device[]): void {
    const known = new Set(this.streams.map((s) => s.stream))
    if (devices.some((device) => device.streams.some((stream) => !known.has(stream) && !isInternal(stream)))) this.reload()
  }

  private reload(): void {
    if (pageClock() - this.loadedAt > SECOND) void this.load()
  }

  private backfill(since: number): void {
    this.history.forgetAll(this.streams, since - 5 * SECOND, this.serverNow())
    const { streams } = this
    this.lostAt = null
    window.setTimeout(() => {
      const measured = streams.filter((s) => !this.twinStreams.has(s.stream))
      this.notice = outage(this.history, measured, since - SECOND, this.serverNow())
      this.invalidate()
      window.setTimeout(() => (this.notice = null), 15 * SECOND)
    }, 3000)
    void this.load()
  }

  private linkChanged(status: LinkStatus): void {
    if (status.state === 'lost' && this.link.state === 'open') {
      this.lostAt = (status.lastFrame ?? pageClock()) + this.offset
      this.notice = null
      this.latency.clear()
    }
    this.link = status
    this.invalidate()
  }

  private probed(sent: number, server: number, received: number): void {
    this.probe.add(sent, server, received)
    const estimate = this.probe.estimate()
    if (!estimate) return
    this.offset = estimate.offset
    this.clockUncertainty = estimate.uncertainty
  }

  // One instant, one frame.

  private beat(): void {
    this.glass = this.latency.summary(this.serverNow())
    if (pageClock() - this.lastPaint > 200) this.invalidate()
    if (this.loaded && pageClock() - this.loadedAt > 30 * SECOND) void this.load()
    if (!this.loaded && this.error && pageClock() - this.loadedAt > 3 * SECOND) void this.load()
  }

  private paint(): void {
    this.scheduled = false
    const at = pageClock()
    const elapsed = Math.min(SECOND, at - this.lastPaint)
    this.lastPaint = at
    this.now = this.serverNow()
    const moved = views.advance(this.view, elapsed, this.now)
    if (moved !== this.view) this.setView(moved)
    this.moveTimeline()
    this.fetchVisible()
    this.noteLoading(at)
    for (const paint of this.painters) paint()
    this.frame++
    if (this.pending.length > 0 || this.seekStarted !== null) this.afterPaint.port2.postMessage(null)
    if (this.view.playing) this.invalidate()
  }

  private noteLoading(at: number): void {
    if (!this.history.loading) this.loadingSince = null
    else this.loadingSince ??= at
    const slow = this.loadingSince !== null && at - this.loadingSince > 400
    this.loadingNote = slow ? `Loading ${clock(this.from).slice(0, 5)} to ${clock(this.playhead).slice(0, 5)}` : null
  }

  /** Runs after the browser has painted the frame that showed the pending samples. */
  private painted(): void {
    const at = this.serverNow()
    for (const { times, uncertainty } of this.pending) {
      for (const time of times) this.latency.add(at, at - time, Math.hypot(uncertainty * Z95, this.clockUncertainty ?? 0))
    }
    this.pending = []
    if (this.seekStarted !== null) {
      this.seeks.add(at, pageClock() - this.seekStarted, 0)
      this.seekStarted = null
      this.seekTime = this.seeks.summary(at)
    }
  }

  private moveTimeline(): void {
    if (this.dragging) return
    const { playhead, now } = this
    const inside = playhead > now - TIMELINE_MS
    if (inside) this.timelineEnd = now
    else if (playhead > this.timelineEnd || playhead < this.timelineEnd - TIMELINE_MS) {
      this.timelineEnd = Math.min(now, playhead + TIMELINE_MS / 2)
    }
  }

  private fetchVisible(): void {
    if (!this.loaded || this.link.state === 'connecting') return
    const names = this.streams.map((s) => s.stream)
    const columns = Math.max(300, Math.round(window.innerWidth * 0.6))
    const end = Math.min(this.now, this.to)
    this.history.ensure(names, this.from - this.view.windowMs * 0.1, end, columns, this.now, 1)
    this.history.ensure(names, this.timelineEnd - TIMELINE_MS, Math.min(this.now, this.timelineEnd), OVERVIEW_COLUMNS, this.now, 0)
  }
}

export const rig = new Rig()

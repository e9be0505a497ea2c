/** Paints every plot of the stack for one instant, with shared scales for quantities of one unit. */
import { type CommandRow, type PairRow, type Row, type SignalRow, splitId } from '../lib/rows'
import { HeldScale, HeldSpan, type Range } from '../lib/scale'
import { moments, type Moment } from '../state/events'
import { staleAfter } from '../state/readout'
import { rig, TIMELINE_MS } from '../state/rig.svelte'
import * as pair from './pair'
import { Plot } from './plot'
import { themeVersion } from './theme'
import * as signal from './signal'

export const AXIS_WIDTH = 40

type Part = 'main' | 'residual'
const PARTS: Part[] = ['main', 'residual']

interface Slot {
  host: HTMLElement
  plot: Plot | null
  width: number
  height: number
}

class Stack {
  private slots = new Map<string, Slot>()
  private scales = new Map<string, HeldScale>()
  private spans = new Map<string, HeldSpan>()
  private stop: (() => void) | null = null
  private lastWindow = 0
  private eventsAt = 0
  private pairsEpoch = ''
  /** What was last painted whole. */
  private pairs = new Map<string, pair.PairPoints>()
  /** Moments of the whole timeline, refreshed once a second. */
  events: Moment[] = []

  /** A plot of `row` lives in `host` from now until the returned function is called. */
  attach(row: string, part: Part, host: HTMLElement): () => void {
    const key = `${row}#${part}`
    const slot: Slot = { host, plot: null, width: 0, height: 0 }
    this.slots.set(key, slot)
    const observer = new ResizeObserver(() => {
      slot.width = host.clientWidth
      // Up to the whole pixel: a canvas a fraction too short leaves a seam between two plots of one row.
      slot.height = Math.ceil(host.getBoundingClientRect().height)
      rig.invalidate()
    })
    observer.observe(host)
    this.stop ??= rig.addPainter(() => this.paint())
    return () => {
      observer.disconnect()
      slot.plot?.destroy()
      if (this.slots.get(key) === slot) this.slots.delete(key)
    }
  }

  private paint(): void {
    const width = this.plotWidth()
    if (width <= 0) return
    const instant = this.instant(width)
    this.refreshEvents()
    if (rig.view.windowMs !== this.lastWindow) {
      if (!rig.dragging) for (const scale of [...this.scales.values(), ...this.spans.values()]) scale.reset()
      this.lastWindow = rig.view.windowMs
    }
    instant.eventTimes = this.events
      .filter((e) => e.kind === 'step' && e.at > instant.from && e.at <= instant.playhead)
      .map((e) => e.at)
    this.paintPairs(instant)
    for (const row of rig.rows) {
      if (row.kind === 'signal') this.paintSignal(row, instant)
      else if (row.kind === 'commands') this.paintCommands(row, instant)
    }
  }

  private plotWidth(): number {
    for (const slot of this.slots.values()) if (slot.width > 0) return slot.width - AXIS_WIDTH
    return 0
  }

  private instant(columns: number): pair.Instant {
    const { from, to, playhead, view, cursor, aheadMs, shownForecasts, whatIfs } = rig
    // Whole pixels while live: a column then keeps its minimum and maximum as it moves left.
    const pixel = (view.windowMs + aheadMs) / columns
    const shift = view.mode === 'live' ? from - Math.floor(from / pixel) * pixel : 0
    return {
      from: from - shift,
      to: to - shift,
      playhead,
      replay: view.mode === 'replay',
      live: view.mode === 'live',
      cursor,
      aheadMs,
      columnMs: pixel,
      eventTimes: [],
      forecasts: shownForecasts,
      whatIfs: view.mode === 'live' ? whatIfs : {},
    }
  }

  private refreshEvents(): void {
    if (Math.abs(rig.now - this.eventsAt) < 1000) return
    this.eventsAt = rig.now
    const start = Math.min(rig.timelineEnd - TIMELINE_MS, rig.from)
    const late = rig.late.filter((moment) => moment.at >= start)
    this.events = [...moments(rig.history, rig.rows, start, rig.now), ...late].sort((a, b) => a.at - b.at)
  }

  private paintPairs(i: pair.Instant): void {
    const rows = rig.rows.filter((row): row is PairRow => row.kind === 'pair')
    const epoch = `${this.epoch(i)} ${i.live} ${rig.dragging} ${rows.map((row) => this.pairKey(row, i)).join()}`
    if (epoch !== this.pairsEpoch || !i.live || rows.some((row) => this.outgrown(row))) {
      this.pairsEpoch = epoch
      this.paintWholePairs(rows, i)
    }
    for (const row of rows) this.paintTips(row, i)
  }

  /** What of a pair is not a newest sample: a plot is painted again when this changes, or a whole pixel went by. */
  private pairKey(row: PairRow, i: pair.Instant): string {
    const { history } = rig
    const stale = pair.staleTail(history.channel(row.measured.id), i, staleAfter(row.measured))
    const sizes = PARTS.map((part) => this.slots.get(`${row.id}#${part}`)).map((slot) => `${slot?.width}x${slot?.height}`)
    return `${row.id} ${ahead(row, i)} ${history.stream(row.measured.stream).edits} ${history.stream(splitId(row.pair.output).stream).edits} ${second(stale)} ${sizes.join()}`
  }

  /** Whether the newest sample lies outside what its plot shows. */
  private outgrown(row: PairRow): boolean {
    const pairs = { main: row.measured.id, residual: row.pair.residual }
    return PARTS.some((part) => {
      const plot = this.slots.get(`${row.id}#${part}`)?.plot
      const series = rig.history.channel(pairs[part])
      const value = series.length > 0 ? series.value(series.length - 1) : NaN
      return plot != null && !Number.isNaN(value) && !plot.holds(value)
    })
  }

  private paintTips(row: PairRow, i: pair.Instant): void {
    const points = this.pairs.get(row.id)
    for (const part of PARTS) {
      const plot = this.slots.get(`${row.id}#${part}`)?.plot
      if (!plot) continue
      if (!i.live || !points || points.stale) {
        plot.clearTip()
        continue
      }
      const series = rig.history.channel(part === 'main' ? row.measured.id : row.pair.residual)
      const drawn = part === 'main' ? points.measured : points.residual
      const breaks = { periodMs: row.measured.periodMs, coverage: points.data.coverage, columnMs: i.columnMs }
      plot.paintTip(`${series.length} ${series.lastTime}`, i.playhead, (s) => pair.drawTip(s, series, drawn, breaks, i, part === 'main'))
    }
  }

  private paintWholePairs(rows: PairRow[], i: pair.Instant): void {
    const all = rows.map((row) => {
      const points = pair.pairPoints(rig.history, row, i)
      this.pairs.set(row.id, points)
      return { row, points, need: need(row, points, i) }
    })
    let residualNeed = 0
    for (const { points } of all) residualNeed = Math.max(residualNeed, residualExtent(points))
    const residualHeld = this.span('residuals').update(residualNeed, rig.now)
    all.forEach(({ row, points, need: [low, high] }, k) => {
      const alike = all.filter((other) => other.row.unit === row.unit).map((o) => o.need[1] - o.need[0])
      const span = this.span(`pairs ${row.unit}`).update(Math.max(...alike), rig.now)
      const frozen = rig.dragging
      const key = `${this.epoch(i)} ${ahead(row, i)} ${i.live} ${points.data.version} ${points.twinData.version} ${second(points.stale)}`
      const main = this.slot(row, 'main')
      if (main) {
        const range = this.scale(`${row.id}#main`).update(low, high, span, main.height, rig.now, frozen)
        main.plot?.paint(key, i.from, i.to, range, (s) => pair.drawUnder(s, points, i), (s) => pair.drawPair(s, row, points, i, k === 0))
      }
      const strip = this.slot(row, 'residual')
      if (strip) {
        const range = this.scale(`${row.id}#residual`).update(-residualHeld, residualHeld, 2 * residualHeld, strip.height, rig.now, frozen, 15)
        strip.plot?.paint(key, i.from, i.to, range, (s) => pair.drawUnder(s, points, i), (s) => pair.drawResidual(s, row, points, i))
      }
    })
  }

  private paintSignal(row: SignalRow, i: pair.Instant): void {
    const slot = this.slot(row, 'main')
    if (!slot) return
    const points = signal.signalPoints(rig.history, row.channel, i)
    const [low, high] = signalExtent(points, row)
    const span = this.span(row.id).update(high - low, rig.now)
    const range = this.scale(row.id).update(low, high, span, slot.height, rig.now, rig.dragging, 13)
    const key = `${this.epoch(i)} ${points.data.version} ${second(points.stale)}`
    slot.plot?.paint(key, i.from, i.to, range, (s) => signal.drawSignalUnder(s, points, i), (s) => signal.drawSignal(s, row, points, i))
  }

  private paintCommands(row: CommandRow, i: pair.Instant): void {
    const slot = this.slot(row, 'main')
    const all = row.channels.map((ref) => signal.signalPoints(rig.history, ref, i))
    const [first] = all
    if (!slot || !first) return
    const key = `${this.epoch(i)} ${all.map((p) => `${p.data.edits} ${p.points.v.at(-1)}`).join()} ${second(first.stale)}`
    slot.plot?.paint(key, i.from, i.to, commandRange(row), (s) => signal.drawSignalUnder(s, first, i), (s) => signal.drawCommands(s, row, all, i, this.events))
  }

  /** What every plot depends on besides its data: a row whose key stands still is not painted again. */
  private epoch(i: pair.Instant): string {
    const pixel = i.columnMs
    return `${Math.round(i.playhead / pixel)} ${i.replay} ${i.cursor} ${i.eventTimes.length} ${this.events.at(-1)?.at} ${themeVersion()}`
  }

  private slot(row: Row, part: Part): Slot | null {
    const slot = this.slots.get(`${row.id}#${part}`)
    if (!slot || slot.width <= AXIS_WIDTH || slot.height < 10) return null
    slot.plot ??= new Plot(slot.host, slot.width, slot.height, AXIS_WIDTH)
    slot.plot.resize(slot.width, slot.height)
    return slot
  }

  private span(key: string): HeldSpan {
    let span = this.spans.get(key)
    if (!span) this.spans.set(key, (span = new HeldSpan()))
    return span
  }

  private scale(key: string): HeldScale {
    let scale = this.scales.get(key)
    if (!scale) this.scales.set(key, (scale = new HeldScale()))
    return scale
  }
}

/** Which forecast and which what-if a row shows. */
function ahead({ graph }: PairRow, i: pair.Instant): string {
  return `${i.forecasts[graph]?.from_ms} ${i.whatIfs[graph]?.from_ms}`
}

function second(stale: { from: number; to: number } | null): number {
  return stale ? Math.floor((stale.to - stale.from) / 1000) : -1
}

/** What the main plot must hold: data with air around it, and the limit where it is near enough to matter. */
function need(row: PairRow, points: pair.PairPoints, i: pair.Instant): [number, number] {
  const [low, high] = pair.extent(points, row, i) ?? [0, 1]
  const least = 25 * (row.measured.half ?? 0.04)
  const middle = (low + high) / 2
  const half = Math.max(high - low, least) / 2
  const air = half * 0.2
  const near = (distance: number) => distance >= 0 && distance <= Math.max(high - low, least) * 0.8
  const { min, max } = row.limit
  const top = max !== null && near(max - high) ? max + air : -Infinity
  const bottom = min !== null && near(low - min) ? min - air : Infinity
  return [Math.min(bottom, middle - half - air), Math.max(top, middle + half + air)]
}

function residualExtent(points: pair.PairPoints): number {
  let most = 0.5
  for (const value of points.residual.v) most = Math.max(most, Math.abs(value) || 0)
  for (const half of points.residualHalf.half) most = Math.max(most, half || 0)
  return most * 1.2
}

function signalExtent(p: signal.SignalPoints, row: SignalRow): [number, number] {
  let low = Infinity
  let high = -Infinity
  for (const value of [...p.points.v, ...p.later.v]) {
    if (value < low) low = value
    if (value > high) high = value
  }
  if (low > high) return [0, 1]
  const least = 4 * (row.channel.half ?? row.channel.channel.resolution ?? Math.max(1e-6, Math.abs(high) * 0.002))
  const half = Math.max(high - low, least) / 2
  const middle = (low + high) / 2
  return [middle - half * 1.25, middle + half * 1.25]
}

function commandRange(row: CommandRow): Range {
  const top = row.unit === '%' ? 100 : (row.limit ?? 1) * 1.25
  const air = (top - row.low) * 0.14
  return { min: row.low - air, max: top + air, step: (top - row.low) / 2 }
}

export const stack = new Stack()

/** The event before or after `at`, for the transport's skip buttons. */
export function neighbour(at: number, direction: 1 | -1): number | null {
  const times = stack.events.map((event) => event.at)
  const found = direction > 0 ? times.find((t) => t > at + 500) : times.findLast((t) => t < at - 500)
  return found ?? null
}

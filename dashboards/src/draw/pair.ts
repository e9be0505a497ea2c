/** A measured quantity with its twin, and the residual strip that belongs to it. */
import type { Forecast } from '../api/types'
import { holes, type Hole } from '../lib/coverage'
import { type Label, RANK } from '../lib/labels'
import { levels, type PairRow, splitId, Z95 } from '../lib/rows'
import type { Series } from '../lib/series'
import { clock, duration } from '../lib/time'
import type { History, StreamData } from '../state/history'
import { staleAfter } from '../state/readout'
import * as marks from './marks'
import type { Points } from './marks'
import type { Surface } from './plot'

export interface Instant {
  from: number
  to: number
  playhead: number
  replay: boolean
  live: boolean
  cursor: number | null
  aheadMs: number
  /** How much time one pixel column is; the same number as long as window and width are. */
  columnMs: number
  eventTimes: number[]
  /** By graph. */
  forecasts: Record<string, Forecast>
  whatIfs: Record<string, Forecast>
}

export interface PairPoints {
  measured: Points
  later: Points
  twin: Points
  half: number[]
  residual: Points
  residualHalf: { t: number[]; half: number[] }
  gaps: Hole[]
  stale: Hole | null
  data: StreamData
  twinData: StreamData
}

/** The points of a pair at an instant; computed once for both of its plots and their scales. */
export function pairPoints(history: History, row: PairRow, i: Instant): PairPoints {
  const data = history.stream(row.measured.stream)
  const twinData = history.stream(splitId(row.pair.output).stream)
  const series = history.channel(row.measured.id)
  const width = i.columnMs
  const end = i.replay ? i.to : i.playhead
  const all = series.moving(i.from, end, width)
  const [measured, later] = split(all, i.playhead)
  const twin = history.channel(row.pair.output).moving(i.from, end, width)
  const sd = history.channel(row.pair.sd)
  const residual = history.channel(row.pair.residual).moving(i.from, i.playhead, width)
  const half = halfAt(sd, twin.t)
  const known = holes(all.t, row.measured.periodMs, data.coverage, width, all.v)
  return {
    measured,
    later,
    twin,
    half,
    residual: split(residual, i.playhead)[0],
    residualHalf: { t: twin.t, half },
    gaps: known,
    stale: staleTail(series, i, staleAfter(row.measured)),
    data,
    twinData,
  }
}

export function staleTail(series: Series, i: Instant, after: number): Hole | null {
  if (i.replay) return null
  const last = series.lastTime
  return last !== null && i.playhead - last > after ? { from: last, to: i.playhead } : null
}

function halfAt(sd: Series, times: readonly number[]): number[] {
  let index = sd.indexAt(times[0] ?? 0)
  return times.map((time) => {
    while (index + 1 < sd.length && sd.time(index + 1) <= time) index++
    return index < 0 ? NaN : sd.value(index) * Z95
  })
}

export function split(points: Points, at: number): [Points, Points] {
  let index = points.t.findIndex((time) => time > at)
  if (index < 0) index = points.t.length
  const before = { t: points.t.slice(0, index), v: points.v.slice(0, index) }
  const start = Math.max(0, index - 1)
  return [before, { t: points.t.slice(start), v: points.v.slice(start) }]
}

/** Smallest and largest thing drawn, for the scale. */
export function extent(points: PairPoints, row: PairRow, i: Instant): [number, number] | null {
  let low = Infinity
  let high = -Infinity
  const take = (values: readonly number[], half?: readonly number[]) =>
    values.forEach((value, k) => {
      const h = half ? (half[k] ?? 0) || 0 : 0
      if (value - h < low) low = value - h
      if (value + h > high) high = value + h
    })
  take(points.measured.v)
  take(points.later.v)
  take(points.twin.v, points.half)
  for (const curve of [i.replay ? null : i.forecasts[row.graph]?.channels[row.output], i.whatIfs[row.graph]?.channels[row.output]]) {
    if (curve && i.aheadMs > 0) take(curve.v.filter((_, k) => (curve.t[k] as number) <= i.to))
  }
  return low <= high ? [low, high] : null
}

export function drawUnder(s: Surface, points: PairPoints, i: Instant): void {
  if (i.aheadMs > 0) marks.ahead(s, i.playhead)
  marks.eventLines(s, i.eventTimes)
  for (const gap of points.gaps) marks.hatch(s, gap.from, gap.to)
  if (points.stale) marks.hatch(s, points.stale.from, points.stale.to)
}

export function drawPair(s: Surface, row: PairRow, points: PairPoints, i: Instant, labelled: boolean): void {
  const twinBreaks = { periodMs: row.measured.periodMs, coverage: points.twinData.coverage, columnMs: i.columnMs }
  const breaks = { periodMs: row.measured.periodMs, coverage: points.data.coverage, columnMs: i.columnMs }
  marks.band(s, points.twin.t, points.twin.v, points.half, twinBreaks)
  const future = i.replay ? null : futureOf(points, i.forecasts[row.graph]?.channels[row.output], i)
  if (future) marks.band(s, future.t, future.v, future.half, null)
  for (const level of levels(row.limit)) marks.limitLine(s, level)

  const [past, recorded] = split(points.twin, i.playhead)
  marks.line(s, past, twinBreaks, { colour: s.colours.twin, width: 2.25 })
  marks.line(s, future ?? recorded, null, { colour: s.colours.twin, width: 1.75, dash: [5, 3] })
  const whatIf = i.replay ? null : futureOf(points, i.whatIfs[row.graph]?.channels[row.output], i)
  if (whatIf) marks.line(s, whatIf, null, { colour: s.colours.twin, width: 2, dash: [1.5, 3] })

  if (i.replay) marks.line(s, points.later, breaks, { colour: s.colours.ink3, width: 1 })
  marks.line(s, points.measured, breaks, { colour: s.colours.ink, width: 1.25 })
  const last = points.measured.t.length - 1
  if (!i.live && last >= 0 && !points.stale) marks.dot(s, i.playhead, points.measured.v[last] as number)
  cursorBar(s, points, i)

  const lines = [points.measured, points.twin, ...levels(row.limit).map((level) => marks.flat(s, level)), ...(future ? [future] : []), ...(i.replay ? [points.later] : []), ...(whatIf ? [whatIf] : [])]
  marks.drawLabels(s, pairLabels(s, row, points, i, labelled, future, whatIf), lines, i.playhead)
}

/** While live: the samples since the plot was painted, and the dot at now. */
export function drawTip(s: Surface, series: Series, drawn: Points, breaks: marks.Breaks, i: Instant, dotted: boolean): void {
  const t = drawn.t.slice(-1)
  const v = drawn.v.slice(-1)
  for (let k = series.indexAt(t[0] ?? i.from) + 1; k < series.length && series.time(k) <= i.playhead; k++) {
    t.push(series.time(k))
    v.push(series.value(k))
  }
  marks.line(s, { t, v }, breaks, { colour: s.colours.ink, width: 1.25 })
  const last = v.findLast((value) => !Number.isNaN(value))
  if (dotted && last !== undefined) marks.dot(s, i.playhead, last)
}

/** The forecast from where the twin stands now. */
function futureOf(points: PairPoints, curve: { t: number[]; v: number[]; sd: number[] } | undefined, i: Instant): (Points & { half: number[] }) | null {
  if (!curve || i.aheadMs <= 0) return null
  const start = points.twin.t.at(-1) ?? i.playhead
  const t: number[] = []
  const v: number[] = []
  const half: number[] = []
  if (points.twin.t.length > 0) {
    t.push(start)
    v.push(points.twin.v.at(-1) as number)
    half.push(points.half.at(-1) as number)
  }
  curve.t.forEach((time, k) => {
    if (time <= start) return
    t.push(time)
    v.push(curve.v[k] as number)
    half.push((curve.sd[k] ?? NaN) * Z95)
  })
  return { t, v, half }
}

function cursorBar(s: Surface, points: PairPoints, i: Instant): void {
  const uncertainty = points.data.uncertaintyMs
  if (i.cursor === null || uncertainty < i.columnMs) return
  const index = points.measured.t.findLastIndex((time) => time <= (i.cursor as number))
  if (index >= 0) marks.timeBar(s, points.measured.t[index] as number, uncertainty, points.measured.v[index] as number)
}

function pairLabels(s: Surface, row: PairRow, points: PairPoints, i: Instant, labelled: boolean, future: Points | null, whatIf: Points | null): Label[] {
  const { colours } = s
  const nowX = s.x(i.playhead)
  const out: Label[] = []
  const add = (rank: number, lines: string[], colour: string, bold: boolean, at: (w: number, h: number) => { x: number; y: number }[]) => {
    const made = marks.label(s, rank, lines, colour, bold, [])
    const corners = at(made.w, made.h)
    // What speaks of the future stands in the future.
    out.push({ ...made, at: rank >= RANK.band ? corners.filter(({ x }) => x > nowX + 3) : corners })
  }
  for (const level of levels(row.limit)) {
    add(RANK.limit, [`limit ${level}`], colours.ink2, false, (w) => [{ x: s.right - w - 6, y: s.y(level) - 7 }])
  }
  if (labelled) for (const gap of points.gaps) out.push(...gapLabel(s, points, gap))
  if (points.stale) {
    const text = `no sample for ${duration(points.stale.to - points.stale.from)}`
    add(RANK.gap, [text], colours.ink2, false, (w) => [{ x: s.x(points.stale?.from ?? 0) - w - 6, y: s.top + 4 }])
  }
  if (!labelled) return out
  const rows = [0.93, 0.84, 0.72, 0.55, 0.35, 0.15, 0.05].map((part) => s.top + (s.bottom - s.top) * part - 7)
  if (i.aheadMs > 0) {
    add(RANK.now, [i.replay ? 'playhead' : 'now'], colours.ink, true, () => rows.map((y) => ({ x: nowX + 6, y })))
    const share = `+${Math.round(i.aheadMs / 1000)} s`
    if (!i.replay) add(RANK.ahead, [share], colours.ink2, false, (w) => rows.slice(0, 3).map((y) => ({ x: s.right - w - 6, y })))
    else add(RANK.ahead, ['recorded later'], colours.ink2, false, (w) => [...rows].reverse().map((y) => ({ x: s.right - w - 6, y })))
  }
  const forecast = i.forecasts[row.graph]
  if (future && forecast) {
    const end = future.v.at(-1) as number
    const half = (future as Points & { half: number[] }).half.at(-1) ?? 0
    const above = s.y(end + half) - 18
    const below = s.y(end - half) + 4
    const assumption = [`twin, ${forecast.assumption}`, 'twin']
    for (const text of assumption.slice(0, s.right - nowX > 110 ? 1 : 2).slice(-1)) {
      add(RANK.series, [text], colours.twin, false, (w) => [above, below, below + 20, below + 40, below + 60].map((y) => ({ x: s.right - w - 6, y })))
    }
    add(RANK.band, ['95 % band'], colours.twin, false, (w) => [below, above].map((y) => ({ x: s.right - w - 6, y })))
  }
  if (whatIf) {
    const end = whatIf.v.at(-1) as number
    add(RANK.series, ['what if'], colours.twin, true, () => [-20, 6, -34, 20].map((dy) => ({ x: nowX + 8, y: s.y(end) + dy })))
  }
  out.push(...seriesLabels(s, points, nowX))
  return out
}

function gapLabel(s: Surface, points: PairPoints, gap: Hole): Label[] {
  const x0 = s.x(gap.from)
  const x1 = s.x(gap.to)
  if (x1 - x0 < 3) return []
  const known = points.data.gaps.find((g) => g.from_ms < gap.to + 2000 && g.to_ms > gap.from - 2000)
  const lines = [`gap ${duration(gap.to - gap.from)}`]
  if (known) lines.push(`seq ${known.first} to ${known.last}`)
  else lines.push(`from ${clock(gap.from)}`)
  const made = marks.label(s, RANK.gap, lines, s.colours.ink2, false, [])
  const y = [s.bottom - made.h - 4, s.top + 6, (s.top + s.bottom - made.h) / 2]
  return [{ ...made, at: y.flatMap((top) => [{ x: x1 + 6, y: top }, { x: x0 - made.w - 6, y: top }]) }]
}

/** "twin" and "measured" where the two lie furthest apart, each on its own side. */
function seriesLabels(s: Surface, points: PairPoints, nowX: number): Label[] {
  const { measured, twin } = points
  if (measured.t.length < 2) return []
  const spots: { x: number; m: number; w: number }[] = []
  for (let part = 0.1; part <= 0.9; part += 0.05) {
    const x = s.left + (nowX - s.left) * part
    const time = s.from + ((x - s.left) / (s.right - s.left)) * (s.to - s.from)
    const within = (4 * (s.to - s.from)) / (s.right - s.left)
    const m = valueNear(measured, time, within)
    const w = valueNear(twin, time, within)
    if (m !== null) spots.push({ x, m: s.y(m), w: w === null ? NaN : s.y(w) })
  }
  // A trace of a minute may lie between two spots: its end is one too.
  const [end, other] = [measured.v.at(-1) ?? NaN, twin.v.at(-1) ?? NaN]
  if (!Number.isNaN(end)) spots.push({ x: s.x(measured.t.at(-1) as number), m: s.y(end), w: s.y(other) })
  const twinFirst = [...spots].sort((a, b) => Math.abs(b.m - b.w) - Math.abs(a.m - a.w))
  const out: Label[] = []
  const made = marks.label(s, RANK.series, ['measured'], s.colours.ink, true, [])
  out.push({ ...made, at: twinFirst.flatMap(({ x, m, w }) => sides(x, m, made.w, w < m ? 1 : -1)) })
  if (twin.t.length > 1) {
    const blue = marks.label(s, RANK.series, ['twin'], s.colours.twin, true, [])
    out.push({ ...blue, at: twinFirst.filter((p) => !Number.isNaN(p.w)).flatMap(({ x, m, w }) => sides(x, w, blue.w, w < m ? -1 : 1)) })
  }
  return out
}

function sides(x: number, y: number, w: number, side: 1 | -1): { x: number; y: number }[] {
  const at = (gap: number) => (side > 0 ? y + gap : y - gap - marks.LINE_HEIGHT)
  const over = [10, 16, 24].map((gap) => ({ x: x - w / 2, y: at(gap) }))
  // Beside a line too short or too steep to stand over.
  return [...over, { x: x - w - 6, y: at(4) }, { x: x + 6, y: at(4) }]
}

/** The value drawn at `time`; null inside a gap. */
function valueNear({ t, v }: Points, time: number, within: number): number | null {
  const index = t.findIndex((at) => at >= time)
  const value = index < 0 || (t[index] as number) - time > within ? NaN : (v[index] as number)
  return Number.isNaN(value) ? null : value
}

export function drawResidual(s: Surface, row: PairRow, points: PairPoints, i: Instant): void {
  const zero = (t: readonly number[]) => t.map(() => 0)
  const { residualHalf } = points
  const twinBreaks = { periodMs: row.measured.periodMs, coverage: points.twinData.coverage, columnMs: i.columnMs }
  marks.band(s, residualHalf.t, zero(residualHalf.t), residualHalf.half, twinBreaks)
  const future = i.replay ? null : futureOf(points, i.forecasts[row.graph]?.channels[row.output], i)
  if (future) marks.band(s, future.t, zero(future.t), future.half, null)
  marks.line(s, { t: [i.from, i.playhead], v: [0, 0] }, null, { colour: s.colours.twin, width: 1.25 })
  if (i.aheadMs > 0) marks.line(s, { t: [i.playhead, i.to], v: [0, 0] }, null, { colour: s.colours.twin, width: 1.25, dash: [5, 3] })
  marks.line(s, points.residual, { periodMs: row.measured.periodMs, coverage: points.data.coverage, columnMs: i.columnMs }, { colour: s.colours.ink, width: 1.25 })
}

/** Rows without a twin: the heaters' steps, and any single signal. */
import { holes, type Hole } from '../lib/coverage'
import { type Label, RANK } from '../lib/labels'
import { type ChannelRef, type CommandRow, levels, shortName, type SignalRow } from '../lib/rows'
import { duration } from '../lib/time'
import type { Moment } from '../state/events'
import type { History, StreamData } from '../state/history'
import { staleAfter } from '../state/readout'
import * as marks from './marks'
import type { Points } from './marks'
import { type Instant, split, staleTail } from './pair'
import type { Surface } from './plot'

export interface SignalPoints {
  ref: ChannelRef
  points: Points
  later: Points
  gaps: Hole[]
  stale: Hole | null
  data: StreamData
}

export function signalPoints(history: History, ref: ChannelRef, i: Instant): SignalPoints {
  const data = history.stream(ref.stream)
  const series = history.channel(ref.id)
  const all = series.moving(i.from, i.replay ? i.to : i.playhead, i.columnMs)
  const [points, later] = split(all, i.playhead)
  const gaps = holes(all.t, ref.periodMs, data.coverage, i.columnMs, all.v)
  return { ref, points, later, gaps, stale: staleTail(series, i, staleAfter(ref)), data }
}

export function drawSignalUnder(s: Surface, p: SignalPoints, i: Instant): void {
  if (i.aheadMs > 0) marks.ahead(s, i.playhead)
  marks.eventLines(s, i.eventTimes)
  for (const gap of p.gaps) marks.hatch(s, gap.from, gap.to)
  if (p.stale) marks.hatch(s, p.stale.from, p.stale.to)
}

export function drawSignal(s: Surface, row: SignalRow, p: SignalPoints, i: Instant): void {
  const breaks = { periodMs: p.ref.periodMs, coverage: p.data.coverage, columnMs: i.columnMs }
  if (i.replay) marks.line(s, p.later, breaks, { colour: s.colours.ink3, width: 1, steps: row.steps })
  marks.line(s, held(p, row.steps, i), breaks, { colour: s.colours.ink, width: 1.25, steps: row.steps })
  if (i.cursor !== null && p.data.uncertaintyMs >= i.columnMs) {
    const index = p.points.t.findLastIndex((time) => time <= (i.cursor as number))
    if (index >= 0) marks.timeBar(s, p.points.t[index] as number, p.data.uncertaintyMs, p.points.v[index] as number)
  }
  const labels: Label[] = []
  for (const level of levels(row.limit)) {
    marks.limitLine(s, level)
    const made = marks.label(s, RANK.limit, [`limit ${level}`], s.colours.ink2, false, [])
    labels.push({ ...made, at: [{ x: s.right - made.w - 6, y: s.y(level) - 7 }] })
  }
  if (p.stale) {
    const made = marks.label(s, RANK.gap, [`no sample for ${duration(p.stale.to - p.stale.from)}`], s.colours.ink2, false, [])
    const x = s.x(p.stale.from)
    const heights = [s.top + 6, s.bottom - 18, s.top + 1]
    const inside = made.w + 12 < s.x(p.stale.to) - x ? heights.map((y) => ({ x: x + 6, y })) : []
    labels.push({ ...made, at: [...heights.map((y) => ({ x: x - made.w - 6, y })), ...inside] })
  }
  for (const gap of p.gaps) {
    if (s.x(gap.to) - s.x(gap.from) < 3) continue
    const made = marks.label(s, RANK.gap, [`gap ${duration(gap.to - gap.from)}`], s.colours.ink2, false, [])
    labels.push({ ...made, at: [s.top + 4, s.bottom - 18].flatMap((y) => marks.beside(s.x(gap.to), y, made.w)) })
  }
  marks.drawLabels(s, labels, [p.points], i.playhead)
}

/** A step runs on until its next sample is due: a slow signal is not broken at its last step. */
function held(p: SignalPoints, steps: boolean, i: Instant): Points {
  const last = p.points.t.at(-1)
  if (!steps || last === undefined || p.stale || p.ref.periodMs === null) return p.points
  const end = Math.min(i.playhead, last + 2 * p.ref.periodMs)
  return end <= last ? p.points : { t: [...p.points.t, end], v: [...p.points.v, p.points.v.at(-1) as number] }
}

export function drawCommands(s: Surface, row: CommandRow, all: SignalPoints[], i: Instant, events: Moment[]): void {
  if (row.limit !== null) marks.limitLine(s, row.limit)
  const strokes = [
    { colour: s.colours.ink, width: 1.75 },
    { colour: s.colours.ink3, width: 1.25 },
  ]
  for (const [k, p] of [...all.entries()].reverse()) {
    const stroke = strokes[Math.min(k, 1)] as { colour: string; width: number }
    const breaks = { periodMs: p.ref.periodMs, coverage: p.data.coverage, columnMs: i.columnMs }
    if (i.replay) marks.line(s, p.later, breaks, { colour: s.colours.ink3, width: 1, steps: true })
    marks.line(s, held(p, true, i), breaks, { ...stroke, steps: true })
  }
  const labels: Label[] = []
  if (row.limit !== null) {
    const made = marks.label(s, RANK.limit, [`limit ${row.limit}`], s.colours.ink2, false, [])
    labels.push({ ...made, at: [{ x: s.right - made.w - 6, y: s.y(row.limit) - 7 }] })
  }
  const nowX = s.x(i.playhead)
  for (const [k, p] of all.entries()) {
    const value = p.points.v.at(-1)
    if (value === undefined || i.aheadMs <= 0) continue
    const made = marks.label(s, RANK.series, [shortName(p.ref.channel.name)], k === 0 ? s.colours.ink : s.colours.ink3, true, [])
    const y = s.y(value) - 7
    labels.push({ ...made, at: [0, 7, -7, 14, -14].map((dy) => ({ x: nowX + 6, y: y + dy })) })
  }
  for (const event of events) {
    if (event.kind !== 'step' || event.row !== row.id || event.at > i.playhead) continue
    const made = marks.label(s, RANK.note, [event.text], s.colours.ink2, false, [])
    const y = s.y(event.value)
    labels.push({ ...made, at: [y - 17, y + 4, s.bottom - 16, s.top + 3].flatMap((top) => marks.beside(s.x(event.at), top, made.w)) })
  }
  const lines = all.map((p) => p.points)
  if (row.limit !== null) lines.push(marks.flat(s, row.limit))
  marks.drawLabels(s, labels, lines, i.playhead)
}

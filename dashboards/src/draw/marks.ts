/** The strokes of the instrument: one function per mark, sizes in CSS pixels as the design states them. */
import { type Coverage, breakAfter } from '../lib/coverage'
import { type Box, type Label, type Placed, place, RANK } from '../lib/labels'
import type { Surface } from './plot'
import { BOLD, FONT, withAlpha } from './theme'

export interface Points {
  t: number[]
  v: number[]
}

/** Where a line must break: silence longer than the stream's period explains. */
export interface Breaks {
  periodMs: number | null
  coverage: Coverage
  /** The column that the points were thinned to. */
  columnMs: number
}

export interface Stroke {
  colour: string
  width: number
  dash?: number[]
  steps?: boolean
}

export function ahead(s: Surface, from: number): void {
  const x = s.x(from)
  if (x >= s.right) return
  s.ctx.fillStyle = s.colours.panel
  s.ctx.fillRect(x, s.top, s.right - x, s.bottom - s.top)
}

export function eventLines(s: Surface, times: readonly number[]): void {
  s.ctx.fillStyle = s.colours.rule
  for (const time of times) s.ctx.fillRect(Math.round(s.x(time)), s.top, 1, s.bottom - s.top)
}

/** A 45° hatch with 6 px pitch, anchored to the canvas so that it runs on without a seam. */
export function hatch(s: Surface, from: number, to: number): void {
  const { ctx, top, bottom } = s
  const x0 = Math.max(s.left, s.x(from))
  const x1 = Math.min(s.right, Math.max(s.x(to), s.x(from) + 2))
  if (x1 <= x0) return
  ctx.fillStyle = s.colours.plot
  ctx.fillRect(x0, top, x1 - x0, bottom - top)
  ctx.fillStyle = hatchPattern(ctx, s.colours.ink)
  ctx.fillRect(x0, top, x1 - x0, bottom - top)
}

const PITCH = 6
let pattern: { ink: string; ratio: number; fill: CanvasPattern } | null = null

function hatchPattern(ctx: CanvasRenderingContext2D, ink: string): CanvasPattern | string {
  const ratio = window.devicePixelRatio
  if (pattern?.ink === ink && pattern.ratio === ratio) return pattern.fill
  const tile = document.createElement('canvas')
  tile.width = tile.height = Math.round(PITCH * ratio)
  const pen = tile.getContext('2d')
  if (!pen) return 'transparent'
  pen.scale(ratio, ratio)
  pen.strokeStyle = withAlpha(ink, 0.155)
  for (const shift of [-PITCH, 0, PITCH]) {
    pen.moveTo(shift - 1, PITCH + 1)
    pen.lineTo(shift + PITCH + 1, -1)
  }
  pen.stroke()
  const fill = ctx.createPattern(tile, 'repeat')
  if (!fill) return 'transparent'
  fill.setTransform(new DOMMatrix().scale(1 / ratio))
  pattern = { ink, ratio, fill }
  return fill
}

/** A line through points; absent values and silences break it, nothing is interpolated across them. */
export function line(s: Surface, points: Points, breaks: Breaks | null, stroke: Stroke): void {
  const { ctx } = s
  if (!stroke.dash && !stroke.steps && points.t.length > 1.5 * (s.right - s.left)) return dense(s, points, breaks, stroke)
  ctx.save()
  ctx.strokeStyle = stroke.colour
  ctx.lineWidth = stroke.width
  ctx.setLineDash(stroke.dash ?? [])
  ctx.lineJoin = 'bevel'
  ctx.beginPath()
  trace(s, points, breaks, stroke.steps ?? false)
  ctx.stroke()
  ctx.restore()
}

/**
 * The same line where several points share a pixel column: one upright bar per column, from its minimum to its
 * maximum and on to where the column before ended. A stroke of thousands of segments costs ten times as much.
 */
function dense(s: Surface, { t, v }: Points, breaks: Breaks | null, { colour, width }: Stroke): void {
  const { ctx } = s
  ctx.fillStyle = colour
  const pixel = 1 / window.devicePixelRatio
  let previous: number | null = null
  let last = NaN
  let column = NaN
  let low = 0
  let high = 0
  const flush = () => {
    if (!Number.isNaN(column)) ctx.fillRect(column * pixel, low - width / 2, pixel, high - low + width)
    column = NaN
  }
  for (let i = 0; i < t.length; i++) {
    const time = t[i] as number
    const value = v[i] as number
    if (Number.isNaN(value)) {
      previous = null
      continue
    }
    const y = s.y(value)
    const here = Math.floor(s.x(time) / pixel)
    const joined = previous !== null && !torn(breaks, previous, time)
    if (here !== column) {
      const before = column
      flush()
      if (joined && here - before > 1) bridge(ctx, before, here, last, y, pixel, width)
      column = here
      low = high = y
      if (joined && here - before <= 1) {
        low = Math.min(y, last)
        high = Math.max(y, last)
      }
    } else {
      low = Math.min(low, y)
      high = Math.max(high, y)
    }
    previous = time
    last = y
  }
  flush()
}

function bridge(ctx: CanvasRenderingContext2D, from: number, to: number, y0: number, y1: number, pixel: number, width: number): void {
  for (let column = from + 1; column < to; column++) {
    const y = y0 + ((y1 - y0) * (column - from)) / (to - from)
    ctx.fillRect(column * pixel, y - width / 2, pixel, width)
  }
}

function torn(breaks: Breaks | null, previous: number, time: number): boolean {
  return breaks !== null && breaks.periodMs !== null && time - previous > breakAfter(breaks.periodMs, breaks.coverage, previous, breaks.columnMs)
}

function trace(s: Surface, { t, v }: Points, breaks: Breaks | null, steps: boolean): void {
  const { ctx } = s
  let previous: number | null = null
  let previousY = 0
  for (let i = 0; i < t.length; i++) {
    const time = t[i] as number
    const value = v[i] as number
    if (Number.isNaN(value)) {
      previous = null
      continue
    }
    const x = s.x(time)
    const y = s.y(value)
    const joined = previous !== null && !torn(breaks, previous, time)
    if (!joined) ctx.moveTo(x, y)
    else {
      if (steps) ctx.lineTo(x, previousY)
      ctx.lineTo(x, y)
    }
    previous = time
    previousY = y
  }
}

/** The 95 % band: a tint without an edge, as wide as the model says at every point. */
export function band(s: Surface, t: readonly number[], centre: readonly number[], half: readonly number[], breaks: Breaks | null): void {
  const { ctx } = s
  ctx.fillStyle = s.colours.band
  // A band is smooth: one point per two pixels is all the eye and the raster need.
  const stride = Math.max(1, Math.floor((2 * t.length) / (s.right - s.left)))
  let piece: { x: number; top: number; bottom: number }[] = []
  const flush = () => {
    if (piece.length > 1) {
      ctx.beginPath()
      for (const { x, top } of piece) ctx.lineTo(x, top)
      for (const { x, bottom } of piece.reverse()) ctx.lineTo(x, bottom)
      ctx.fill()
    }
    piece = []
  }
  for (let i = 0; i < t.length; i++) {
    const c = centre[i] as number
    const h = half[i] as number
    const time = t[i] as number
    const broken = i > 0 && torn(breaks, t[i - 1] as number, time)
    if (Number.isNaN(c) || Number.isNaN(h) || broken) flush()
    if (Number.isNaN(c) || Number.isNaN(h)) continue
    if (piece.length > 0 && i % stride !== 0 && i < t.length - 1) continue
    piece.push({ x: s.x(time), top: s.y(c + h), bottom: s.y(c - h) })
  }
  flush()
}

export function limitLine(s: Surface, value: number): void {
  line(s, { t: [s.from, s.to], v: [value, value] }, null, { colour: s.colours.ink2, width: 1, dash: [1.5, 4] })
}

/** A level as points, so that labels keep clear of it. */
export function flat(s: Surface, value: number): Points {
  const t = Array.from({ length: 60 }, (_, k) => s.from + ((s.to - s.from) * k) / 59)
  return { t, v: t.map(() => value) }
}

export function dot(s: Surface, time: number, value: number): void {
  s.ctx.fillStyle = s.colours.ink
  s.ctx.beginPath()
  s.ctx.arc(s.x(time), s.y(value), 3, 0, 7)
  s.ctx.fill()
}

/** Time uncertainty at the cursor: a horizontal bar of ± one standard uncertainty. */
export function timeBar(s: Surface, time: number, uncertainty: number, value: number): void {
  line(s, { t: [time - uncertainty, time + uncertainty], v: [value, value] }, null, { colour: s.colours.ink, width: 1 })
  for (const end of [time - uncertainty, time + uncertainty]) {
    s.ctx.fillStyle = s.colours.ink
    s.ctx.fillRect(Math.round(s.x(end)), s.y(value) - 3, 1, 7)
  }
}

export const LINE_HEIGHT = 14

/** A text label that `place` can put down; `style` is "bold? colour". */
export function label(s: Surface, rank: number, lines: string[], colour: string, bold: boolean, at: { x: number; y: number }[]): Label {
  s.ctx.font = bold ? BOLD : FONT
  const w = Math.max(...lines.map((text) => s.ctx.measureText(text).width)) + 2
  return { rank, lines, w, h: lines.length * LINE_HEIGHT, at, style: `${bold ? 'b' : 'n'}${colour}` }
}

/** Candidate corners for a label beside x: on the right first, then on the left. */
export function beside(x: number, y: number, w: number): { x: number; y: number }[] {
  return [
    { x: x + 6, y },
    { x: x - 6 - w, y },
  ]
}

export function drawLabels(s: Surface, labels: Label[], lines: Points[], aheadFrom: number): Placed[] {
  const cover = lines.map((points) => columnCover(s, points))
  const bounds = { x: s.left + 1, y: s.top + 1, w: s.right - s.left - 2, h: s.bottom - s.top - 2 }
  const hides = (box: Box) => cover.some((c) => c(box.x - 2, box.x + box.w + 2, box.y, box.y + box.h))
  const placed = place(labels, bounds, (box, { rank }) => rank !== RANK.limit && hides(box))
  const { ctx } = s
  ctx.textBaseline = 'alphabetic'
  ctx.textAlign = 'left'
  ctx.lineJoin = 'round'
  const edge = s.x(aheadFrom)
  for (const { x, y, w, h, label: { rank, style, lines: texts } } of placed) {
    ctx.font = style.startsWith('b') ? BOLD : FONT
    if (rank === RANK.limit) {
      // The limit's number stands in its own line.
      ctx.fillStyle = x >= edge ? s.colours.panel : s.colours.plot
      ctx.fillRect(x - 3, y + 2, w + 4, h - 4)
    }
    texts.forEach((text, i) => {
      const baseline = y + 11 + i * LINE_HEIGHT
      ctx.strokeStyle = x >= edge ? s.colours.panel : s.colours.plot
      ctx.lineWidth = 4
      ctx.strokeText(text, x, baseline)
      ctx.fillStyle = style.slice(1)
      ctx.fillText(text, x, baseline)
    })
  }
  return placed
}

/** Per pixel column, how high and low a line runs: tells whether a box would hide it. */
function columnCover(s: Surface, { t, v }: Points): (x0: number, x1: number, y0: number, y1: number) => boolean {
  const width = Math.ceil(s.right) + 2
  const min = new Float32Array(width).fill(Infinity)
  const max = new Float32Array(width).fill(-Infinity)
  let lastX = NaN
  let lastY = NaN
  for (let i = 0; i < t.length; i++) {
    const x = s.x(t[i] as number)
    const y = s.y(v[i] as number)
    if (Number.isNaN(y)) {
      lastX = NaN
      continue
    }
    const start = Number.isNaN(lastX) || x - lastX > 60 ? x : lastX
    for (let column = Math.max(0, Math.floor(start)); column <= Math.min(width - 1, x); column++) {
      const part = x > start ? (column - start) / (x - start) : 1
      const here = start === x ? y : lastY + (y - lastY) * Math.min(1, Math.max(0, part))
      min[column] = Math.min(min[column] as number, here)
      max[column] = Math.max(max[column] as number, here)
    }
    lastX = x
    lastY = y
  }
  return (x0, x1, y0, y1) => {
    for (let column = Math.max(0, Math.floor(x0)); column <= Math.min(width - 1, x1); column++) {
      if ((min[column] as number) <= y1 && (max[column] as number) >= y0) return true
    }
    return false
  }
}

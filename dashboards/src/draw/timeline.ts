/** The hour at a glance: residual in units of its band, a presence lane per device, marks where something happened. */
import { type PairRow, type Row, Z95 } from '../lib/rows'
import type { Moment } from '../state/events'
import type { History } from '../state/history'
import type { Colours } from './theme'

export interface TimelineFrame {
  width: number
  height: number
  from: number
  to: number
  now: number
  lanes: { name: string; y: number }[]
  tapes: { from: number; to: number; devices: Record<string, number[]> }
  events: Moment[]
  /** Where the overview's zero line lies and how many pixels one band is. */
  base: number
  unit: number
}

const LANE = 5

export function drawTimeline(ctx: CanvasRenderingContext2D, colours: Colours, history: History, rows: Row[], f: TimelineFrame): void {
  const x = (time: number) => ((time - f.from) / (f.to - f.from)) * f.width
  ctx.clearRect(0, 0, f.width, f.height)
  const pairs = rows.filter((row): row is PairRow => row.kind === 'pair')
  if (pairs.length > 0) overview(ctx, colours, history, pairs, f)
  for (const { name, y } of f.lanes) lane(ctx, colours, f.tapes, name, y, x)
  ctx.fillStyle = colours.ink2
  for (const event of f.events) {
    const at = Math.round(x(event.at))
    if (at < 0 || at > f.width) continue
    ctx.beginPath()
    ctx.moveTo(at - 4, 0)
    ctx.lineTo(at + 4, 0)
    ctx.lineTo(at, 6)
    ctx.fill()
  }
}

/** Per pixel column the largest |residual| of any pair, in band half-widths; the blue line is the band's edge. */
function overview(ctx: CanvasRenderingContext2D, colours: Colours, history: History, pairs: PairRow[], f: TimelineFrame): void {
  const columns = new Float32Array(Math.ceil(f.width) + 1)
  for (const { pair } of pairs) {
    const residual = history.channel(pair.residual)
    const sd = history.channel(pair.sd)
    let k = 0
    for (let i = residual.lowerBound(f.from); i < residual.length && residual.time(i) <= f.to; i++) {
      const time = residual.time(i)
      const value = residual.value(i)
      if (Number.isNaN(value)) continue
      while (k + 1 < sd.length && sd.time(k + 1) <= time) k++
      const half = (k < sd.length ? sd.value(k) : NaN) * Z95
      if (!(half > 0)) continue
      const column = Math.floor(((time - f.from) / (f.to - f.from)) * f.width)
      columns[column] = Math.max(columns[column] ?? 0, Math.abs(value) / half)
    }
  }
  ctx.fillStyle = colours.edge
  columns.forEach((size, column) => {
    if (size <= 0) return
    const height = Math.max(1, Math.min(4.6, size) * f.unit)
    ctx.fillRect(column, f.base - height, 1, height)
  })
  ctx.fillStyle = colours.twin
  ctx.fillRect(0, Math.round(f.base - f.unit), f.width, 1)
}

function lane(ctx: CanvasRenderingContext2D, colours: Colours, tapes: TimelineFrame['tapes'], name: string, y: number, x: (time: number) => number): void {
  const tape = tapes.devices[name] ?? []
  const width = (tapes.to - tapes.from) / Math.max(1, tape.length)
  ctx.fillStyle = colours.edge
  let start: number | null = null
  const flush = (end: number) => {
    if (start === null) return
    const left = Math.round(x(tapes.from + start * width))
    const right = Math.round(x(tapes.from + end * width))
    ctx.fillRect(left, y, Math.max(1, right - left), LANE - 1)
    start = null
  }
  tape.forEach((here, column) => {
    if (here) start ??= column
    else flush(column)
  })
  flush(tape.length)
  // An absence inside the lane is a hole with an outline, wide enough to be seen.
  ctx.strokeStyle = colours.ink
  ctx.lineWidth = 1
  const first = tape.findIndex((here) => here > 0)
  const last = tape.findLastIndex((here) => here > 0)
  for (let column = first; column >= 0 && column < last; column++) {
    if (tape[column]) continue
    let end = column
    while (end < last && !tape[end]) end++
    const left = Math.round(x(tapes.from + column * width))
    const right = Math.max(left + 3, Math.round(x(tapes.from + end * width)))
    ctx.fillStyle = colours.plot
    ctx.fillRect(left, y - 1, right - left, LANE + 1)
    ctx.strokeRect(left + 0.5, y - 0.5, right - left - 1, LANE)
    column = end
  }
}

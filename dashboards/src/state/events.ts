/** Moments worth a mark on the timeline: a set-point that changed, a gap that began, data that came late. */
import type { CommandRow, Row } from '../lib/rows'
import { shortName } from '../lib/rows'
import { fixed } from '../lib/number'
import type { History } from './history'

export interface Moment {
  at: number
  kind: 'step' | 'gap' | 'late'
  row: string
  text: string
  value: number
}

export function moments(history: History, rows: Row[], from: number, to: number): Moment[] {
  const out: Moment[] = []
  for (const row of rows) {
    if (row.kind === 'commands') out.push(...steps(history, row, from, to))
    const stream = row.kind === 'pair' ? row.measured.stream : row.kind === 'signal' ? row.channel.stream : null
    if (stream === null || out.some((moment) => moment.kind === 'gap' && moment.row === stream)) continue
    for (const gap of history.stream(stream).gaps) {
      if (gap.from_ms >= from && gap.from_ms <= to) out.push({ at: gap.from_ms, kind: 'gap', row: stream, text: 'gap', value: 0 })
    }
  }
  return out.sort((a, b) => a.at - b.at)
}

function steps(history: History, row: CommandRow, from: number, to: number): Moment[] {
  const out: Moment[] = []
  for (const ref of row.channels) {
    const series = history.channel(ref.id)
    const name = shortName(ref.channel.name)
    let previous = NaN
    for (let i = Math.max(0, series.lowerBound(from) - 1); i < series.length && series.time(i) <= to; i++) {
      const value = series.value(i)
      if (Number.isNaN(value)) continue
      if (!Number.isNaN(previous) && Math.abs(value - previous) >= 0.5) {
        const text = `${name} ${fixed(previous, 0)} → ${fixed(value, 0)} ${row.unit}`
        out.push({ at: series.time(i), kind: 'step', row: row.id, text, value: Math.max(value, previous) })
      }
      previous = value
    }
  }
  return out
}

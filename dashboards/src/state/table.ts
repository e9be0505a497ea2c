/** A plot as a table: the newest samples of its window first, with the twin beside the measurement. */
import { decimalsByMagnitude, decimalsFor, fixed, signed } from '../lib/number'
import { type ChannelRef, type Row, shortName, splitId, Z95 } from '../lib/rows'
import { clock, dateTime } from '../lib/time'
import type { Series } from '../lib/series'
import type { History } from './history'

export interface TableData {
  title: string
  columns: string[]
  rows: string[][]
  /** Full times for the CSV. */
  times?: number[]
}

const LIMIT = 300

export function tableOf(history: History, row: Row, from: number, to: number): TableData {
  const refs = row.kind === 'pair' ? [row.measured] : row.kind === 'signal' ? [row.channel] : row.channels
  const series = refs.map((ref) => history.channel(ref.id))
  const lead = series[0]
  const columns = ['UTC', ...refs.map((ref) => (refs.length > 1 ? `${shortName(ref.channel.name)}, ${row.unit}` : row.unit || 'value'))]
  if (row.kind === 'pair') columns.push('twin', '±', 'residual')
  const rows: string[][] = []
  const times: number[] = []
  for (let i = lead ? lead.indexAt(to) : -1; lead && i >= 0 && lead.time(i) >= from && rows.length < LIMIT; i--) {
    const time = lead.time(i)
    const cells = [clock(time, 1), ...refs.map((ref, k) => cell(series[k] as Series, ref, time))]
    if (row.kind === 'pair') cells.push(...twinCells(history, row.pair, time))
    rows.push(cells)
    times.push(time)
  }
  return { title: `${row.title} ${row.subtitle}`, columns, rows, times }
}

/** A table shows samples, not the plot's minima and maxima: fetch the newest ones one by one. */
export function wantSamples(history: History, row: Row, to: number, now: number): void {
  const ref = row.kind === 'pair' ? row.measured : row.kind === 'signal' ? row.channel : row.channels[0]
  if (!ref) return
  const streams = row.kind === 'pair' ? [ref.stream, splitId(row.pair.output).stream] : [ref.stream]
  history.ensure(streams, to - LIMIT * (ref.periodMs ?? 1000), Math.min(to, now), LIMIT * 20, now, 2)
}

function cell(series: Series, ref: ChannelRef, time: number): string {
  const value = at(series, time)
  if (value === null) return 'no data'
  return fixed(value, (decimalsFor(ref.half) ?? decimalsByMagnitude(value)) + 1)
}

function twinCells(history: History, pair: { output: string; sd: string; residual: string }, time: number): string[] {
  const twin = at(history.channel(pair.output), time)
  const sd = at(history.channel(pair.sd), time)
  const residual = at(history.channel(pair.residual), time)
  return [twin === null ? '' : fixed(twin, 2), sd === null ? '' : fixed(sd * Z95, 2), residual === null ? '' : signed(residual, 2)]
}

function at(series: Series, time: number): number | null {
  const index = series.indexAt(time + 0.5)
  const value = index < 0 || time - series.time(index) > 10_000 ? NaN : series.value(index)
  return Number.isNaN(value) ? null : value
}

export function toCsv(data: TableData): string {
  const plain = (text: string) => text.replaceAll('−', '-').replace(/^\+/, '')
  const quote = (text: string) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text)
  const lines = data.rows.map((cells, k) => [dateTime(data.times?.[k] ?? 0), ...cells.slice(1)].map(plain))
  return [data.columns, ...lines].map((cells) => cells.map(quote).join(',')).join('\n') + '\n'
}

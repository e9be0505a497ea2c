/** Which rows the page draws: from the graphs' pairs, the control channels and whatever else is streaming. */
import type { Channel, Control, Graph, Pair, Stream } from '../api/types'
import { unit } from './number'
import { words } from './text'

/** Half-width of a 95 % interval in standard uncertainties. Every ± on the page is one. */
export const Z95 = 1.96

export interface ChannelRef {
  /** "tclab-01/board.t1" */
  id: string
  stream: string
  channel: Channel
  /** What people call it. */
  title: string
  /** Half the 95 % interval of a value, in the channel's unit; null where nobody stated it. */
  half: number | null
  periodMs: number | null
  maxSilenceMs: number | null
}

interface Base {
  id: string
  title: string
  subtitle: string
  unit: string
}

/** What an interlock keeps a quantity within. */
export interface Limit {
  min: number | null
  max: number | null
}

export interface PairRow extends Base {
  kind: 'pair'
  graph: string
  measured: ChannelRef
  pair: Pair
  /** The forecast's name for this output. */
  output: string
  limit: Limit
}

export interface CommandRow extends Base {
  kind: 'commands'
  channels: ChannelRef[]
  limit: number | null
  low: number
}

export interface SignalRow extends Base {
  kind: 'signal'
  channel: ChannelRef
  steps: boolean
  limit: Limit
}

export type Row = PairRow | CommandRow | SignalRow

/** Names of the demo's own signals, in the order of the bench. Any other stream is named by its descriptor. */
const KNOWN: Record<string, { title: string; subtitle: string; unit?: string }> = {
  'power-meter/supply.power': { title: 'Supply', subtitle: 'power' },
  'chamber-ctl/air.temperature': { title: 'Chamber', subtitle: 'air' },
  'room-sensor/room.humidity': { title: 'Room', subtitle: 'humidity', unit: '% RH' },
  'room-sensor/room.temperature': { title: 'Room', subtitle: 'air' },
}

/** A signal slower than this is drawn as steps: between two samples nothing is known. */
const STEPS_BELOW_HZ = 2

/** Acknowledgements, logs and events travel as streams too; they are no signals. */
export function isInternal(stream: string): boolean {
  return /\/(acks|log|events)$/.test(stream)
}

export function splitId(id: string): { stream: string; channel: string } {
  const dot = id.indexOf('.', id.indexOf('/'))
  return { stream: id.slice(0, dot), channel: id.slice(dot + 1) }
}

export function arrange(streams: Stream[], graphs: Graph[], control: Control | null): Row[] {
  const refs = new Map<string, ChannelRef>()
  for (const stream of streams) for (const channel of stream.channels) refs.set(`${stream.stream}.${channel.name}`, ref(stream, channel))

  const computed = new Set(graphs.flatMap((graph) => graph.pairs.map((pair) => splitId(pair.output).stream)))
  const used = new Set<string>()
  const rows: Row[] = []
  for (const graph of graphs) {
    for (const pair of graph.pairs) {
      const measured = refs.get(pair.measured)
      if (!measured || used.has(pair.measured)) continue
      used.add(pair.measured)
      rows.push(pairRow(graph, pair, measured, limitOf(control, pair.measured, pair.output)))
    }
  }
  for (const row of commandRows(control, refs)) {
    for (const channel of row.channels) used.add(channel.id)
    rows.push(row)
  }
  const rest = [...refs.values()].filter(
    (r) => !used.has(r.id) && !computed.has(r.stream) && r.channel.kind.toLowerCase() !== 'utf8',
  )
  const order = Object.keys(KNOWN)
  rest.sort((a, b) => rank(order, a.id) - rank(order, b.id))
  for (const r of rest) rows.push(signalRow(r, limitOf(control, r.id)))
  return tellApart(rows)
}

/** Two boards of one kind have rows of one name: those say whose they are. */
function tellApart(rows: Row[]): Row[] {
  const names = rows.map((row) => `${row.title} ${row.subtitle}`)
  return rows.map((row, k) => {
    const alone = names.indexOf(names[k] as string) === names.lastIndexOf(names[k] as string)
    return alone ? row : { ...row, subtitle: row.id.split('/')[0] as string }
  })
}

function rank(order: string[], id: string): number {
  const index = order.indexOf(id)
  return index < 0 ? order.length : index
}

function ref(stream: Stream, channel: Channel): ChannelRef {
  const hz = stream.nominal_rate_hz
  return {
    id: `${stream.stream}.${channel.name}`,
    stream: stream.stream,
    channel,
    title: titleOf(stream, channel),
    half: channel.uncertainty ? channel.uncertainty * Z95 : null,
    periodMs: hz && hz > 0 ? 1000 / hz : null,
    maxSilenceMs: stream.max_silence_ms ?? null,
  }
}

/** What an agent calls a number that has no name of its own. */
const NAMELESS = /^(value$|v_)/

/** A lone number without a name is called as its stream is, which is called as its topic. */
function titleOf(stream: Stream, channel: Channel): string {
  if (channel.title) return words(channel.title)
  const lone = stream.channels.length === 1 && NAMELESS.test(channel.name)
  return lone && stream.title ? stream.title : words(channel.name)
}

/** The tightest limits that interlocks put on any of these channels. */
function limitOf(control: Control | null, ...ids: string[]): Limit {
  const limit: Limit = { min: null, max: null }
  for (const { limit: held, channels } of control?.interlocks ?? []) {
    if (!held || !channels?.some((id) => ids.includes(id))) continue
    if (held.min != null) limit.min = Math.max(limit.min ?? -Infinity, held.min)
    if (held.max != null) limit.max = Math.min(limit.max ?? Infinity, held.max)
  }
  return limit
}

export function levels({ min, max }: Limit): number[] {
  return [min, max].filter((level) => level !== null)
}

function pairRow(graph: Graph, pair: Pair, measured: ChannelRef, limit: Limit): PairRow {
  return {
    kind: 'pair',
    id: measured.id,
    title: shortName(measured.channel.name),
    subtitle: measured.channel.title ?? measured.stream,
    unit: unit(measured.channel.unit),
    graph: graph.id,
    measured,
    pair,
    output: splitId(pair.output).channel,
    limit,
  }
}

function commandRows(control: Control | null, refs: Map<string, ChannelRef>): CommandRow[] {
  const byDevice = new Map<string, CommandRow>()
  for (const channel of control?.channels ?? []) {
    const feedback = [...refs.values()].find((r) => r.stream.split('/')[0] === channel.device && r.channel.name === channel.channel)
    if (!feedback) continue
    const row = byDevice.get(channel.device)
    if (row) {
      row.channels.push(feedback)
      row.limit = row.limit === null ? null : Math.max(row.limit, channel.high)
      row.low = Math.min(row.low, channel.low)
    } else {
      byDevice.set(channel.device, {
        kind: 'commands',
        id: `${channel.device}/commands`,
        title: 'Heaters',
        subtitle: 'power',
        unit: unit(channel.unit),
        channels: [feedback],
        limit: channel.high,
        low: channel.low,
      })
    }
  }
  return [...byDevice.values()]
}

function signalRow(r: ChannelRef, limit: Limit): SignalRow {
  const known = KNOWN[r.id]
  const hz = r.periodMs === null ? null : 1000 / r.periodMs
  return {
    kind: 'signal',
    id: r.id,
    title: known?.title ?? r.title,
    subtitle: known?.subtitle ?? r.stream,
    unit: known?.unit ?? unit(r.channel.unit),
    channel: r,
    steps: hz === null || hz < STEPS_BELOW_HZ,
    limit,
  }
}

/** "t1" → "T1"; longer names stay words. */
export function shortName(name: string): string {
  return name.length <= 3 ? name.toUpperCase() : words(name)
}

/** A device's state in words: nothing while it is as it should be. */
import type { Device } from '../api/types'
import { count } from './number'
import { words } from './text'
import { duration } from './time'

export interface Wording {
  /** The state itself; null while live. */
  word: string | null
  /** What that means: since when, and who still answers. */
  why: string | null
}

export function wording(device: Device, ageMs: number | null): Wording {
  if (device.state === 'live') return { word: null, why: lossOf(device) }
  const silence = ageMs === null ? 'no sample yet' : `no sample for ${duration(ageMs)}`
  // The agent says 1 while it reaches the device, and nothing before its first heartbeat.
  const { connected = 1 } = device.agent_counters ?? {}
  if (device.state === 'silent' && Number(connected) === 0) {
    return { word: 'disconnected', why: `${silence}, its agent cannot reach it` }
  }
  if (device.state === 'silent') return { word: 'silent', why: `${silence}, its agent answers` }
  if (device.state === 'stale') return { word: ageMs === null ? 'never heard' : 'stale', why: silence }
  return { word: device.state, why: silence }
}

/** "1 gap, 340 envelopes lost", "1 gap open"; null while nothing is missing. */
function lossOf(device: Device): string | null {
  const lost = device.gaps.filter((gap) => gap.state === 'lost')
  const open = device.gaps.length - lost.length
  const total = lost.reduce((sum, gap) => sum + Number(gap.count), 0)
  const parts: string[] = []
  if (lost.length > 0) parts.push(`${gaps(lost.length)}, ${count(total)} ${total === 1 ? 'envelope' : 'envelopes'} lost`)
  if (open > 0) parts.push(`${gaps(open)} open`)
  return parts.length > 0 ? parts.join(', ') : null
}

function gaps(n: number): string {
  return n === 1 ? '1 gap' : `${n} gaps`
}

const NAMES: Record<string, string> = {
  accepted: 'Envelopes accepted',
  rows: 'Rows stored',
  late_rows: 'Rows that came late',
  duplicates: 'Duplicates removed',
  forged: 'Forged, refused',
  equivocations: 'Two for one number',
  revoked: 'Signed with a revoked key',
  chain_breaks: 'Breaks of the chain',
  implausible_stamps: 'Stamps not believed',
}
const AGENT_NAMES: Record<string, string> = {
  readings: 'Readings taken',
  sealed: 'Envelopes sealed',
  bad: 'Readings not understood',
  dropped: 'Envelopes lost in its spool',
  disconnects: 'Times disconnected',
}
/** What is worth a line even at zero. */
const ALWAYS = new Set(['accepted', 'rows', 'readings', 'sealed'])

/** Counters as lines: what the store counted, or what the agent did. */
export function lines(counters: Device['counters'], agent: boolean): [string, string][] {
  const names = agent ? AGENT_NAMES : NAMES
  const order = Object.keys(names)
  const place = (name: string) => (order.indexOf(name) + order.length + 1) % (order.length + 1)
  return Object.entries(counters ?? {})
    .filter(([name, total]) => ALWAYS.has(name) || (Number(total) > 0 && name !== 'connected'))
    .sort(([a], [b]) => place(a) - place(b) || a.localeCompare(b))
    .map(([name, total]) => [names[name] ?? words(name), count(total)])
}

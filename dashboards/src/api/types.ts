/** The part of the gateway's HTTP and live contract that the page reads. 64-bit integers arrive as strings. */

export interface Channel {
  name: string
  title?: string | null
  unit: string
  kind: string
  resolution?: number | null
  uncertainty?: number | null
}

export interface Stream {
  stream: string
  title?: string | null
  channels: Channel[]
  nominal_rate_hz?: number | null
  max_silence_ms?: number | null
  from?: string | null
  to?: string | null
}

export interface DeviceGap {
  boot_id: string
  first: string
  /** Null while nobody knows where it ends. */
  last: string | null
  count: string | null
  from: string | null
  to: string | null
  state: 'pending' | 'lost'
}

export interface ClockModel {
  kind: string
  offset_ms: number
  offset_uncertainty_ms: number
  drift_ppm: number
  drift_uncertainty_ppm: number
  asymmetry_ms: number
}

export interface Device {
  device_id: string
  title?: string | null
  protocol?: string | null
  /** `silent`: no samples, but its agent is heard. `stale`: nothing at all. */
  state: 'live' | 'silent' | 'stale'
  last_sample: string | null
  streams: string[]
  rate: { observed_hz: number | null; nominal_hz: number | null }
  clock: ClockModel | null
  gaps: DeviceGap[]
  counters?: Record<string, string | number>
  /** What the agent itself counted, as its last heartbeat told. */
  agent_counters?: Record<string, string | number>
}

export interface Pair {
  measured: string
  output: string
  sd: string
  residual: string
}

export interface Graph {
  id: string
  title?: string | null
  model?: { name: string; digest: string; version: string } | null
  tick_ms: number | null
  state: 'running' | 'waiting' | 'failed'
  reason?: string | null
  pairs: Pair[]
}

export interface Curve {
  t: number[]
  v: number[]
  sd: number[]
}

export interface Forecast {
  from_ms: number
  assumption: string
  channels: Record<string, Curve>
}

export interface ControlChannel {
  device: string
  channel: string
  title: string
  unit: string
  /** The graph that commands it, and the input of that graph's model. */
  graph: string
  input: string
  value: number | null
  low: number
  high: number
  age_s: number | null
}

export interface Interlock {
  id: string
  text: string
  ok: boolean
  margin?: string | null
  /** Why it does not hold. */
  reason?: string | null
  /** What it watches, `device/stream.channel`, and what it keeps it within; drawn as the plot's limits. */
  channels?: string[]
  limit?: { min?: number | null; max?: number | null; unit?: string } | null
}

export interface Control {
  channels: ControlChannel[]
  interlocks: Interlock[]
  lease: { holder: string; expires_ms: number } | null
}

export interface Review {
  review_id: string
  expires_ms: number
  changes: { device: string; channel: string; from: number | null; to: number }[]
  prediction: string
  interlocks: Interlock[]
  allowed: boolean
}

export type CommandStatus = 'sending' | 'accepted' | 'applied' | 'refused' | 'unknown' | 'expired'

export interface Command {
  id: string
  status: CommandStatus
  value?: number | null
  reason?: string | null
}

export interface WindowGap {
  from_ms: number
  to_ms: number
  first: string
  last: string
}

export interface Window {
  revision: string
  bucketed: boolean
  channels: Record<string, { t: number[]; v: (number | null)[] }>
  gaps: WindowGap[]
}

export interface Provenance {
  state: 'proved' | 'checking' | 'behind' | 'mismatch'
  /** Everything published before this is in the log. */
  until: string | null
  why?: string | null
  /** Records in the log, and the root hash over them, in hex. */
  size?: string
  root?: string
  /** The log's name and its verifier key, as C2SP notes write it. */
  origin?: string
  key?: string
  /** Statements that the log would not take. */
  refused?: string
  /** When the server last checked the whole log. */
  verified?: string | null
}

export interface Samples {
  type: 'samples'
  stream: string
  t: number[]
  u_ms: number[]
  channels: Record<string, (number | null)[]>
  revision: string | number
  cursor: string | null
}

export type LiveMessage =
  | { type: 'hello'; server_ms: number }
  | Samples
  | { type: 'pong'; t0_ms: number; t1_ms: number }
  | { type: 'devices'; devices: Device[] }
  | ({ type: 'forecast'; graph: string } & Forecast)
  | ({ type: 'control' } & Control)
  | ({ type: 'provenance' } & Provenance)
  | { type: 'invalidate'; stream: string; from_ms: number; to_ms: number; revision: string }
  | { type: 'gap'; streams?: Record<string, { from_ms: number; to_ms: number }> }

/** UTC times and durations as the page prints them. All times are UNIX milliseconds. */

export const SECOND = 1000
export const MINUTE = 60 * SECOND
export const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

/** "14:32:07", or with `decimals` 1 "14:32:07.4". Truncates: a clock never shows a time not yet reached. */
export function clock(ms: number, decimals = 0): string {
  const scale = 10 ** (3 - decimals)
  const iso = new Date(Math.floor(ms / scale) * scale).toISOString()
  return iso.slice(11, decimals > 0 ? 20 + decimals : 19)
}

/** "2026-11-21 14:32:07.412", for tables. */
export function dateTime(ms: number): string {
  return new Date(ms).toISOString().slice(0, 23).replace('T', ' ')
}

/** "0.4 s", "47 s", "3 min 11 s", "2 h 5 min", "12 days". */
export function duration(ms: number): string {
  if (ms < 0.95 * SECOND) return `${(Math.max(0, ms) / SECOND).toFixed(1)} s`
  const seconds = Math.round(ms / SECOND)
  if (seconds < 60) return `${seconds} s`
  if (seconds < 3600) return join(Math.floor(seconds / 60), 'min', seconds % 60, 's')
  if (ms < 2 * DAY) return join(Math.floor(seconds / 3600), 'h', Math.floor((seconds % 3600) / 60), 'min')
  return `${Math.floor(ms / DAY)} days`
}

/** Only the largest unit: "47 s", "3 min", "2 h", for places with room for one number. */
export function durationShort(ms: number): string {
  if (ms < MINUTE) return duration(ms)
  if (ms < HOUR) return `${Math.floor(ms / MINUTE)} min`
  return ms < 2 * DAY ? `${Math.floor(ms / HOUR)} h` : `${Math.floor(ms / DAY)} days`
}

function join(major: number, majorUnit: string, minor: number, minorUnit: string): string {
  return minor === 0 ? `${major} ${majorUnit}` : `${major} ${majorUnit} ${minor} ${minorUnit}`
}

const STEPS = [
  0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600,
  7200, 10800, 21600, 43200, 86400,
].map((seconds) => seconds * SECOND)

export interface Tick {
  at: number
  label: string
}

/** Round times between `from` and `to`, at least `minPixels` apart on an axis `pixels` wide. */
export function ticks(from: number, to: number, pixels: number, minPixels = 72): Tick[] {
  if (!(to > from) || pixels <= 0) return []
  const least = ((to - from) / pixels) * minPixels
  const step = STEPS.find((s) => s >= least) ?? Math.ceil(least / DAY) * DAY
  const decimals = step >= SECOND ? 0 : step >= 100 ? 1 : step >= 10 ? 2 : 3
  const out: Tick[] = []
  for (let k = Math.ceil(from / step); k * step <= to; k++) {
    const at = k * step
    out.push({ at, label: step >= MINUTE ? clock(at).slice(0, 5) : clock(at, decimals) })
  }
  return out
}

/** Parses RFC 3339 with up to nanoseconds into milliseconds; null for null or nonsense. */
export function parseTime(text: string | null | undefined): number | null {
  if (!text) return null
  const match = /^(.*T\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)$/.exec(text)
  if (!match) return null
  const whole = Date.parse(`${match[1]}${match[3]}`)
  if (Number.isNaN(whole)) return null
  return whole + (match[2] ? Number(match[2]) * SECOND : 0)
}

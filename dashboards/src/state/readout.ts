/** What the gutters say: the value at an instant, its twin, its residual and how old it is. */
import type { Forecast } from '../api/types'
import { type ChannelRef, type PairRow, Z95 } from '../lib/rows'
import type { Series } from '../lib/series'
import { MINUTE, SECOND } from '../lib/time'
import type { History } from './history'

export interface Reading {
  /** null: never known. */
  value: number | null
  /** How long before the asked instant the value was taken, ms. */
  age: number
  stale: boolean
  /** The age is worth a word: more than two nominal periods. */
  aged: boolean
}

export function staleAfter(ref: ChannelRef): number {
  const period = ref.periodMs ?? MINUTE
  return Math.max(2 * SECOND, ref.maxSilenceMs ?? 3 * period)
}

export function reading(history: History, ref: ChannelRef, at: number): Reading {
  const series = history.channel(ref.id)
  const index = lastKnown(series, at)
  if (index < 0) return { value: null, age: Infinity, stale: false, aged: false }
  const age = at - series.time(index)
  const coarse = 2 * history.stream(ref.stream).coverage.resolutionAt(at)
  return {
    value: series.value(index),
    age,
    stale: age > staleAfter(ref) + coarse,
    aged: age > Math.max(2 * SECOND, 2 * (ref.periodMs ?? Infinity)) + coarse,
  }
}

function lastKnown(series: Series, at: number): number {
  let index = series.indexAt(at)
  for (let tries = 0; index >= 0 && Number.isNaN(series.value(index)) && tries < 1000; tries++) index--
  return index >= 0 && Number.isNaN(series.value(index)) ? -1 : index
}

export interface TwinReading {
  twin: number | null
  /** Half the 95 % band. */
  half: number | null
  residual: number | null
  ahead: { value: number; half: number; seconds: number } | null
  slopePerMinute: number | null
  /** How long the residual has been outside the band without a break, ms; 0 inside. */
  outsideFor: number
}

export function twinReading(history: History, row: PairRow, at: number, horizon: number, forecast: Forecast | null): TwinReading {
  const { pair } = row
  const value = (id: string) => valueAt(history.channel(id), at, 10 * SECOND)
  const sd = value(pair.sd)
  const measured = value(pair.measured)
  const twin = value(pair.output)
  const recorded = measured === null ? null : value(pair.residual)
  return {
    twin,
    half: sd === null ? null : sd * Z95,
    residual: recorded,
    ahead: aheadOf(history, row, at, horizon, forecast),
    slopePerMinute: slope(history.channel(pair.measured), at - 30 * SECOND, at),
    outsideFor: outside(history.channel(pair.residual), history.channel(pair.sd), at),
  }
}

function valueAt(series: Series, at: number, within: number): number | null {
  const index = lastKnown(series, at)
  return index >= 0 && at - series.time(index) <= within ? series.value(index) : null
}

/** Live: the end of the forecast. In the past: what the twin then came to, as recorded. */
function aheadOf(history: History, row: PairRow, at: number, horizon: number, forecast: Forecast | null): TwinReading['ahead'] {
  if (horizon <= 0) return null
  const seconds = Math.round(horizon / SECOND)
  const curve = forecast?.channels[row.output]
  if (curve) {
    let index = curve.t.findIndex((t) => t >= at + horizon)
    if (index < 0) index = curve.t.length - 1
    const value = curve.v[index]
    return value === undefined ? null : { value, half: (curve.sd[index] ?? NaN) * Z95, seconds }
  }
  const twin = history.channel(row.pair.output)
  if ((twin.lastTime ?? 0) < at + horizon) return null
  const value = valueAt(twin, at + horizon, 10 * SECOND)
  const sd = valueAt(history.channel(row.pair.sd), at + horizon, 10 * SECOND)
  return value === null || sd === null ? null : { value, half: sd * Z95, seconds }
}

/** Least-squares slope per minute. */
function slope(series: Series, from: number, to: number): number | null {
  let n = 0
  let st = 0
  let sv = 0
  let stt = 0
  let stv = 0
  for (let i = series.lowerBound(from); i < series.length && series.time(i) <= to; i++) {
    const v = series.value(i)
    if (Number.isNaN(v)) continue
    const t = (series.time(i) - from) / MINUTE
    n++
    st += t
    sv += v
    stt += t * t
    stv += t * v
  }
  const denominator = n * stt - st * st
  return n < 5 || denominator <= 0 ? null : (n * stv - st * sv) / denominator
}

/** Walks back while outside; a return inside shorter than 15 s does not end the excursion. */
export function outside(residual: Series, sd: Series, at: number): number {
  const end = residual.indexAt(at)
  let known = sd.indexAt(at)
  let start: number | null = null
  let insideSince: number | null = null
  for (let i = end; i >= 0 && end - i < 20_000; i--) {
    const value = residual.value(i)
    const time = residual.time(i)
    if (Number.isNaN(value)) continue
    while (known > 0 && sd.time(known) > time) known--
    const limit = sd.value(Math.max(0, known)) * Z95
    if (Math.abs(value) > limit) {
      start = time
      insideSince = null
    } else {
      if (start === null && at - time > 2 * SECOND) return 0
      if (start === null) continue
      insideSince ??= time
      if (insideSince - time > 15 * SECOND) break
    }
  }
  return start === null ? 0 : at - start
}

/** After a reconnect: was anything lost? Looks at the data itself, not at what the link promised. */
import type { Stream } from '../api/types'
import { holes } from '../lib/coverage'
import { clock, duration } from '../lib/time'
import type { History } from './history'

const COLUMNS = 4000

export interface Outage {
  lost: boolean
  text: string
}

export function outage(history: History, streams: Stream[], from: number, to: number): Outage {
  let worst: { stream: string; from: number; to: number } | null = null
  for (const { stream, nominal_rate_hz: hz } of streams) {
    const data = history.stream(stream)
    const series = data.series.values().next().value
    if (!series || !hz) continue
    const points = series.points(from, to, COLUMNS)
    for (const hole of holes(points.t, 1000 / hz, data.coverage, (to - from) / COLUMNS, points.v)) {
      if (hole.to < from) continue
      if (!worst || hole.to - hole.from > worst.to - worst.from) worst = { stream, ...hole }
    }
  }
  if (!worst) return { lost: false, text: 'Live, nothing lost' }
  const span = duration(worst.to - worst.from)
  return { lost: true, text: `Live, no samples for ${span} from ${clock(worst.from)} (${worst.stream.split('/')[0]})` }
}

/** How often each twin's 95 % band held in the last hour: counted by the store over every sample, once a minute. */
import { post } from '../api/http'
import type { Pair } from '../api/types'
import { splitId, Z95 } from '../lib/rows'
import { HOUR, MINUTE, SECOND } from '../lib/time'
import { rig } from './rig.svelte'

const FIRST_MS = 4 * SECOND
/** A share of fewer samples says nothing. */
const LEAST = 100

export interface Held {
  share: number
  samples: number
}

class BandHeld {
  /** By the residual's id. */
  shares = $state.raw<Record<string, Held>>({})
  private askedAt = -Infinity

  start(): () => void {
    const timer = window.setInterval(() => void this.refresh(), SECOND)
    return () => clearInterval(timer)
  }

  private async refresh(): Promise<void> {
    const now = rig.serverNow()
    const pairs = rig.graphs.flatMap((graph) => graph.pairs)
    const every = Object.keys(this.shares).length > 0 ? MINUTE : FIRST_MS
    if (rig.link.state !== 'open' || pairs.length === 0 || now - this.askedAt < every) return
    this.askedAt = now
    const found: Record<string, Held> = {}
    try {
      for (const pair of pairs) {
        const [row] = await post<{ n: string | number; inside: string | number | null }[]>('/query', { sql: question(pair, now) })
        const samples = Number(row?.n ?? 0)
        if (samples >= LEAST) found[pair.residual] = { share: Number(row?.inside ?? 0) / samples, samples }
      }
      this.shares = found
    } catch {
      // What was counted before stays; the next minute asks again.
    }
  }
}

function question(pair: Pair, now: number): string {
  const { stream, channel } = splitId(pair.residual)
  const name = (text: string) => `"${text.replaceAll('"', '""')}"`
  const residual = name(channel)
  const sd = name(splitId(pair.sd).channel)
  const from = new Date(now - HOUR).toISOString()
  return `SELECT count(${residual}) AS n, sum(CASE WHEN abs(${residual}) <= ${Z95} * ${sd} THEN 1 ELSE 0 END) AS inside FROM aligned.${name(stream)} WHERE time >= TIMESTAMP '${from}'`
}

export const bandHeld = new BandHeld()

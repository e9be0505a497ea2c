/** Glass to glass: from a sample's own time stamp to the frame that shows it, clock uncertainty included. */

interface Probe {
  at: number
  offset: number
  roundTrip: number
}

export interface ClockEstimate {
  /** Server clock minus page clock, ms. */
  offset: number
  /** Half the least round trip: the true offset is no further away. */
  uncertainty: number
}

const KEEP_MS = 60_000

/** Server clock minus page clock from ping and pong: the probe with the least round trip of the last minute wins. */
export class ClockProbe {
  private probes: Probe[] = []

  add(sent: number, server: number, received: number): void {
    if (received < sent) return
    this.probes = this.probes.filter((probe) => received - probe.at < KEEP_MS)
    this.probes.push({ at: received, offset: server - (sent + received) / 2, roundTrip: received - sent })
  }

  estimate(): ClockEstimate | null {
    let best: Probe | null = null
    for (const probe of this.probes) if (best === null || probe.roundTrip <= best.roundTrip) best = probe
    return best && { offset: best.offset, uncertainty: best.roundTrip / 2 }
  }
}

export function quantile(sorted: readonly number[], q: number): number {
  if (sorted.length === 0) return NaN
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(q * sorted.length) - 1))] as number
}

export interface LatencySummary {
  p50: number
  p99: number
  count: number
  /** The median uncertainty of the samples with the page's own clock, ms. */
  uncertainty: number
  /** How long ago the oldest of them was shown, ms. */
  spanMs: number
}

/** The latencies of the last `keepMs`, at most the newest `capacity`: what a start or a stall cost is forgotten. */
export class LatencyWindow {
  private taken: { at: number; latency: number; uncertainty: number }[] = []

  constructor(
    readonly keepMs: number,
    private readonly capacity: number,
  ) {}

  add(at: number, latency: number, uncertainty: number): void {
    this.taken.push({ at, latency, uncertainty })
    // Cut now and then: each sample moves the rest at most once.
    if (this.taken.length > 2 * this.capacity) this.taken = this.taken.slice(-this.capacity)
  }

  clear(): void {
    this.taken = []
  }

  summary(now: number): LatencySummary | null {
    this.taken = this.taken.slice(-this.capacity).filter(({ at }) => now - at <= this.keepMs)
    const [oldest] = this.taken
    if (!oldest) return null
    const sorted = this.taken.map(({ latency }) => latency).sort((a, b) => a - b)
    const uncertainties = this.taken.map(({ uncertainty }) => uncertainty).sort((a, b) => a - b)
    return {
      p50: quantile(sorted, 0.5),
      p99: quantile(sorted, 0.99),
      count: sorted.length,
      uncertainty: quantile(uncertainties, 0.5),
      spanMs: now - oldest.at,
    }
  }
}

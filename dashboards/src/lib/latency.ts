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
  /** The largest uncertainty among the samples and the page's own clock, ms. */
  uncertainty: number
}

/** The last `capacity` latencies. */
export class LatencyWindow {
  private values: number[] = []
  private uncertainties: number[] = []

  constructor(private readonly capacity = 600) {}

  add(latency: number, uncertainty: number): void {
    this.values.push(latency)
    this.uncertainties.push(uncertainty)
    if (this.values.length > this.capacity) {
      this.values.shift()
      this.uncertainties.shift()
    }
  }

  clear(): void {
    this.values = []
    this.uncertainties = []
  }

  summary(): LatencySummary | null {
    if (this.values.length === 0) return null
    const sorted = [...this.values].sort((a, b) => a - b)
    const uncertainties = [...this.uncertainties].sort((a, b) => a - b)
    return {
      p50: quantile(sorted, 0.5),
      p99: quantile(sorted, 0.99),
      count: sorted.length,
      uncertainty: quantile(uncertainties, 0.5),
    }
  }
}

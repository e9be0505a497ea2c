/** Who was there when: the tapes of the device list and the lanes of the timeline, from the store every few seconds. */
import { get } from '../api/http'
import { bridge } from '../lib/tape'
import { MINUTE, SECOND } from '../lib/time'
import { rig, TIMELINE_MS } from './rig.svelte'

export const TAPE_COLUMNS = 150
const LANE_COLUMNS = 300
/** The store reads every row of the span for a tape. */
const EVERY_MS = 10 * SECOND
const TAPE_MS = 10 * MINUTE

type Tapes = Record<string, number[]>

class Presence {
  tapes = $state.raw<Tapes>({})
  lanes = $state.raw<{ from: number; to: number; devices: Tapes }>({ from: 0, to: 1, devices: {} })
  private lanesAt = 0
  private askedAt = 0

  start(): () => void {
    const timer = window.setInterval(() => void this.refresh(), SECOND)
    void this.refresh()
    return () => clearInterval(timer)
  }

  private async refresh(): Promise<void> {
    const to = rig.serverNow()
    if (rig.link.state !== 'open' || !rig.loaded || to - this.askedAt < EVERY_MS) return
    this.askedAt = to
    try {
      const answer = await ask(to - TAPE_MS, to, TAPE_COLUMNS)
      this.tapes = answer
      const end = rig.timelineEnd
      if (Math.abs(end - this.lanes.to) < 5 * SECOND && to - this.lanesAt < 30 * SECOND) return
      const devices = await ask(end - TIMELINE_MS, end, LANE_COLUMNS)
      this.lanes = { from: end - TIMELINE_MS, to: end, devices }
      this.lanesAt = to
      rig.invalidate()
    } catch {
      // The tapes stay as they were; the state cell says that the link is down.
    }
  }
}

async function ask(from: number, to: number, columns: number): Promise<Tapes> {
  const { devices } = await get<{ devices: Tapes }>('/presence', { from_ms: from, to_ms: to, columns })
  const width = (to - from) / columns
  return Object.fromEntries(Object.entries(devices).map(([name, tape]) => [name, bridge(tape, width, periodOf(name))]))
}

export const presence = new Presence()

/** The longest period among a device's streams. */
function periodOf(device: string): number {
  const rates = rig.streams.filter((s) => s.stream.startsWith(`${device}/`)).map((s) => s.nominal_rate_hz ?? 1)
  return 1000 / Math.min(...rates, 1000)
}

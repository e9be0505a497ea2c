/** Commands: staged, reviewed by the server, sent, and followed until the device's own read-back. Nothing is optimistic. */
import { ApiError, get, post } from '../api/http'
import { pageClock } from '../api/live'
import type { Command, ControlChannel, Forecast, Review } from '../api/types'
import { type Change, questions, type Sent } from '../lib/command'
import { fixed, unit } from '../lib/number'
import { shortName } from '../lib/rows'
import { rig } from './rig.svelte'

const POLL_MS = 300
const POLL_LIMIT_MS = 15_000
const WHAT_IF_DELAY_MS = 120
const WHAT_IF_HORIZON_S = 90

export function key(channel: { device: string; channel: string }): string {
  return `${channel.device}/${channel.channel}`
}

class Commands {
  staged = $state.raw<Record<string, number>>({})
  review = $state.raw<Review | null>(null)
  sent = $state.raw<Sent[]>([])
  offStatus = $state<string | null>(null)
  problem = $state<string | null>(null)
  busy = $state(false)
  private holder = $state<string | null>(sessionStorage.getItem('orrery.holder'))
  private whatIfTimer = 0

  holds = $derived.by(() => {
    const lease = rig.control?.lease
    return !!lease && lease.holder === this.holder && lease.expires_ms > rig.now
  })
  /** Q1 of one board is not Q1 of another: with several, the device belongs to the name. */
  severalDevices = $derived(new Set(rig.control?.channels.map((channel) => channel.device)).size > 1)
  /** Why commands cannot be staged now; null when they can. */
  locked = $derived(rig.locked ?? (this.holds ? null : 'take control first'))

  async takeControl(): Promise<void> {
    await this.attempt(async () => {
      const lease = await post<{ holder: string; expires_ms: number }>('/control/lease', {})
      this.holder = lease.holder
      sessionStorage.setItem('orrery.holder', lease.holder)
      if (rig.control) rig.control = { ...rig.control, lease }
    })
  }

  /** Takes what was typed; what is no number or outside the limits is refused in words and stages nothing. */
  type(channel: ControlChannel, text: string): boolean {
    const value = Number(text.trim().replace(',', '.').replace('−', '-'))
    const name = this.name(channel)
    if (text.trim() === '' || !Number.isFinite(value)) this.problem = `Not staged. “${text.trim()}” is no number.`
    else if (value < channel.low || value > channel.high) {
      this.problem = `Not staged. ${name} takes ${fixed(channel.low, 0)} to ${fixed(channel.high, 0)} ${unit(channel.unit)}, not ${text.trim()}.`
    } else {
      this.stage(channel, value)
      return true
    }
    return false
  }

  stage(channel: ControlChannel, value: number): void {
    const clamped = Math.min(channel.high, Math.max(channel.low, Math.round(value * 10) / 10))
    const staged = { ...this.staged }
    if (clamped === channel.value) delete staged[key(channel)]
    else staged[key(channel)] = clamped
    this.staged = staged
    this.review = null
    this.problem = null
    this.sent = []
    this.askWhatIf()
  }

  discard(): void {
    this.staged = {}
    this.review = null
    this.problem = null
    rig.whatIfs = {}
    clearTimeout(this.whatIfTimer)
    rig.invalidate()
  }

  get changes(): Change[] {
    return Object.entries(this.staged).map(([id, value]) => {
      const [device = '', channel = ''] = id.split('/')
      return { device, channel, value }
    })
  }

  async askReview(): Promise<void> {
    await this.attempt(async () => {
      this.review = await post<Review>('/control/review', { changes: this.changes })
    })
  }

  async send(): Promise<void> {
    const { review } = this
    if (!review) return
    await this.attempt(async () => {
      this.sent = review.changes.map((change) => ({ ...this.describe(change), value: change.to, status: 'sending' as const, reason: null }))
      const { commands } = await this.answered(post<{ commands: Command[] }>('/control/send', { review_id: review.review_id }))
      this.discard()
      await Promise.all(commands.map((command, index) => this.follow(command, index)))
    })
  }

  async off(): Promise<void> {
    this.discard()
    this.offStatus = 'Sending'
    try {
      await post('/control/off', {})
      this.offStatus = 'Sent. The bars show what the board reads back.'
    } catch (error) {
      const sent = isUnanswered(error) ? 'Not known whether it was sent' : 'Not sent'
      this.offStatus = `${sent}. ${message(error)} Use the switch on the rig.`
    }
    window.setTimeout(() => (this.offStatus = null), 10_000)
  }

  name(channel: { device: string; channel: string }): string {
    const name = shortName(channel.channel)
    return this.severalDevices ? `${name} of ${channel.device}` : name
  }

  /** How a channel is called and in what unit. */
  describe(change: { device: string; channel: string }): { title: string; unit: string } {
    const channel = rig.control?.channels.find((c) => key(c) === key(change))
    return { title: this.name(change), unit: unit(channel?.unit ?? '') }
  }

  /** An answer that never came leaves open what became of the commands. */
  private async answered<T>(request: Promise<T>): Promise<T> {
    try {
      return await request
    } catch (error) {
      if (isUnanswered(error)) this.sent = this.sent.map((sent) => ({ ...sent, status: 'unknown' as const }))
      throw error
    }
  }

  private async follow(first: Command, index: number): Promise<void> {
    const started = pageClock()
    let command = first
    for (;;) {
      const { status, value, reason } = command
      const readBack = status === 'applied' ? value : null
      this.sent = this.sent.map((sent, k) => (k === index ? { ...sent, value: readBack ?? sent.value, status, reason: reason ?? null } : sent))
      // What is not known may still become known: the agent reads the device back.
      if (status === 'applied' || status === 'refused' || status === 'expired') return
      if (pageClock() - started > POLL_LIMIT_MS) return
      await new Promise((resolve) => window.setTimeout(resolve, POLL_MS))
      command = await get<Command>(`/control/commands/${encodeURIComponent(first.id)}`)
    }
  }

  /** The twin's answer to what is staged, as a curve and in words. */
  private askWhatIf(): void {
    clearTimeout(this.whatIfTimer)
    if (this.changes.length === 0) {
      rig.whatIfs = {}
      rig.invalidate()
      return
    }
    this.whatIfTimer = window.setTimeout(() => void this.fetchWhatIf(), WHAT_IF_DELAY_MS)
  }

  private async fetchWhatIf(): Promise<void> {
    const asked = this.staged
    const ask = async ([graph, set]: [string, Record<string, number>]) => {
      const answer = await post<Forecast>(`/graphs/${encodeURIComponent(graph)}/what-if`, { set, horizon_s: WHAT_IF_HORIZON_S })
      return [graph, answer] as const
    }
    try {
      const answers = await Promise.all([...questions(this.changes, rig.control?.channels ?? [])].map(ask))
      if (this.staged === asked) rig.whatIfs = Object.fromEntries(answers)
    } catch (error) {
      if (this.staged === asked) this.problem = message(error)
    }
    rig.invalidate()
  }

  private async attempt(action: () => Promise<void>): Promise<void> {
    this.busy = true
    this.problem = null
    try {
      await action()
    } catch (error) {
      this.problem = message(error)
      this.sent = this.sent.filter((sent) => sent.status !== 'sending')
    } finally {
      this.busy = false
    }
  }
}

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

function isUnanswered(error: unknown): boolean {
  return error instanceof ApiError && error.status === 0
}

/** "T1 47.1 °C, T2 35.9 °C in 90 s", from the what-ifs' ends. */
export function answerInWords(whatIfs: Record<string, Forecast>): string {
  const parts = rig.rows.flatMap((row) => {
    const end = row.kind === 'pair' ? whatIfs[row.graph]?.channels[row.output]?.v.at(-1) : undefined
    return end === undefined ? [] : [`${row.title} ${fixed(end, 1)} ${row.unit}`]
  })
  return `${parts.join(', ')} in ${WHAT_IF_HORIZON_S} s`
}

export const commands = new Commands()

/** Commands in words, and as the twins are asked about them. */
import type { CommandStatus, ControlChannel } from '../api/types'
import { fixed } from './number'
import { capital } from './text'

export interface Change {
  device: string
  channel: string
  value: number
}

export interface Sent {
  title: string
  unit: string
  /** What was asked for; once applied, what the device read back. */
  value: number
  status: CommandStatus
  reason: string | null
}

const WORDS: Record<CommandStatus, string> = {
  sending: 'Sending',
  accepted: 'Accepted',
  applied: 'Applied',
  refused: 'Refused',
  unknown: 'Not known whether it was applied',
  expired: 'Expired',
}

/** "Refused: Q1 58 %. The device took 40 instead of 58". */
export function outcome({ title, unit, value, status, reason }: Sent): string {
  const command = `${WORDS[status]}: ${title} ${setPoint(value)} ${unit}`.trim()
  return `${command}${status === 'applied' ? ', as the board reads back' : ''}${reason ? `. ${capital(reason)}` : ''}`
}

/** Whether the device does not do, or may not do, what it was told. */
export function failed(status: CommandStatus): boolean {
  return status === 'refused' || status === 'expired' || status === 'unknown'
}

export function setPoint(value: number): string {
  return fixed(value, Number.isInteger(value) ? 0 : 1)
}

/** By graph, the staged values under the names of its model's inputs. */
export function questions(changes: Change[], channels: ControlChannel[]): Map<string, Record<string, number>> {
  const out = new Map<string, Record<string, number>>()
  for (const { device, channel, value } of changes) {
    const known = channels.find((c) => c.device === device && c.channel === channel)
    if (known) out.set(known.graph, { ...out.get(known.graph), [known.input]: value })
  }
  return out
}

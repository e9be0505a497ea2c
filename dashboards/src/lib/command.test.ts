import { describe, expect, it } from 'vitest'
import type { ControlChannel } from '../api/types'
import { failed, outcome, questions } from './command'

describe('outcome', () => {
  const sent = { title: 'Q1', unit: '%', value: 58, reason: null }

  it('says applied only of what the device read back', () => {
    expect(outcome({ ...sent, status: 'applied' })).toBe('Applied: Q1 58 %, as the board reads back')
    expect(failed('applied')).toBe(false)
  })

  it('says why a set-point was refused or is not known', () => {
    expect(outcome({ ...sent, status: 'refused', reason: 'the device took 40 instead of 58' })).toBe(
      'Refused: Q1 58 %. The device took 40 instead of 58',
    )
    expect(outcome({ ...sent, value: 57.5, status: 'unknown', reason: 'no answer' })).toBe('Not known whether it was applied: Q1 57.5 %. No answer')
    expect(failed('refused') && failed('unknown') && failed('expired')).toBe(true)
  })
})

describe('questions', () => {
  const channel = (device: string, channel: string, graph: string, input: string): ControlChannel => ({
    device, channel, graph, input, title: '', unit: '%', value: 0, low: 0, high: 80, age_s: 0,
  })

  it('asks the graph of each channel, by its own input', () => {
    const channels = [channel('one', 'q1', 'a', 'u1'), channel('one', 'q2', 'a', 'u2'), channel('two', 'q1', 'b', 'power')]
    const changes = [
      { device: 'two', channel: 'q1', value: 3 },
      { device: 'one', channel: 'q2', value: 2 },
      { device: 'one', channel: 'q1', value: 1 },
    ]
    expect([...questions(changes, channels)]).toEqual([
      ['b', { power: 3 }],
      ['a', { u2: 2, u1: 1 }],
    ])
  })
})
